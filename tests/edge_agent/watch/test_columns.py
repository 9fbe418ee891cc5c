"""Whatever a profile watches, its features are the columns of one table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.watch.columns import Columns
from edge_agent.watch.fold import FeatureFold
from edge_agent.watch.residual import Plane
from protocol.members import Basis, Contract, Feature, Profile, Residual, TensorSpec, Watched

WORDS = ("rain", "snow", "überall")


def number(name: str = "f") -> Feature:
    return Feature(name, (0.0,), (0, 1, 0, 0))


def words(known: tuple[str, ...] = WORDS) -> Feature:
    return Feature("w", counts=(0,) * (len(known) + 2), kind="words", words=known)


def contract(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> Contract:
    return Contract(inputs, outputs or (TensorSpec("y", "FP32", (-1, 1)),))


def numbers(count: int) -> tuple[Feature, ...]:
    return tuple(number(f"f{n}") for n in range(count))


X = TensorSpec("x", "FP32", (-1, 2))
Y = TensorSpec("y", "FP64", (-1, 3))
WEATHER = TensorSpec("weather", "BYTES", (-1, 1))
IMAGE = TensorSpec("image", "UINT8", (-1, -1, -1, 3))
VECTOR = TensorSpec("vector", "FP32", (-1, 4), role="embedding")
POOLED = Watched("image", "pooled", "hwc")
PLANE = Basis((0.5,) * 4, (1.0, 2.0, 0.5, 1.0), ((1.0, 0.0, 0.0, 0.0), (0.0, 0.6, 0.8, 0.0)))


def test_a_plain_profile_keeps_the_short_way():
    wanted = [
        (contract(X), Profile(1, numbers(2))),
        (contract(X), Profile(1, numbers(2), watched=(Watched("x"),))),
        (contract(X, Y), Profile(1, numbers(2))),
    ]
    for of, profile in wanted:
        assert Columns(of, profile).plain
    assert not Columns(contract(X, Y), Profile(1, numbers(3), watched=(Watched("y"),))).plain
    assert not Columns(
        contract(WEATHER), Profile(1, (words(),), watched=(Watched("weather", "words"),))
    ).plain


def test_columns_of_several_inputs_stand_in_the_order_of_the_profile():
    of = contract(X, Y)
    columns = Columns(of, Profile(1, numbers(5), watched=(Watched("y"), Watched("x"))))
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    y = np.arange(10, 16, dtype=np.float64).reshape(2, 3)
    table = columns({"x": x, "y": y}, {}, 2)
    assert (table.dtype, columns.width) == (np.dtype(np.float32), 5)
    assert table.tolist() == [[10, 11, 12, 0, 1], [13, 14, 15, 2, 3]]


def code(value: object) -> int:
    """What a profile's definition says of one text, read aloud."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if text is None or text == "":
        return len(WORDS) + 1
    return WORDS.index(str(text)) if text in WORDS else len(WORDS)


texts = st.one_of(
    st.sampled_from([*WORDS, "überall".encode(), b"rain", b"", "", None, b"\xff", "Rain", "rain "]),
    st.text(max_size=3),
)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=20))
def test_every_text_is_in_the_slot_the_profile_defines(rows):
    spec = TensorSpec("weather", "BYTES", (-1, 2))
    profile = Profile(1, (words(), words(())), watched=(Watched("weather", "words"),))
    array = np.empty((len(rows), 2), np.object_)
    array[:] = [list(row) for row in rows]
    table = Columns(contract(spec), profile)({"weather": array}, {}, len(rows))
    assert table[:, 0].tolist() == [code(value) for value, _ in rows]
    fold = FeatureFold(profile.features)
    first, second = fold.split(fold(table))
    slots = np.bincount([code(value) for value, _ in rows], minlength=len(WORDS) + 2)
    assert first == tuple(slots.tolist())
    missing = sum(value in ("", b"", None) for _, value in rows)
    assert second == (len(rows) - missing, missing)


def test_texts_of_numpys_own_kind_are_texts():
    profile = Profile(1, (words(),), watched=(Watched("weather", "words"),))
    columns = Columns(contract(WEATHER), profile)
    assert columns({"weather": np.array([["snow"], ["hail"]])}, {}, 2).tolist() == [[1], [3]]


def pooled_by_hand(image: np.ndarray) -> list[float]:
    """Of one image [channels, height, width] in double precision."""
    found: list[float] = []
    for channel in image.astype(np.float64):
        steps = np.abs(channel[:, 1:] - channel[:, :-1])
        edges = steps.mean() if steps.size else 0.0
        found += [channel.mean(), channel.std(), edges]
    return found


@pytest.mark.parametrize("layout", ["hw", "chw", "hwc"])
@pytest.mark.parametrize("height, width", [(1, 1), (5, 7), (64, 48)])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32", "FP64"])
def test_pooled_statistics_equal_numpys(layout: Any, height, width, datatype):
    rng = np.random.default_rng(height)
    kind = {"UINT8": np.uint8, "FP32": np.float32, "FP64": np.float64}[datatype]
    channels = 1 if layout == "hw" else 3
    images = rng.integers(0, 256, (4, channels, height, width)).astype(kind)
    shape = {"hw": (-1, -1, -1), "chw": (-1, 3, -1, -1), "hwc": (-1, -1, -1, 3)}[layout]
    given_as = {"hw": images[:, 0], "chw": images, "hwc": np.moveaxis(images, 1, 3)}[layout]
    of = contract(TensorSpec("image", datatype, shape))
    profile = Profile(1, numbers(3 * channels), watched=(Watched("image", "pooled", layout),))
    table = Columns(of, profile)({"image": given_as}, {}, 4)
    assert np.allclose(table, [pooled_by_hand(image) for image in images], rtol=1e-4, atol=1e-4)


def test_many_images_are_pooled_a_few_at_a_time_and_come_out_the_same(monkeypatch):
    of = contract(TensorSpec("image", "UINT8", (-1, -1, -1, 3)))
    profile = Profile(1, numbers(9), watched=(POOLED,))
    images = np.random.default_rng(1).integers(0, 256, (7, 5, 6, 3)).astype(np.uint8)
    together = Columns(of, profile)({"image": images}, {}, 7)
    monkeypatch.setattr("edge_agent.watch.columns.MOST_PIXELS", 200)
    assert np.array_equal(Columns(of, profile)({"image": images}, {}, 7), together)


def test_an_image_with_a_value_that_is_none_has_no_statistics_of_that_channel():
    of = contract(TensorSpec("image", "FP32", (-1, 2, 2, 2)))
    profile = Profile(1, numbers(6), watched=(Watched("image", "pooled", "chw"),))
    image = np.ones((1, 2, 2, 2), np.float32)
    image[0, 1, 0, 0] = np.nan
    table = Columns(of, profile)({"image": image}, {}, 1)
    assert table[0, :3].tolist() == [1, 0, 0]
    assert np.isnan(table[0, 3:]).all()


@pytest.mark.parametrize("first", [True, False], ids=["in front", "at the end"])
def test_errors_of_a_projected_output_are_the_last_column(first):
    of = contract(X, outputs=(VECTOR,))
    projected = Watched("vector", "projected", basis=PLANE)
    parts = (projected, Watched("x")) if first else (Watched("x"), projected)
    profile = Profile(1, numbers(4), watched=parts, residual=Residual(number("residual")))
    columns = Columns(of, profile)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 2)).astype(np.float32)
    vector = rng.normal(size=(6, 4)).astype(np.float32)
    along, errors = Plane(PLANE).project(vector)
    wanted = [along, x] if first else [x, along]
    table = columns({"x": x}, {"vector": vector}, 6)
    assert columns.width == 5
    assert np.array_equal(table, np.column_stack([*wanted, errors]))


def test_a_projected_output_alone_has_errors_only_if_the_profile_counts_them():
    of = contract(X, outputs=(VECTOR,))
    watched = (Watched("vector", "projected", basis=PLANE),)
    vector = np.random.default_rng(3).normal(size=(1, 4)).astype(np.float32)
    for residual, width in ((None, 2), (Residual(number("residual")), 3)):
        columns = Columns(of, Profile(1, numbers(2), watched=watched, residual=residual))
        assert columns.width == width
        assert columns({}, {"vector": vector}, 1).shape == (1, width)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 4), (0, 4)])
def test_an_output_of_another_form_is_an_error(shape):
    of = contract(X, outputs=(TensorSpec("vector", "FP32", (-1, -1)),))
    watched = (Watched("vector", "projected", basis=PLANE),)
    columns = Columns(of, Profile(1, numbers(2), watched=watched))
    with pytest.raises(ValueError, match="basis has 4"):
        columns({}, {"vector": np.zeros(shape, np.float32)}, 1)


PROJECTED = Watched("vector", "projected", basis=PLANE)


@pytest.mark.parametrize(
    "of, features, watched, why",
    [
        pytest.param(contract(X), numbers(3), (), "3 features, x is FP32", id="too many"),
        pytest.param(contract(X), numbers(1), (), "1 features, x is FP32", id="too few"),
        pytest.param(contract(WEATHER), numbers(1), (), "text", id="numbers of text"),
        pytest.param(
            contract(TensorSpec("x", "FP32", (-1, -1))), numbers(1), (), "no fixed", id="free"
        ),
        pytest.param(contract(X), numbers(2), (Watched("z"),), "watches z", id="no such input"),
        pytest.param(
            contract(X, outputs=(VECTOR,)), numbers(4), (Watched("vector"),), "vector", id="output"
        ),
        pytest.param(contract(X), (words(),), (Watched("x", "words"),), "FP32", id="words of x"),
        pytest.param(
            contract(WEATHER), numbers(1), (Watched("weather", "words"),), "text", id="no words"
        ),
        pytest.param(contract(X), (number(), words()), (), "has words", id="a word among numbers"),
        pytest.param(contract(X), numbers(9), (Watched("x", "pooled", "hwc"),), "no image", id="2"),
        pytest.param(
            contract(TensorSpec("image", "FP32", (-1, -1, 8, 8))),
            numbers(3),
            (Watched("image", "pooled", "chw"),),
            "channels",
            id="channels",
        ),
        pytest.param(contract(IMAGE), numbers(6), (POOLED,), "6 features of 9", id="pooled"),
        pytest.param(
            contract(X, outputs=(TensorSpec("vector", "FP32", (-1, 5)),)),
            numbers(2),
            (PROJECTED,),
            "its basis has 4",
            id="basis",
        ),
        pytest.param(
            contract(X, TensorSpec("y", "FP32", (3,))),
            numbers(3),
            (Watched("x"), Watched("y")),
            "no row for each row",
            id="no rows",
        ),
    ],
)
def test_a_profile_of_another_contract_is_refused(of, features, watched, why):
    with pytest.raises(ValueError, match=why):
        Columns(of, Profile(1, features, watched=watched))

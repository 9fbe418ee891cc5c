"""What is monitored of which model, and that a device makes the same columns of it."""

import numpy as np
import pytest

from control_plane.catalog.profile import Wishes, make_profile
from control_plane.catalog.watched import check_profile, choose, pool
from edge_agent.watch.columns import Columns
from edge_agent.watch.fold import FeatureFold
from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec
from protocol.profile import Feature, Profile, Watched

RNG = np.random.default_rng(7)
ROWS = 600


def numbers(name="x", *shape):
    return TensorSpec(name, "FP32", (-1, *(shape or (3,))))


def text(name="city"):
    return TensorSpec(name, "BYTES", (-1,))


SCORE = TensorSpec("score", "FP32", (-1, 1), role="score")
EMBEDDING = TensorSpec("embedding", "FP32", (-1, 12), role="embedding")
WIDE = numbers("image", 3, 64, 64)


def contract(*inputs, outputs=(SCORE,)):
    return Contract(tuple(inputs), tuple(outputs))


def values(spec, rows=ROWS):
    if spec.datatype == "BYTES":
        return RNG.choice(np.array(["york", "leeds", b"hull", "", "leeds"], object), rows)
    shape = [4 if size == -1 else size for size in spec.shape[1:]]
    drawn = RNG.normal(size=(rows, *shape)).astype(np.float32)
    if spec.role == "embedding":
        mixed = RNG.normal(size=(rows, 3)) @ RNG.normal(size=(3, shape[0]))
        return (mixed + 0.1 * drawn).astype(np.float32)
    return drawn


def made(found: Contract, watch="auto", rows=ROWS):
    samples = {spec.name: values(spec, rows) for spec in found.inputs}
    outputs = {spec.name: values(spec, rows) for spec in found.outputs}
    return samples, outputs, make_profile(found, samples, outputs, wishes=Wishes(watch)).profile


CASES = {
    "columns": (contract(numbers()), "auto", ()),
    "columns of an image": (contract(numbers("x", 1, 8, 8)), "auto", ()),
    "several inputs": (
        contract(numbers("a", 1), numbers("b", 2)),
        "auto",
        (("a", "columns"), ("b", "columns")),
    ),
    "words": (contract(text()), "auto", (("city", "words"),)),
    "words and numbers": (
        contract(text(), numbers()),
        "auto",
        (("city", "words"), ("x", "columns")),
    ),
    "pooled": (contract(WIDE), "auto", (("image", "pooled"),)),
    "pooled beside columns": (
        contract(WIDE, numbers()),
        "auto",
        (("image", "pooled"), ("x", "columns")),
    ),
    "pooled when asked": (contract(numbers("x", 8, 8, 3)), "pooled", (("x", "pooled"),)),
    "pooled without channels": (contract(numbers("x", 8, 8)), "pooled", (("x", "pooled"),)),
    "pooled of any size": (
        contract(TensorSpec("x", "FP32", (-1, 3, -1, -1))),
        "auto",
        (("x", "pooled"),),
    ),
    "projected": (
        contract(WIDE, outputs=(EMBEDDING,)),
        "auto",
        (("embedding", "projected"),),
    ),
    "projected beside columns": (
        contract(numbers(), WIDE, outputs=(SCORE, EMBEDDING)),
        "auto",
        (("x", "columns"), ("embedding", "projected")),
    ),
    "projected when asked": (
        contract(numbers(), outputs=(EMBEDDING,)),
        "embedding",
        (("embedding", "projected"),),
    ),
    "nothing": (contract(numbers()), "none", ()),
    "nothing that can be": (contract(TensorSpec("x", "FP32", (-1, -1))), "auto", ()),
}


@pytest.mark.parametrize("found,watch,watched", CASES.values(), ids=CASES)
def test_what_is_watched_follows_from_inputs_and_outputs(found, watch, watched):
    rows = 200 if any(spec is WIDE for spec in found.inputs) else ROWS
    profile = made(found, watch, rows)[2]
    assert tuple((each.tensor, each.how) for each in profile.watched) == watched
    assert profile.must_understand == (("profile/2",) if watched else ())
    assert len({feature.name for feature in profile.features}) == len(profile.features)
    check_profile(profile, found)


@pytest.mark.parametrize("found,watch,watched", CASES.values(), ids=CASES)
def test_a_device_counts_the_samples_as_the_profile_does(found, watch, watched):
    rows = 200 if any(spec is WIDE for spec in found.inputs) else ROWS
    samples, outputs, profile = made(found, watch, rows)
    if not profile.features:
        return
    columns, fold = Columns(found, profile), FeatureFold(profile.features)
    counted = np.zeros(fold.size, np.int64)
    for start in range(0, rows, 32):
        block = slice(start, min(start + 32, rows))
        given = {name: array[block] for name, array in samples.items()}
        answers = {name: array[block] for name, array in outputs.items()}
        table = columns(given, answers, block.stop - start)
        counted += fold(np.ascontiguousarray(table[:, : len(profile.features)]))
    wanted = np.concatenate([feature.counts for feature in profile.features])
    # Coordinates of an embedding are sums, which a block of another size adds up otherwise.
    assert np.abs(counted - wanted).sum() <= 2 * len(profile.features) * rows / 1000


def test_words_are_counted_by_their_text_however_it_comes():
    profile = made(contract(text()))[2]
    feature = profile.features[0]
    assert (feature.kind, feature.words[0]) == ("words", "leeds")
    assert set(feature.words) == {"leeds", "york", "hull"}
    assert feature.counts[-1] > 0
    assert sum(feature.counts) == ROWS


def test_pooled_statistics_are_those_of_numpy_per_channel():
    images = RNG.normal(size=(300, 3, 8, 9)).astype(np.float32)
    table = pool(images, "chw").reshape(300, 3, 3)
    wide = images.astype(np.float64)
    assert table[:, :, 0] == pytest.approx(wide.mean(axis=(2, 3)), abs=1e-5)
    assert table[:, :, 1] == pytest.approx(wide.std(axis=(2, 3)), abs=1e-5)
    steps = np.abs(wide[..., 1:] - wide[..., :-1]).mean(axis=(2, 3))
    assert table[:, :, 2] == pytest.approx(steps, abs=1e-5)
    assert np.array_equal(pool(np.moveaxis(images, 1, 3), "hwc"), pool(images, "chw"))
    assert np.array_equal(pool(images[:, 1], "hw"), pool(images, "chw")[:, 3:6])


def test_an_image_of_one_column_has_no_edges():
    assert pool(np.ones((2, 1, 5, 1), np.float32), "chw").tolist() == [[1, 0, 0], [1, 0, 0]]


def test_an_embedding_is_watched_along_eight_components_and_what_they_leave():
    found = contract(WIDE, outputs=(EMBEDDING,))
    profile = made(found, rows=200)[2]
    assert profile.watched[0].basis is not None
    assert len(profile.features) == len(profile.watched[0].basis.components) <= 8
    assert profile.residual is not None
    assert profile.residual.basis is None
    assert sum(profile.residual.feature.counts) == 200


def test_beside_other_columns_the_residual_is_over_all_of_them():
    profile = made(CASES["projected beside columns"][0], rows=200)[2]
    assert profile.residual is not None
    assert profile.residual.basis is not None
    assert len(profile.residual.basis.centre) == len(profile.features)


def test_names_of_features_say_where_they_come_from():
    profile = made(CASES["pooled beside columns"][0], rows=200)[2]
    names = [feature.name for feature in profile.features]
    assert names[:4] == ["image.mean[0]", "image.deviation[0]", "image.edges[0]", "image.mean[1]"]
    assert names[-3:] == ["x_0", "x_1", "x_2"]
    several = made(contract(numbers("a", 1), numbers("b", 2)))[2]
    assert [feature.name for feature in several.features] == ["a", "b_0", "b_1"]


@pytest.mark.parametrize(
    "found,watch,why",
    [
        (contract(WIDE), "columns", r"image is FP32 \[-1, 3, 64, 64\]"),
        (contract(numbers()), "pooled", "no input is an image"),
        (contract(numbers()), "embedding", "no output has the role embedding"),
        (
            contract(numbers(), outputs=(TensorSpec("e", "FP32", (-1, 2), role="embedding"),)),
            "embedding",
            "e has no basis: 2 of 3 columns",
        ),
    ],
)
def test_what_was_asked_for_and_is_not_there_is_refused(found, watch, why):
    with pytest.raises(InvalidRequest, match="S120.*" + why):
        made(found, watch, 50)


def test_more_than_4096_columns_together_are_not_watched():
    parts = choose(
        (numbers("a", 4000), numbers("b", 97), numbers("c", 96)),
        (),
        {"a": np.zeros((2, 4000)), "b": np.zeros((2, 97)), "c": np.zeros((2, 96))},
        {},
    )
    assert [part.watched.tensor for part in parts] == ["a", "c"]


def test_a_model_with_wide_input_and_no_image_is_watched_by_its_answers_alone():
    found = contract(numbers("x", 5000))
    made_of = make_profile(found, {"x": np.zeros((3, 5000))}, {"score": np.zeros((3, 1))})
    assert made_of.profile.features == ()
    assert "answers-only" in {lint.code for lint in made_of.lints}


FEATURE = Feature("f", (0.0,), (0, 1, 0, 0))
WORDS = Feature("w", (), (1, 0, 0), "words", ("a",))
POOLED = Watched("image", "pooled", "chw")


@pytest.mark.parametrize(
    "profile,of,why",
    [
        (Profile(1, (FEATURE,) * 2), contract(numbers()), "2 features, the model has 3 columns"),
        (Profile(1, (WORDS,) * 3), contract(numbers()), "x is FP32"),
        (
            Profile(1, (FEATURE,), watched=(Watched("y"),)),
            contract(numbers()),
            "y, .* is not there",
        ),
        (
            Profile(1, (FEATURE,), watched=(Watched("city", "words"),)),
            contract(text()),
            "city is BYTES",
        ),
        (Profile(1, (FEATURE,), watched=(Watched("city"),)), contract(text()), "city, .*BYTES"),
        (Profile(1, (FEATURE,) * 9, watched=(POOLED,)), contract(numbers("image", 3)), "pooled"),
        (Profile(1, (FEATURE,) * 3, watched=(POOLED,)), contract(WIDE), "has 9 columns"),
        (Profile(1, (FEATURE,) * 3, classes=(1, 2)), contract(numbers()), "2 classes"),
        (
            Profile(1, score=FEATURE),
            Contract((numbers(),), (TensorSpec("y", "FP32", (-1, 1)),)),
            "it has a score",
        ),
    ],
)
def test_a_profile_must_have_the_models_columns(profile, of, why):
    with pytest.raises(InvalidRequest, match="B114.*" + why):
        check_profile(profile, of)
    if "classes" not in why:
        # What is refused here would be refused by a device, too late.
        with pytest.raises(ValueError):
            check_on_device(profile, of)


def check_on_device(profile, of):
    Columns(of, profile)
    if profile.score is not None and of.output("score") is None:
        raise ValueError("the runner looks at this itself")

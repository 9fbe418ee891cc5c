"""Rows from files fed to models, labels kept from them, and profiles that were made before."""

import dataclasses
import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from control_plane.catalog import Monitoring, Wishes, build
from control_plane.catalog.inspect import Tensor
from control_plane.catalog.layout import read
from control_plane.catalog.measured import profile_of
from control_plane.catalog.report import profile_report
from control_plane.catalog.samples import feed
from control_plane.catalog.tables import Rows, take_labels
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.members import pretty
from protocol.profile import Profile
from tests.control_plane.catalog.onnx_files import classifier, model, rows, save, value

NAMES = ("a", "b", "c", "d")
PIXELS = Tensor("pixels", "FP32", (-1, 4))


def table(count=300, **more):
    values = rows(count)
    columns = {name: values[:, at].astype(np.float64) for at, name in enumerate(NAMES)}
    return Rows(columns | more, (*columns, *more))


def onnx_file(tmp_path):
    return save(classifier(), tmp_path / "net.onnx")


def answers(tmp_path, count=300):
    """What the classifier says to `rows`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file(tmp_path)))
    return session.run(["label"], {"pixels": rows(count)})[0]


def test_a_table_feeds_one_input_with_its_columns_in_their_order():
    arrays, names = feed(table(), [PIXELS])
    assert names == NAMES
    assert np.array_equal(arrays["pixels"], rows(300))
    assert arrays["pixels"].dtype == np.float32


def test_a_table_becomes_images_where_the_model_takes_them():
    arrays, _ = feed(table(), [Tensor("x", "FP32", (-1, 1, 2, 2))])
    assert np.array_equal(arrays["x"], rows(300).reshape(-1, 1, 2, 2))
    free, _ = feed(table(), [Tensor("x", "FP64", (-1, -1))])
    assert free["x"].shape == (300, 4)


def test_a_table_feeds_several_inputs_by_their_names():
    inputs = [Tensor("b", "FP32", (-1, 1)), Tensor("a", "FP32", (-1,))]
    given = Rows({"a": np.arange(3.0), "b": np.arange(3.0)}, ("a", "b"))
    arrays, names = feed(given, inputs)
    assert names is None
    assert {name: array.shape for name, array in arrays.items()} == {"a": (3,), "b": (3, 1)}


def test_arrays_are_fed_as_they_are():
    given = Rows({"anything": np.zeros((2, 4))})
    assert feed(given, [PIXELS]) == (given.arrays, None)


@pytest.mark.parametrize(
    "inputs,more,why",
    [
        ([PIXELS], {"city": np.array(["x"] * 300, object)}, "columns city: text"),
        ([PIXELS], {"e": np.zeros(300)}, r"5 columns .*takes 4"),
        (
            [Tensor(name, "FP32", (-1,)) for name in ("a", "b")],
            {},
            "columns c, d: no inputs of the model",
        ),
    ],
)
def test_columns_that_are_left_over_are_named(inputs, more, why):
    with pytest.raises(InvalidRequest, match="B108.*" + why):
        feed(table(**more), inputs)


def test_labels_leave_the_samples_before_the_model_sees_them(tmp_path):
    said = answers(tmp_path).copy()
    said[:30] = (said[:30] + 1) % 3
    samples, labels = take_labels(table(truth=said.astype(np.float64)), "truth")
    bundle = build(
        onnx_file(tmp_path), samples, "net/v1", into=tmp_path, monitoring=Monitoring(labels=labels)
    )
    assert bundle.profile.accuracy == 0.9
    assert len(bundle.profile.calibration) == 6
    assert tuple(feature.name for feature in bundle.profile.features) == NAMES
    plain = build(onnx_file(tmp_path), {"pixels": rows(300)}, "net/v2", into=tmp_path).profile
    assert [f.counts for f in plain.features] == [f.counts for f in bundle.profile.features]


def test_what_is_wished_is_signed(tmp_path):
    wishes = Wishes(watch="none", window_s=600, window_rows=200)
    bundle = build(
        onnx_file(tmp_path), table(), "net/v1", into=tmp_path, monitoring=Monitoring(wishes=wishes)
    )
    layout = read(bundle.directory)
    profile = layout.profile(layout.variants[0])
    assert (profile.window_s, profile.window_rows, profile.features) == (600, 200, ())
    assert sum(profile.confidence) == 300


def test_a_profile_that_was_made_before_is_the_one_that_ships(tmp_path):
    made = profile_of(table(300), onnx_file(tmp_path))
    bundle = build(
        onnx_file(tmp_path),
        table(40),
        "net/v1",
        into=tmp_path,
        monitoring=Monitoring(profile=made.profile),
    )
    layout = read(bundle.directory)
    assert layout.path(layout.variants[0].member("profile").digest).read_bytes() == pretty(
        made.profile
    )
    assert (bundle.profile.rows, bundle.card.rows) == (300, 300)


def test_a_profile_from_a_file_must_have_the_models_columns(tmp_path):
    other = profile_of(Rows({"x": np.zeros((9, 5))})).profile
    with pytest.raises(InvalidRequest, match=r"B114.*5 features, the model has 4 columns"):
        build(
            onnx_file(tmp_path),
            table(),
            "net/v1",
            into=tmp_path,
            monitoring=Monitoring(profile=other),
        )
    assert not (tmp_path / "net-v1.bundle").exists()


def test_with_the_model_a_profile_knows_its_answers_and_without_it_says_so(tmp_path):
    whole = profile_of(table(), onnx_file(tmp_path))
    bundle = build(onnx_file(tmp_path), table(), "net/v1", into=tmp_path)
    assert whole.profile == bundle.profile
    alone = profile_of(table())
    assert alone.profile == dataclasses.replace(whole.profile, confidence=(), classes=())
    assert "inputs-only" in {lint.code for lint in alone.lints}


def test_a_table_with_words_is_one_input_per_column():
    city = np.array(["leeds"] * 300, object)
    profile = profile_of(Rows({"a": np.arange(300.0), "city": city}, ("a", "city"))).profile
    assert [(each.tensor, each.how) for each in profile.watched] == [
        ("a", "columns"),
        ("city", "words"),
    ]


@pytest.mark.parametrize(
    "given,why",
    [
        (Rows({}), "no arrays"),
        (Rows({"x": np.array(3.0)}), "no arrays of rows"),
        (Rows({"x": np.zeros((3, 2)), "y": np.zeros((4, 2))}), "3 and 4 rows"),
        (Rows({"x": np.zeros((0, 2))}), "0 rows"),
        (Rows({"x": np.zeros((3, 2), np.complex64)}), "type complex64"),
    ],
)
def test_samples_that_are_no_rows_are_refused(given, why):
    with pytest.raises(InvalidRequest, match="B108.*" + why):
        profile_of(given)


SEVERAL = model(
    [helper.make_node("Add", ["a", "b"], ["score"])],
    inputs=[value(name, TensorProto.FLOAT, ["n", 1]) for name in ("a", "b")],
    outputs=[value("score", TensorProto.FLOAT, ["n", 1])],
)


def test_a_model_with_several_inputs_is_watched_in_all_of_them(tmp_path):
    path = save(SEVERAL, tmp_path / "sum.onnx")
    given = Rows({"b": np.arange(60.0), "a": np.ones(60)}, ("b", "a"))
    profile = build(path, given, "sum/v1", into=tmp_path).profile
    assert [feature.name for feature in profile.features] == ["a", "b"]
    assert profile.must_understand == ("profile/2",)
    assert profile.score is not None
    assert sum(profile.score.counts) == 60


def test_the_report_says_what_a_profile_holds(tmp_path):
    samples, labels = take_labels(table(truth=answers(tmp_path)), "truth")
    made = profile_of(samples, onnx_file(tmp_path), monitoring=Monitoring(labels=labels))
    data = pretty(made.profile)
    lines = profile_report(made.profile, "p.json", digest_of(data), len(data))
    assert [label for label, _ in lines] == ["profile", "residual", "answers", "window", "wrote"]
    assert [text for _, text in lines[:4]] == [
        "4 features, 300 rows",
        "of 3 components over 4 columns",
        "confidence, 3 classes, calibration of 6 knots, accuracy 1.000",
        "1 h, at least 50 rows",
    ]
    empty = profile_report(Profile(3), "p.json", digest_of(b""), 0)
    assert [text for _, text in empty[:3]] == ["answers only, 3 rows", "none", "none"]


def test_equal_samples_give_equal_bytes(tmp_path):
    first, second = (pretty(profile_of(table(), onnx_file(tmp_path)).profile) for _ in range(2))
    assert first == second
    assert json.loads(first)["residual"]["basis"]["components"]

"""Models that take text: from words in a table to a bundle that a device reads."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from control_plane.catalog import build
from control_plane.catalog.inspect import Tensor, inspect
from control_plane.catalog.layout import read
from control_plane.catalog.samples import feed, fit
from control_plane.catalog.tables import Rows
from edge_agent.runner.bundle import read_bundle, read_golden
from edge_agent.runner.probe import difference
from edge_agent.watch.columns import Columns
from edge_agent.watch.fold import FeatureFold
from protocol.errors import InvalidRequest, PeerError
from tests.control_plane.catalog.onnx_files import model, save, value

CITIES = ("leeds", "york", "hüll")
LARGEST = 60

NODES = [
    helper.make_node(
        "OneHotEncoder", ["city"], ["coded"], domain="ai.onnx.ml", cats_strings=CITIES, zeros=1
    ),
    helper.make_node("MatMul", ["coded", "w"], ["from_city"]),
    helper.make_node("Add", ["from_city", "x"], ["score"]),
]
SCORER = model(
    NODES,
    inputs=[
        value("city", TensorProto.STRING, ["n"]),
        value("x", TensorProto.FLOAT, ["n", 1]),
    ],
    outputs=[value("score", TensorProto.FLOAT, ["n", 1])],
    constants={"w": np.array([[1], [2], [3]], np.float32)},
    domains=("ai.onnx.ml",),
)


def table():
    rng = np.random.default_rng(4)
    cities = rng.choice(np.array([*CITIES, "", "Ada Lovelace"], object), LARGEST * 5)
    cities[cities == "Ada Lovelace"] = ""
    cities[7] = "Ada Lovelace"
    return Rows({"city": cities, "x": rng.normal(size=len(cities))}, ("city", "x"))


def on_a_device(bundle, folder: Path) -> Path:
    layout = read(bundle.directory)
    folder.mkdir()
    shutil.copy(bundle.directory / "index.json", folder)
    shutil.copy(layout.path(bundle.manifest), folder / "manifest.json")
    for member in layout.variants[0].members:
        shutil.copy(layout.path(member.digest), folder / member.path)
    return folder


@pytest.fixture
def bundle(tmp_path):
    return build(save(SCORER, tmp_path / "net.onnx"), table(), "net/v1", into=tmp_path)


def test_text_is_an_input_without_a_range_and_is_watched_by_its_words(bundle):
    city = bundle.contract.inputs[0]
    assert (city.datatype, city.shape, city.minimum) == ("BYTES", (-1,), None)
    words = bundle.profile.features[0]
    assert (words.name, words.kind, set(words.words)) == ("city", "words", set(CITIES))
    assert [(each.tensor, each.how) for each in bundle.profile.watched] == [
        ("city", "words"),
        ("x", "columns"),
    ]


def test_a_rare_word_is_in_no_file_that_devices_get(bundle):
    files = [path for path in bundle.directory.rglob("*") if path.is_file()]
    assert any(b"leeds" in path.read_bytes() for path in files)
    assert not any(b"Ada" in path.read_bytes() for path in files)
    assert "golden-words" not in {lint.code for lint in bundle.lints}


def test_where_all_words_are_rare_golden_vectors_have_some_and_a_lint_says_so(tmp_path):
    path = save(SCORER, tmp_path / "net.onnx")
    names = np.array([f"name {number}" for number in range(40)], object)
    made = build(path, {"city": names, "x": np.zeros((40, 1))}, "net/v1", into=tmp_path)
    assert made.golden == 32
    assert "golden-words" in {lint.code for lint in made.lints}


def test_golden_texts_reproduce_on_a_device(bundle, tmp_path):
    import onnxruntime

    found = read_bundle(on_a_device(bundle, tmp_path / "device"))
    golden = read_golden(found)
    assert golden.inputs["city"].shape == (32,)
    assert {*golden.inputs["city"]} <= {*CITIES, ""}
    session = onnxruntime.InferenceSession(str(found.file("model")))
    got = {"score": session.run(["score"], dict(golden.inputs))[0]}
    assert difference(found.contract, golden.outputs, got) is None


def test_a_device_counts_words_as_the_profile_does(bundle):
    rows = table().arrays
    inputs = {"city": rows["city"], "x": rows["x"].astype(np.float32)[:, None]}
    columns, fold = Columns(bundle.contract, bundle.profile), FeatureFold(bundle.profile.features)
    counted = fold.split(fold(columns(inputs, {}, LARGEST * 5)))
    assert counted == tuple(feature.counts for feature in bundle.profile.features)


def test_a_golden_text_that_is_none_is_refused(bundle, tmp_path):
    folder = on_a_device(bundle, tmp_path / "device")
    file = read_bundle(folder).file("golden")
    data = file.read_bytes()
    # The length of the first text.
    at = 8 + int.from_bytes(data[:8], "little")
    file.write_bytes(data[:at] + b"\xff\xff\0\0" + data[at + 4 :])
    with pytest.raises(PeerError, match="B121"):
        read_golden(read_bundle(folder))


def test_an_answer_may_not_be_text(tmp_path):
    proto = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        inputs=[value("x", TensorProto.STRING, ["n"])],
        outputs=[value("y", TensorProto.STRING, ["n"])],
    )
    with pytest.raises(InvalidRequest, match=r"B109.*y is STRING"):
        inspect(save(proto, tmp_path / "net.onnx"))


TEXT = Tensor("t", "BYTES", (-1, 2))


@pytest.mark.parametrize(
    "given",
    [
        np.array([["a", "é"]]),
        np.array([[b"a", "é".encode()]]),
        np.array([["a", "é"]], object),
        np.array([[b"a", "é"]], object),
    ],
    ids=["unicode", "bytes", "objects", "mixed"],
)
def test_text_comes_in_many_forms_and_reaches_the_model_in_one(given):
    fitted = fit({"t": given}, [TEXT])["t"]
    assert (fitted.dtype, fitted.tolist()) == (np.dtype(object), [["a", "é"]])


def test_what_is_missing_is_empty_text_and_numbers_are_none():
    given = np.array([["a", None], [float("nan"), "b"]], object)
    assert fit({"t": given}, [TEXT])["t"].tolist() == [["a", ""], ["", "b"]]
    with pytest.raises(InvalidRequest, match=r"B108.*takes text, not int64"):
        fit({"t": np.array([[1, 2]])}, [TEXT])


def test_a_table_of_words_feeds_one_input_of_text():
    rows = Rows({name: np.array(["x", "y"], object) for name in "ab"}, ("a", "b"))
    arrays, names = feed(rows, [TEXT])
    assert (arrays["t"].tolist(), names) == ([["x", "x"], ["y", "y"]], ("a", "b"))
    with pytest.raises(InvalidRequest, match=r"B108.*numbers, the model takes text"):
        feed(Rows(rows.arrays | {"n": np.zeros(2)}, ("a", "b", "n")), [TEXT])

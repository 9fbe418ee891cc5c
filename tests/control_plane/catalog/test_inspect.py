"""Which ONNX files may become a bundle, and what those that may not are told."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from control_plane.catalog.inspect import inspect
from control_plane.catalog.truncation import find_break
from protocol.errors import InvalidRequest
from tests.control_plane.catalog.onnx_files import (
    classifier,
    model,
    point_to,
    save,
    save_external,
    unary,
    value,
)


def refusal(path: Path, **options: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        inspect(path, **options)  # type: ignore[arg-type]  # a table of keyword arguments
    return caught.value


def test_a_good_model_tells_its_inputs_outputs_opset_and_runtime(tmp_path):
    found = inspect(save(classifier(), tmp_path / "net.onnx"))
    assert [(t.name, t.datatype, t.shape) for t in found.inputs] == [("pixels", "FP32", (-1, 4))]
    assert [(t.name, t.datatype, t.shape) for t in found.outputs] == [
        ("label", "INT64", (-1,)),
        ("probabilities", "FP32", (-1, 3)),
    ]
    assert (found.opset, found.onnxruntime, found.weights) == (17, "1.12", ())


def test_a_model_cut_anywhere_is_refused_with_the_byte_where_it_ends(tmp_path):
    whole = classifier().SerializeToString(deterministic=True)
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        size = int(len(whole) * share)
        (tmp_path / "net.onnx").write_bytes(whole[:size])
        error = refusal(tmp_path / "net.onnx")
        assert error.code == "OUT-B101"
        assert f"net.onnx ends at byte {size:,}" in error.why


def test_a_model_cut_inside_an_initializer_names_it(tmp_path):
    whole = classifier(hidden=512).SerializeToString(deterministic=True)
    inside = whole.index(b"conv1.weight", whole.index(b"conv1.bias") + 10) + 100
    (tmp_path / "net.onnx").write_bytes(whole[:inside])
    assert refusal(tmp_path / "net.onnx").why.endswith("inside initializer conv1.weight")


@given(st.integers(0, len(classifier().SerializeToString()) - 1))
@settings(deadline=None)
def test_every_prefix_of_a_model_is_found_to_be_cut(size):
    found = find_break(classifier().SerializeToString()[:size])
    assert found is not None
    assert found.cut
    assert found.at == size


def test_a_whole_model_has_no_break():
    assert find_break(classifier().SerializeToString()) is None


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_can_be_looked_at(data):
    find_break(data)


def test_random_bytes_are_not_a_model(tmp_path):
    for seed in range(40):
        (tmp_path / "net.onnx").write_bytes(random.Random(seed).randbytes(seed * 50))
        assert refusal(tmp_path / "net.onnx").code in ("OUT-B101", "OUT-B102")


CUSTOM = model([helper.make_node("Foo", ["x"], ["y"], domain="my.ops")], domains=("my.ops",))
NESTED = model(
    [
        helper.make_node("Constant", [], ["c"], value_int=1),
        helper.make_node("Cast", ["c"], ["yes"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["yes"],
            ["y"],
            **{
                f"{side}_branch": helper.make_graph(
                    [helper.make_node("Foo", ["x"], [side], domain="my.ops")],
                    side,
                    [],
                    [value(side, TensorProto.FLOAT, None)],  # type: ignore[arg-type]  # any shape
                )
                for side in ("then", "else")
            },
        ),
    ],
    domains=("my.ops",),
)
TEXT = model(
    [helper.make_node("Identity", ["x"], ["y"])],
    inputs=[value("x", TensorProto.STRING, ["n", 2])],
    outputs=[value("y", TensorProto.STRING, ["n", 2])],
)
DISCONNECTED = model([helper.make_node("Add", ["x", "nowhere"], ["y"])])
WRONG_SHAPE = model(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], constants={"w": np.zeros((5, 4), np.float32)}
)


@pytest.mark.parametrize(
    "proto,code,why",
    [
        pytest.param(unary("Relu"), None, "", id="good"),
        pytest.param(
            model([helper.make_node("Relu", ["x"], ["y"])], opset=99),
            "OUT-B104",
            "the model has opset 99",
            id="opset of the far future",
        ),
        pytest.param(
            model([helper.make_node("Relu", ["x"], ["y"])], opset=28),
            "OUT-B104",
            "ends at opset",
            id="opset newer than onnxruntime",
        ),
        pytest.param(
            model([helper.make_node("Relu", ["x"], ["y"])], opset=3),
            "OUT-B102",
            "opset 3",
            id="opset of the far past",
        ),
        pytest.param(CUSTOM, "OUT-B105", "my.ops.Foo", id="custom operator"),
        pytest.param(NESTED, "OUT-B105", "my.ops.Foo", id="custom operator in a branch"),
        pytest.param(TEXT, "OUT-B109", "y is STRING", id="text as an answer"),
        pytest.param(DISCONNECTED, "OUT-B102", "nowhere", id="an input that nothing gives"),
        pytest.param(WRONG_SHAPE, "OUT-B102", "MatMul", id="shapes that do not fit"),
        pytest.param(unary("NoSuchOperator"), "OUT-B102", "NoSuchOperator", id="no such operator"),
    ],
)
def test_models_are_refused_for_what_is_wrong_with_them(tmp_path, proto, code, why):
    path = save(proto, tmp_path / "net.onnx")
    if code is None:
        inspect(path)
        return
    error = refusal(path)
    assert error.code == code
    assert why in error.why


def test_a_model_local_function_of_standard_operators_is_no_custom_operator(tmp_path):
    function = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    proto = model(
        [helper.make_node("Twice", ["x"], ["y"], domain="local")],
        domains=("local",),
        functions=[function],
    )
    inspect(save(proto, tmp_path / "net.onnx"))


def test_an_opset_newer_than_the_target_says_which_to_export_with(tmp_path):
    path = save(model([helper.make_node("Relu", ["x"], ["y"])], opset=20), tmp_path / "net.onnx")
    assert inspect(path, target="1.17").onnxruntime == "1.17"
    error = refusal(path, target="1.16")
    assert (error.code, error.do) == ("OUT-B104", "export with opset 19")


@pytest.mark.parametrize(
    "location",
    ["../../x", "/etc/hostname", "a/../../x", "..", "", ".", "\\\\host\\x", "missing.bin", "link"],
)
def test_external_data_outside_the_folder_is_never_opened(tmp_path, location):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "x").write_bytes(b"\0" * 4096)
    (folder / "link").symlink_to(tmp_path / "x")
    error = refusal(save(point_to(classifier(), location), folder / "net.onnx"))
    assert error.code == "OUT-B106"
    assert "conv1.weight" in error.why


def test_external_data_hidden_in_an_attribute_is_found_too(tmp_path):
    tensor = onnx.TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../x")
    proto = model(
        [
            helper.make_node("Constant", [], ["c"], value=tensor),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ]
    )
    assert refusal(save(proto, tmp_path / "net.onnx")).code == "OUT-B106"


@pytest.mark.parametrize(
    "location,name",
    [("w.bin", "w.bin"), ("data/w.bin", "weights-0.bin"), ("card.json", "weights-0.bin")],
)
def test_external_data_inside_becomes_a_member_with_a_flat_name(tmp_path, location, name):
    path = save_external(classifier(), tmp_path / "net.onnx", location)
    found = inspect(path)
    assert [member for member, _ in found.weights] == [name]
    assert (found.data == path.read_bytes()) == (name == location)
    shipped = onnx.ModelProto.FromString(found.data)
    assert {e.value for t in shipped.graph.initializer for e in t.external_data[:1]} == {name}


def test_external_data_that_is_too_short_is_refused(tmp_path):
    path = save_external(classifier(), tmp_path / "net.onnx", "w.bin")
    (tmp_path / "w.bin").write_bytes(b"\0" * 10)
    assert refusal(path).code == "OUT-B106"


def test_size_limits_count_external_data(tmp_path):
    path = save_external(classifier(hidden=512), tmp_path / "net.onnx", "w.bin")
    assert refusal(path, limit=path.stat().st_size + 100).code == "OUT-B107"
    assert refusal(path, limit=100).code == "OUT-B107"


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    assert refusal(tmp_path / "net.onnx").code == "OUT-S110"

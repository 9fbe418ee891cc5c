"""Small ONNX models, good and bad, for the tests of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 4
CLASSES = 3
RNG_SEED = 5


def rows(count: int = 200, width: int = WIDTH) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(RNG_SEED).normal(size=(count, width)).astype(np.float32)


def value(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    *,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    constants: dict[str, Any] | None = None,
    opset: int = 17,
    domains: tuple[str, ...] = (),
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        inputs or [value("x", TensorProto.FLOAT, ["n", WIDTH])],
        outputs or [value("y", TensorProto.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions or [])


def classifier(seed: int = 0, *, batch: Any = "n", hidden: int = 16) -> onnx.ModelProto:
    """pixels [batch, 4] -> label, probabilities [batch, 3]."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["pixels", "conv1.weight", "conv1.bias"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "fc.weight", "fc.bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    return model(
        nodes,
        inputs=[value("pixels", TensorProto.FLOAT, [batch, WIDTH])],
        outputs=[
            value("label", TensorProto.INT64, [batch]),
            value("probabilities", TensorProto.FLOAT, [batch, CLASSES]),
        ],
        constants={
            "conv1.weight": rng.normal(size=(WIDTH, hidden)).astype(np.float32),
            "conv1.bias": rng.normal(size=hidden).astype(np.float32),
            "fc.weight": rng.normal(size=(hidden, CLASSES)).astype(np.float32),
            "fc.bias": rng.normal(size=CLASSES).astype(np.float32),
        },
    )


def unary(operator: str, **attributes: Any) -> onnx.ModelProto:
    return model([helper.make_node(operator, ["x"], ["y"], **attributes)])


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def save_external(proto: onnx.ModelProto, path: Path, location: str) -> Path:
    """With its tensors in `location` below the folder of `path`."""
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        proto,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=location,
        size_threshold=0,
    )
    return path


def point_to(proto: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """The same model, its first tensor said to lie at `location`."""
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=location)
    return proto

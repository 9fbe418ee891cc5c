"""What happens to a model between training and release: part of `make bench NAME=payload`.

Names, graph, element type and exporter change; none of these functions trains anything.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
State = Mapping[str, Array]
"""Parameters of a network by name, as `torch_models` and `numpy_models` keep them."""

EPSILON: Final = 1e-5
"""Of PyTorch's batch normalisation."""
CALIBRATED_ON: Final = 256
CONVOLUTIONS: Final = ((0, 1, False), (3, 4, True), (7, 8, False))
"""Of the CNN: place of each convolution, of its normalisation, and whether it is pooled."""


def renamed(model: bytes) -> bytes:
    """All tensors have other names."""
    read = onnx.load_from_string(model)
    new = {
        each.name: f"network/{place}/weight" for place, each in enumerate(read.graph.initializer)
    }
    for place, node in enumerate(read.graph.node):
        new |= {
            name: f"network/{place}/value{number or ''}" for number, name in enumerate(node.output)
        }
    for kept in (*read.graph.input, *read.graph.output):
        new.pop(kept.name, None)
    for tensor in read.graph.initializer:
        tensor.name = new[tensor.name]
    for node in read.graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    return bytes(read.SerializeToString())


def with_softmax(model: bytes) -> bytes:
    """The same weights; the graph ends in one operator more."""
    read = onnx.load_from_string(model)
    scores = read.graph.output[0].name
    read.graph.node.append(helper.make_node("Softmax", [scores], ["shares"], "softmax", axis=1))
    read.graph.output[0].name = "shares"
    return bytes(read.SerializeToString())


def half(model: bytes) -> bytes:
    """In float16, inputs and outputs too."""
    read = onnx.load_from_string(model)
    for tensor in read.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*read.graph.input, *read.graph.output, *read.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return bytes(read.SerializeToString())


def int8_static(model: Path, rows: Array) -> bytes:
    """By ONNX Runtime, weights per channel, ranges from `rows`, which the model's input takes."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = onnx.load(model).graph.input[0].name

    class Rows(CalibrationDataReader):  # type: ignore[misc]  # has no types
        def __init__(self) -> None:
            self._rows: Iterator[dict[str, Array]] = (
                {name: rows[place : place + 1]} for place in range(CALIBRATED_ON)
            )

        def get_next(self) -> dict[str, Array] | None:
            return next(self._rows, None)

    with tempfile.TemporaryDirectory(prefix="payload-") as folder, _silence():
        made = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            made,
            Rows(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return made.read_bytes()


def int8_dynamic(model: Path) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="payload-") as folder, _silence():
        made = Path(folder) / "int8.onnx"
        quantize_dynamic(model, made, weight_type=QuantType.QInt8)
        return made.read_bytes()


@contextmanager
def _silence() -> Iterator[None]:
    """Without the advice that the quantizer gives to people."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def exported(
    state: State,
    precision: Any = np.float64,
    name_of: Callable[[str], str] = str,
    *,
    typed: bool = False,
) -> bytes:
    """The CNN as an exporter of another make than PyTorch's writes it: parameters under the names
    that they have in training, in that order, and batch normalisation folded in double precision,
    which moves convolutions by a few units in the last place. `typed`: numbers as `float_data`."""
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def given(name: str, values: Array) -> str:
        made = numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name_of(name))
        if typed:
            flat = numpy_helper.to_array(made).ravel().tolist()
            made = helper.make_tensor(made.name, TensorProto.FLOAT, values.shape, flat)
        tensors.append(made)
        return str(made.name)

    def node(kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"node_{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    at = "image"
    for place, after, pooled in CONVOLUTIONS:
        weight, bias = _folded(state, f"f.{place}", f"f.{after}", precision)
        names = [given(f"f.{place}.weight", weight), given(f"f.{place}.bias", bias)]
        at = node("Conv", [at, *names], kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1], group=1)
        at = node("Relu", [at])
        if pooled:
            at = node("MaxPool", [at], kernel_shape=[2, 2], strides=[2, 2])
    at = node("Flatten", [at], axis=1)
    for layer in ("hidden", "head"):
        names = [given(f"{layer}.{part}", state[f"{layer}.{part}"]) for part in ("weight", "bias")]
        at = node("Gemm", [at, *names], alpha=1.0, beta=1.0, transB=1)
        if layer == "hidden":
            at = node("Relu", [at])
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 1, 8, 8])],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, ["rows", 10])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _folded(state: State, layer: str, norm: str, precision: Any) -> tuple[Array, Array]:
    weight, bias, gamma, beta, mean, variance = (
        np.asarray(state[name], precision)
        for name in (
            f"{layer}.weight",
            f"{layer}.bias",
            f"{norm}.weight",
            f"{norm}.bias",
            f"{norm}.running_mean",
            f"{norm}.running_var",
        )
    )
    scale = gamma / np.sqrt(variance + precision(EPSILON))
    return weight * scale[:, None, None, None], (bias - mean) * scale + beta

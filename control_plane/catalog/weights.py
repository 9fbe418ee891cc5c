"""Large weights move out of a model's file into one beside it, so that a device can map them.

What onnxruntime reads out of `model.onnx` it copies: a model of 50 MB costs 50 MB of memory that
nothing can take back. From a file of their own the same weights stay in the page cache.
"""

from __future__ import annotations

from typing import Final

import onnx

FROM_BYTES: Final = 10 * 1024 * 1024
"""Weights inside a model, in sum: below that a device copies them anyway, for speed."""
LEAST_BYTES: Final = 4096
"""Of one tensor: shapes and scales stay, since onnxruntime reads them while it builds the graph."""
ALIGNMENT: Final = 4096


def move_out(data: bytes, name: str) -> tuple[bytes, bytes] | None:
    """`(model, weights)` with the large initializers of a serialised model in a file `name`.

    None where there are too few of them to matter. Only initializers of the main graph that hold
    raw bytes are moved: exporters write large ones so. The same input gives the same bytes.
    """
    model = onnx.ModelProto()
    model.ParseFromString(data)
    large = [each for each in model.graph.initializer if len(each.raw_data) >= LEAST_BYTES]
    if sum(len(each.raw_data) for each in large) < FROM_BYTES:
        return None
    weights = bytearray()
    for tensor in large:
        weights += bytes(-len(weights) % ALIGNMENT)
        said = {"location": name, "offset": len(weights), "length": len(tensor.raw_data)}
        weights += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in said.items():
            tensor.external_data.add(key=key, value=str(value))
    return model.SerializeToString(deterministic=True), bytes(weights)

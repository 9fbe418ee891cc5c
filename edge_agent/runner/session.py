"""One model in onnxruntime, held to its contract."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

# Its wheels send its makers what is run with it, by a thread of their own and a database in the
# home folder, unless this is said before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from edge_agent.room import packs
from edge_agent.runner.bundle import Bundle
from edge_agent.runner.oip import Array
from protocol.members import TensorSpec

_LEVELS: Final = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_ONNX_TYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_NO_MEMORY: Final = ("bad_alloc", "bad allocation", "Failed to allocate memory")
_SILENT: Final = 4
_TENSORS: Final = {np.ndarray}
"""The types of what a run gives: sequences and maps come as lists and dictionaries."""
_NOISE: Final = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from \S+ failed: ?"),
    # Source file, line and C++ signature of whoever threw it.
    re.compile(r"/\S+\.(?:cc|h):\d+ [^)]*\)(?: const)? "),
)


class ModelFailed(Exception):
    """onnxruntime could not load or run the model. The message is its own, shortened."""


class TooLarge(ModelFailed):
    """There was not enough memory for it here and now, which says nothing about the model."""


class Session:
    """Options come from the closed list in the bundle's signed policy and from nowhere else: no
    caller and no file of onnxruntime's own can set one (some crash)."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises `ModelFailed` if onnxruntime refuses it or it is not what its contract says."""
        options = onnxruntime.SessionOptions()
        chosen = bundle.policy.session
        options.intra_op_num_threads = chosen.intra_op_threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = chosen.memory_arena
        options.graph_optimization_level = _LEVELS[chosen.graph_optimization]
        # Failures come back as exceptions; onnxruntime need not write them to stderr as well.
        options.log_severity_level = _SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not packs(bundle.weights_bytes, chosen):
            # Weights stay in evictable page cache, at the price of slower single rows.
            options.add_session_config_entry("session.disable_prepacking", "1")
        # Blind excepts here and below: its exceptions have no base class of their own.
        try:
            # By path: from bytes, a copy of the whole file stays in memory.
            self._session = onnxruntime.InferenceSession(
                str(bundle.file("model")), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise _failure(error) from error
        self._bare = self.bare
        self._outputs = [spec.name for spec in bundle.contract.outputs]
        _compare("input", bundle.contract.inputs, self._session.get_inputs(), all_of_them=True)
        _compare("output", bundle.contract.outputs, self._session.get_outputs(), all_of_them=False)

    @property
    def bare(self) -> Callable[[list[str], Mapping[str, Array], None], list[Array]]:
        """onnxruntime's own `run(outputs, inputs, None)`, for who counts tenths of microseconds and
        has checked that the inputs are the contract's, as arrays in a dictionary. Raises whatever
        it raises."""
        # Its Python `run` checks for every call what a contract has settled at load, for a fifth
        # of a small model's time. Should a later version have no such inner object, that is used.
        run: Callable[[list[str], Mapping[str, Array], None], list[Array]]
        run = getattr(self._session, "_sess", self._session).run
        return run

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """All outputs of the contract by name, for inputs that fit it. Raises `ModelFailed`."""
        try:
            results = self._bare(self._outputs, inputs, None)
        except Exception as error:
            raise _failure(error) from error
        outputs = dict(zip(self._outputs, results, strict=True))
        if set(map(type, results)) != _TENSORS:
            raise ModelFailed(_not_a_tensor(outputs))
        return outputs


def _compare(
    side: str, specs: Sequence[TensorSpec], nodes: Sequence[Any], *, all_of_them: bool
) -> None:
    real = {node.name: _ONNX_TYPES.get(node.type, node.type) for node in nodes}
    for spec in specs:
        if real.get(spec.name) != spec.datatype:
            raise ModelFailed(
                f"{side} {spec.name} is {real.get(spec.name, 'missing')}, "
                f"its contract says {spec.datatype}"
            )
    if all_of_them and len(real) != len(specs):
        missing = sorted(real.keys() - {spec.name for spec in specs})
        raise ModelFailed(f"its contract does not name {side} {', '.join(missing[:4])}")


def _not_a_tensor(outputs: Mapping[str, object]) -> str:
    found = ((name, type(each)) for name, each in outputs.items())
    name, kind = next(pair for pair in found if {pair[1]} != _TENSORS)
    return f"{name} is a {kind.__name__}, not a tensor"


def _failure(error: Exception) -> ModelFailed:
    reason = _reason(error)
    short = isinstance(error, MemoryError) or any(word in reason for word in _NO_MEMORY)
    return TooLarge(reason) if short else ModelFailed(reason)


def _reason(error: Exception) -> str:
    """onnxruntime's message without what helps only its developers, on one line."""
    text = " ".join(str(error).split())
    for noise in _NOISE:
        text = noise.sub("", text)
    return text[:300].strip() or type(error).__name__

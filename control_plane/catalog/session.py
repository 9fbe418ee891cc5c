"""One onnxruntime session, as the builder uses it: quiet, one thread, the CPU provider."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Its makers hear nothing of what is built here; see `edge_agent.runner.session`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from protocol.errors import InvalidRequest

Array = NDArray[Any]

_FATAL = 4
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_FILE = re.compile(r"^Load model from .*? failed:")
_PLACE = re.compile(r"\S*onnxruntime_src\S+ .*?\) (?=[A-Z])")


class Session:
    """Loads on construction. Raises `InvalidRequest` OUT-B102 with onnxruntime's own words."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime's exceptions share no base class of their own.
            raise InvalidRequest("OUT-B102", _short(error)) from error
        self._outputs = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """`{output: array}` for one batch. Raises `InvalidRequest` OUT-B108."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            # The same: no base class, and any operator may object in its own way.
            raise InvalidRequest("OUT-B108", _short(error)) from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}


def _short(error: Exception) -> str:
    """Without status, path and C++ signatures, which say nothing to people."""
    text = " ".join(str(error).split())
    for noise in (_STATUS, _FILE, _PLACE):
        text = noise.sub("", text)
    return text[:300].strip()

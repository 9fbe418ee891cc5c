"""Which onnxruntime a model needs, and what the one installed here can run.

The table is that of onnxruntime's "compatibility" page, read conservatively: where a release
accepted something earlier than documented, the documented one counts, because a bound that is too
high leaves a device on its old model, and one that is too low fails on the device.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

# Its makers hear nothing of what is built here; see `edge_agent.runner.session`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from protocol.bundle import release

OLDEST_OPSET: Final = 7

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})

# {onnxruntime release: newest it understands}
_OPSETS: Final = {
    "1.0": 11,
    "1.3": 12,
    "1.6": 13,
    "1.8": 14,
    "1.9": 15,
    "1.11": 16,
    "1.12": 17,
    "1.14": 18,
    "1.15": 19,
    "1.17": 20,
    "1.18": 21,
    "1.21": 22,
    "1.23": 23,
}
_ML_OPSETS: Final = {"1.0": 2, "1.13": 3, "1.15": 4, "1.18": 5}
_IR_VERSIONS: Final = {"1.0": 6, "1.3": 7, "1.10": 8, "1.16": 9, "1.18": 10, "1.23": 11}


def installed() -> str:
    """Version of the onnxruntime in this process."""
    return str(onnxruntime.__version__)


def smallest(opset: int, ml_opset: int, ir_version: int) -> str:
    """The oldest onnxruntime for a model, "1.17".

    What is newer than the table needs the release that is installed here, the only one of which
    it is known that it runs the model.
    """
    needed = [
        _first(_OPSETS, opset),
        _first(_ML_OPSETS, ml_opset),
        _first(_IR_VERSIONS, ir_version),
    ]
    return max(needed, key=release)


def newest_opset(runtime: str) -> int | None:
    """The newest standard opset of a release; None for releases after the end of the table."""
    if release(runtime) >= release(installed()) or release(runtime)[:2] > release(_last())[:2]:
        return None
    known = [opset for version, opset in _OPSETS.items() if release(version) <= release(runtime)]
    return max(known, default=OLDEST_OPSET)


def opset_limit(message: str) -> int | None:
    """The limit that onnxruntime names when it refuses a model for its opset; None otherwise."""
    found = re.search(r"[Cc]urrent official support for domain \S+ is till opset (\d+)", message)
    return int(found[1]) if found else None


def _first(table: Mapping[str, int], wanted: int) -> str:
    for version, newest in table.items():
        if wanted <= newest:
            return version
    return ".".join(str(part) for part in release(installed())[:2])


def _last() -> str:
    return max(_OPSETS, key=release)

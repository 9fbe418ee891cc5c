"""What it costs an application to be counted and checked, over running the model by itself.

`python tests/bench/serving_sdk.py`, or as rows of `make bench NAME=serving`. Calls of one row,
in blocks that take turns with onnxruntime's own `run`, so that both see the same machine; a figure
is the difference of the lowest tenths of both, in processor time of the whole process. Every block
has its folds in it, and what other processes do to the clock and to shared caches is mostly not.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).parents[2]))

from edge_agent.sdk import Local
from tests.bench.report import Row, publish
from tests.fakes.proven import install, prove

FEATURES: Final = 12
CALLS: Final = 2048
"""In one block: several folds."""
BLOCKS: Final = 100
GOAL_US: Final = 1.5
GOAL_VALUES_US: Final = 6.0

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Added:
    """Microseconds of processor time per call."""

    bare: float
    added: float


def measure(bare: Call, ours: Call, blocks: int = BLOCKS, calls: int = CALLS) -> Added:
    """Blocks take turns; the lowest tenth of each side."""
    _block(bare, calls), _block(ours, calls)
    pairs = [(_block(bare, calls), _block(ours, calls)) for _ in range(blocks)]
    alone, with_us = (statistics.quantiles(side, n=10)[0] for side in zip(*pairs, strict=True))
    return Added(alone, with_us - alone)


def _block(call: Call, calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / calls * 1e6


@contextmanager
def home() -> Iterator[Path]:
    """Of an agent that has proven a model of `FEATURES` columns and two classes."""
    with tempfile.TemporaryDirectory(prefix="or") as folder:
        load = install(Path(folder), features=FEATURES, classes=("no", "yes"))
        prove(Path(folder), load)
        yield Path(folder)


def session(model: Path) -> onnxruntime.InferenceSession:
    """With the options of a runner."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def in_process(blocks: int = BLOCKS) -> list[Row]:
    """Rows of the in-process mode."""
    row = np.random.default_rng(1).random((1, FEATURES), np.float32)
    rows = []
    with home() as folder:
        bundle = next((folder / "bundles").iterdir())
        run = session(bundle / "model.onnx").run
        names = ["label", "probabilities"]
        for check, goal in (("shape", GOAL_US), ("values", GOAL_VALUES_US)):
            with Local("toy", home=folder, check=check) as local:  # type: ignore[arg-type]  # both
                infer = local.infer
                found = measure(
                    lambda: run(names, {"pixels": row}),
                    lambda infer=infer: infer({"pixels": row}),  # type: ignore[misc]  # bound early
                    blocks,
                )
            rows.append(
                Row(
                    f"in-process SDK adds, check={check}",
                    found.added,
                    "µs CPU per call",
                    found.bare,
                    f"onnxruntime {onnxruntime.__version__} run alone",
                    f"<= {goal:g} µs",
                    found.added <= goal,
                )
            )
    return rows


if __name__ == "__main__":
    raise SystemExit(publish("serving-sdk", in_process()))

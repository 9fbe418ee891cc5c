"""What it costs a device to make the file: part of `make bench NAME=payload`.

The devices' own process decodes, and the kernel says what it used.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from control_plane.encode.encoded import Encoded
from control_plane.encode.making import Ability, File, make
from control_plane.encode.search import Effort
from edge_agent.decoding import ENVIRONMENT
from protocol.identifiers import digest_from_hex
from protocol.payload import KNOWN_FEATURES
from tests.fakes import onnx_files

ROOT: Final = Path(__file__).parents[3]
CHILD: Final = Path(__file__).with_name("child.py")
PYTHON: Final = (sys.executable, "-P")
ALL: Final = frozenset({Ability(KNOWN_FEATURES)})
REPEATS: Final = 5

HUGE_TENSORS: Final = 125
HUGE_TENSOR: Final = 1_000_000
HUGE_CHANGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Cost:
    cpu: float
    """Seconds."""
    seconds: float
    peak: int
    """Bytes, at most at once."""


def decode(made: Encoded, target: File, base: File | None, out: Path) -> Cost:
    """Let the devices' process make the file again. Raises `ValueError` if it does not."""
    out.unlink(missing_ok=True)
    size = target.path.stat().st_size
    words = [
        str(made.path),
        str(out),
        target.digest,
        str(size),
        *([str(base.path)] if base else []),
    ]
    cost = run("-m", "edge_agent.decoder", "{parent}", *words)
    if file_of(out).digest != target.digest:
        raise ValueError(f"{target.path.name} did not become the same again")
    return cost


def run(*arguments: str) -> Cost:
    """Of Python with these arguments, started as agents start a decoder."""
    command = [sys.executable, "-I", str(CHILD), *PYTHON, *arguments]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    said = json.loads(done.stdout.splitlines()[-1])
    if said["status"]:
        raise ValueError(f"{' '.join(arguments[:2])} ended with {said['status']}: {done.stdout}")
    return Cost(said["cpu"], said["seconds"], said["peak"])


def numpy_alone() -> Cost:
    return run("-c", "import numpy")


class Nothing:
    """A decoder that has next to nothing to do but all to load."""

    def __init__(self, work: Path) -> None:
        path = work / "nothing.onnx"
        path.write_bytes(onnx_files.weights(np.zeros(64, np.float32)))
        self._file = file_of(path)
        self._made = make(self._file, None, ALL, work / "nothing")[0]
        self._out = work / "nothing.out"

    def decode(self) -> Cost:
        return decode(self._made, self._file, None, self._out)

    def beside(
        self, made: Encoded, target: File, base: File | None, out: Path, repeats: int = REPEATS
    ) -> tuple[Cost, Cost]:
        """Costs of a payload and of nothing, taken in turns: a machine that is shared is not as
        fast a minute later."""
        runs = [(decode(made, target, base, out), self.decode()) for _ in range(repeats)]
        return least([one for one, _ in runs]), least([other for _, other in runs])


def least(costs: list[Cost]) -> Cost:
    """What the others had besides came from elsewhere; of memory the most."""
    return Cost(
        min(each.cpu for each in costs),
        min(each.seconds for each in costs),
        max(each.peak for each in costs),
    )


def file_of(path: Path, role: str = "model", model: Path | None = None) -> File:
    with path.open("rb") as file:
        digest = digest_from_hex(hashlib.file_digest(file, "sha256").hexdigest())
    return File(path, digest, role, model)


def huge(work: Path, nothing: Nothing, tensors: int = HUGE_TENSORS) -> tuple[int, Cost, Cost]:
    """Size of a synthetic model of many tensors in a file of weights, every number of which
    changes a little, and what it costs to decode that change, and nothing."""
    model = work / "huge.onnx"
    model.write_bytes(_listed(tensors))
    files = []
    for name in ("base", "target"):
        with (work / f"{name}.bin").open("wb") as sink:
            for tensor in range(tensors):
                rng = np.random.default_rng(tensor)
                values = rng.standard_normal(HUGE_TENSOR, np.float32) / 64
                if name == "target":
                    values *= 1 + HUGE_CHANGE * rng.standard_normal(HUGE_TENSOR, np.float32)
                sink.write(values.astype("<f4").tobytes())
        files.append(file_of(work / f"{name}.bin", "weights", model))
    base, target = files
    quick = Effort(level=1, lzma=False, refine=1)
    made = make(target, base, ALL, work / "payloads", effort=quick)
    cost, start = nothing.beside(made[0], target, base, work / "out", repeats=1)
    size = target.path.stat().st_size
    for path in (base.path, target.path, work / "out", made[0].path):
        path.unlink()
    return size, cost, start


def _listed(tensors: int) -> bytes:
    """A model whose tensors are in a file beside it."""
    whole, inside = onnx_files.whole, onnx_files.inside

    def entry(key: str, value: object) -> bytes:
        return inside(13, inside(1, key.encode()) + inside(2, str(value).encode()))

    size = 4 * HUGE_TENSOR
    return onnx_files.model(
        tensors=[
            onnx_files.tensor(
                f"w{place}",
                1,
                (HUGE_TENSOR,),
                entry("location", "weights.bin")
                + entry("offset", place * size)
                + entry("length", size)
                + whole(14, 1),
            )
            for place in range(tensors)
        ]
    )

"""What the golden payloads were made from, by the encoder of their time.

`python -m tests.golden.payloads` writes those that are not there yet, and never changes one that
is: an encoder that makes other bytes today is no reason to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from control_plane.encode.making import Ability, File, make
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_RAW,
    FEATURE_SEGMENTS,
    FEATURE_ZSTD,
)
from tests.fakes import onnx_files as onnx

FOLDER: Final = Path(__file__).parent / "payload_v1"

OLD: Final = onnx.some_floats(3_000, 1)
FLOATS: Final = onnx.weights(OLD[:2_000].reshape(40, 50), OLD[2_000:])
UPDATED: Final = onnx.weights(
    onnx.trained_on(OLD[:2_000], 2, 1e-5).reshape(40, 50), onnx.trained_on(OLD[2_000:], 3, 1e-5)
)
TREES: Final = onnx.some_trees(14, 1, depth=5)
FOREST: Final = onnx.forest(TREES[:10], 1, features=4)
GROWN: Final = onnx.forest(TREES, 1, features=4)
SMALL_FOREST: Final = onnx.forest(onnx.some_trees(8, 1))
TEXT: Final = b"".join(b"line %d of many lines\n" % (line * line) for line in range(400))
CHANGED: Final = TEXT.replace(b"line 1", b"LINE 1")


def skewed(seed: int) -> bytes:
    """Bytes that lzma packs better than zstd."""
    return np.random.default_rng(seed).choice(2, 9_000, p=(0.98, 0.02)).astype("<u1").tobytes()


@dataclass(frozen=True)
class Golden:
    features: int
    target: bytes
    base: bytes | None = None


GOLDEN: Final[Mapping[str, Golden]] = {
    "raw": Golden(FEATURE_RAW, np.random.default_rng(1).bytes(3_000)),
    "zstd": Golden(FEATURE_ZSTD, TEXT),
    "brotli": Golden(FEATURE_BROTLI, TEXT),
    "first-floats": Golden(FEATURE_SEGMENTS, FLOATS),
    "first-forest": Golden(FEATURE_SEGMENTS, FOREST),
    "first-lzma": Golden(FEATURE_SEGMENTS | FEATURE_LZMA, SMALL_FOREST),
    "update-floats": Golden(FEATURE_SEGMENTS, UPDATED, FLOATS),
    "update-forest": Golden(FEATURE_SEGMENTS, GROWN, FOREST),
    "update-lzma": Golden(FEATURE_SEGMENTS | FEATURE_LZMA, skewed(2), skewed(1)),
    "patch": Golden(FEATURE_PATCH, CHANGED, TEXT),
    "bsdiff": Golden(FEATURE_BSDIFF, UPDATED, FLOATS),
    "bsdiff-lzma": Golden(FEATURE_BSDIFF | FEATURE_LZMA, skewed(2) + FLOATS, FLOATS),
}


def written(golden: Golden) -> bytes:
    """A payload of exactly those features. Raises `ValueError` if the encoder makes none."""
    with tempfile.TemporaryDirectory() as folder:

        def file(data: bytes) -> File:
            path = Path(folder) / digest_of(data)
            path.write_bytes(data)
            return File(path, digest_of(data), "model")

        base = None if golden.base is None else file(golden.base)
        able = frozenset({Ability(golden.features)})
        for each in make(file(golden.target), base, able, Path(folder) / "payloads"):
            if each.entry.features == golden.features:
                return each.path.read_bytes()
    raise ValueError("the encoder takes other features")


def write_missing() -> None:
    for name, golden in GOLDEN.items():
        if not (FOLDER / f"{name}.payload").exists():
            (FOLDER / f"{name}.payload").write_bytes(written(golden))
            (FOLDER / f"{name}.target").write_bytes(golden.target)
            if golden.base is not None:
                (FOLDER / f"{name}.base").write_bytes(golden.base)


if __name__ == "__main__":
    write_missing()

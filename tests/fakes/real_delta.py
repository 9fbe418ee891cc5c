"""An update of a model as the control plane sends it, made by its encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coding import decoding
from control_plane.encode.making import Ability, File, make
from control_plane.encode.search import Effort
from protocol.identifiers import Digest, digest_of
from protocol.payload import FEATURE_SEGMENTS, HEADER_SIZE, PLAIN_FEATURES, Header
from tests.fakes import onnx_files as onnx

QUICK = Effort(level=3, lzma=False, refine=1)


@dataclass(frozen=True, slots=True)
class RealDelta:
    """Of segments, from the file at `base`; or from nothing."""

    target: bytes
    payload: Path
    base: Path | None
    borders: tuple[int, ...]
    """Bytes of the target at which a block begins, the first being 0."""

    @property
    def digest(self) -> Digest:
        return digest_of(self.target)


@dataclass(frozen=True, slots=True)
class _Held:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def real_delta(folder: Path, target: bytes, base: bytes | None) -> RealDelta:
    held = None if base is None else _file(folder, base)
    able = frozenset({Ability(PLAIN_FEATURES | FEATURE_SEGMENTS)})
    (made,) = make(_file(folder, target), held, able, folder, effort=QUICK, workers=1)
    assert made.entry.features == FEATURE_SEGMENTS
    with made.path.open("rb") as source:
        header, _ = Header.unpack(source.read(HEADER_SIZE))
        old = None if base is None else _Held(base)
        sizes = [len(block) for block in decoding.blocks(source, header, old)]
    borders = tuple(sum(sizes[:place]) for place in range(len(sizes)))
    return RealDelta(target, made.path, held.path if held is not None else None, borders)


def tensors_and_trees(*, trained: bool) -> bytes:
    """A model of a few tensors and a forest, some MB; `trained` on, or as it was before."""
    arrays = [onnx.some_floats(count, seed) for seed, count in enumerate((150_000, 60, 90_000))]
    if trained:
        arrays = [onnx.trained_on(each, 7) for each in arrays]
    # Two models in one file are one model with the fields of both.
    trees = onnx.some_trees(60, seed=3, depth=8)
    head = "trained" if trained else "new"
    return onnx.weights(*arrays, head=head) + onnx.forest(trees, seed=4 + trained)


def _file(folder: Path, data: bytes) -> File:
    path = folder / digest_of(data)
    path.write_bytes(data)
    return File(path, digest_of(data), "model")

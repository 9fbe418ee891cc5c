"""The smallest payloads of a file, for what devices can decode: made, decoded here, then kept.

Nothing is returned that the devices' own decoder did not turn into the file again. Equal inputs
give equal payloads.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from coding import decoding
from coding.limits import KIB
from coding.streams import Packer
from coding.varint import Buffer
from control_plane.encode import container, layout, plain, segments, whole
from control_plane.encode.encoded import Encoded, keep
from control_plane.encode.offering import worth
from control_plane.encode.search import Effort
from control_plane.encode.segments import Segment
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import Digest, digest_from_hex
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_SEGMENTS,
    HEADER_SIZE,
    MAX_BLOCK,
    MAX_DECODE_MEMORY,
    MAX_WINDOW,
    Header,
)

log = logging.getLogger(__name__)

RECIPE: Final = 1
"""Raised whenever the same inputs may give other bytes."""
STUDIED: Final = frozenset({"model", "weights"})
"""Roles of files that hold numbers."""
SEGMENTS_MEMORY: Final = 4_500_000


@dataclass(frozen=True, slots=True)
class File:
    """A file of a bundle. `model`: of a weights file, the ONNX file that says where its tensors
    are, and by which name (`location`) it calls the file; without it, the only one that it has."""

    path: Path
    digest: Digest
    role: str
    model: Path | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Ability:
    """What a device can decode, and in how many bytes of memory."""

    features: int
    memory: int = MAX_DECODE_MEMORY

    def grants(self, features: int, memory: int) -> bool:
        return not features & ~self.features and memory <= min(self.memory, MAX_DECODE_MEMORY)


@dataclass(frozen=True, slots=True)
class _Made:
    path: Path
    features: int
    memory: int
    size: int


def silent(_done: int, _total: int) -> None:
    """Nobody waits."""


def make(
    target: File,
    base: File | None,
    abilities: frozenset[Ability],
    directory: Path,
    tell: Callable[[int, int], None] = silent,
    effort: Effort | None = None,
    below: int | None = None,
    workers: int | None = None,
) -> tuple[Encoded, ...]:
    """Per ability the smallest payload that decodes to `target`, each distinct one once, smallest
    first, kept in `directory`.

    With a `base`: only those that are well below `below`, the bytes of the smallest payload
    without a base (if none is given, of the file). `tell(done, total)` counts bytes of the target
    over all attempts. Raises `InvalidRequest` for a file that is empty, too large or not what its
    digest says; `OSError`.
    """
    plain.size_of(target.path)
    directory.mkdir(parents=True, exist_ok=True)
    job = _Job(target, base, _mapped(target), _mapped(base), directory, effort or Effort(), workers)
    made = job.all(abilities, tell)
    try:
        return _kept(job, made, abilities, below)
    finally:
        for each in made:
            each.path.unlink(missing_ok=True)


def _kept(
    job: _Job, made: list[_Made], abilities: frozenset[Ability], below: int | None
) -> tuple[Encoded, ...]:
    smallest = []
    for ability in abilities:
        able = [each for each in made if ability.grants(each.features, each.memory)]
        if able:
            smallest.append(min(able, key=lambda each: (each.size, made.index(each))))
    if job.base is not None:
        most = len(job.data) if below is None else below
        smallest = [each for each in smallest if worth(each.size, most)]
    chosen = sorted(set(smallest), key=lambda each: (each.size, each.features))
    base = job.base.digest if job.base else None
    return tuple(
        keep(each.path, job.directory, each.features, each.memory, base) for each in chosen
    )


@dataclass(frozen=True, slots=True)
class _Job:
    target: File
    base: File | None
    data: Buffer
    old: Buffer
    directory: Path
    effort: Effort
    workers: int | None

    def all(self, abilities: frozenset[Ability], tell: Callable[[int, int], None]) -> list[_Made]:
        """Every candidate that some ability can use and that decodes to the target."""
        attempts = self._attempts({each.features for each in abilities})
        total = max(1, len(attempts)) * len(self.data)
        made: list[_Made] = []
        tell(0, total)
        for number, attempt in enumerate(attempts):
            before = number * len(self.data)
            found = attempt(made, _part(tell, before, total))
            if found is not None and all(each.features != found.features for each in made):
                made.append(found)
            elif found is not None:
                found.path.unlink(missing_ok=True)
            tell(before + len(self.data), total)
        return made

    def _attempts(self, known: set[int]) -> list[_Attempt]:
        def wanted(features: int) -> bool:
            return any(not features & ~each for each in known)

        def unless(features: int) -> bool:
            return any(features & each == features and not each & FEATURE_LZMA for each in known)

        studied = self.target.role in STUDIED
        attempts: list[_Attempt] = []
        if self.base is None:
            attempts.append(self._plain)
        if studied:
            if wanted(FEATURE_SEGMENTS | FEATURE_LZMA):
                attempts.append(self._segments(lzma=True))
            if unless(FEATURE_SEGMENTS):
                attempts.append(self._segments(lzma=False))
        if self.base is None:
            if studied and wanted(FEATURE_BROTLI):
                attempts.append(self._brotli)
            return attempts
        if wanted(FEATURE_PATCH):
            attempts.append(self._patch)
        if studied:
            if wanted(FEATURE_BSDIFF | FEATURE_LZMA):
                attempts.append(self._bsdiff(lzma=True))
            if unless(FEATURE_BSDIFF):
                attempts.append(self._bsdiff(lzma=False))
        return attempts

    def _plain(self, _made: list[_Made], _tell: Callable[[int], None]) -> _Made | None:
        kept = plain.encode(self.target.path, self.target.digest, self.directory)
        entry = kept.entry
        # It goes on as a candidate like any other.
        path = self._path("plain")
        kept.path.replace(path)
        kept.remove()
        found = _Made(path, entry.features, entry.decode_memory, entry.size)
        return self._checked(found, (entry.features,))

    def _segments(self, *, lzma: bool) -> _Attempt:
        def attempt(made: list[_Made], tell: Callable[[int], None]) -> _Made | None:
            if not lzma and any(each.features == FEATURE_SEGMENTS for each in made):
                # Lzma was tried, and was nowhere smaller.
                return None
            effort = self.effort if lzma else replace(self.effort, lzma=False)
            path = self._path(f"segments{lzma:d}")
            old = self.old if self.base else None
            with path.open("wb") as sink:
                sink.write(self._header(FEATURE_SEGMENTS).pack())
                found = layout.lay_out(
                    self.data, _segments(self.target, self.data), old, self._base_segments()
                )
                try:
                    front = container.write(self.data, old, found, sink, effort, tell, self.workers)
                except ValueError as problem:
                    log.warning("%s: no segments: %s", self.target.digest, problem)
                    front = None
            if front is None:
                path.unlink()
                return None
            return self._checked(
                self._written(path, FEATURE_SEGMENTS, SEGMENTS_MEMORY + front),
                _with_lzma(FEATURE_SEGMENTS, lzma),
            )

        return attempt

    def _brotli(self, made: list[_Made], _tell: Callable[[int], None]) -> _Made | None:
        below = min((each.size for each in made), default=len(self.data))
        body = whole.pressed(self.data, below)
        memory = MAX_WINDOW + 1024 * KIB
        return self._body("brotli", body, FEATURE_BROTLI, memory)

    def _patch(self, _made: list[_Made], _tell: Callable[[int], None]) -> _Made | None:
        body = whole.patch(self.data, self.old)
        # A decoder holds the base twice for a moment, before it has anything else.
        more = max(len(self.old), len(self.data) + len(body or b""))
        memory = len(self.old) + more + 256 * KIB
        return self._body("patch", body, FEATURE_PATCH, memory)

    def _bsdiff(self, *, lzma: bool) -> _Attempt:
        def attempt(made: list[_Made], _tell: Callable[[int], None]) -> _Made | None:
            if not lzma and any(each.features == FEATURE_BSDIFF for each in made):
                return None
            body = whole.bsdiff(self.data, self.old, Packer(self.effort.level, lzma))
            memory = len(self.old) + 2 * len(self.data) + 512 * KIB
            return self._body(f"bsdiff{lzma:d}", body, FEATURE_BSDIFF, memory, lzma=lzma)

        return attempt

    def _body(
        self, name: str, body: bytes | None, features: int, memory: int, *, lzma: bool = False
    ) -> _Made | None:
        if body is None:
            return None
        path = self._path(name)
        path.write_bytes(self._header(features).pack() + body)
        return self._checked(self._written(path, features, memory), _with_lzma(features, lzma))

    def _checked(self, made: _Made, tries: tuple[int, ...]) -> _Made | None:
        """`made` with the fewest features that it decodes with; None if it is not the target."""
        problem = ""
        for features in tries:
            self._name(made.path, features)
            problem = self._problem(made.path)
            if not problem:
                return replace(made, features=features)
        log.error("%s: a payload is not kept: %s", self.target.digest, problem)
        made.path.unlink()
        return None

    def _problem(self, path: Path) -> str:
        """Why the payload does not become the target; empty if it does."""
        seen = hashlib.sha256()
        with path.open("rb") as source:
            try:
                header, _ = Header.unpack(source.read(HEADER_SIZE))
                held = _Held(self.old) if self.base else None
                for block in decoding.blocks(source, header, held):
                    seen.update(block)
            except PeerError as error:
                return str(error)
        found = digest_from_hex(seen.hexdigest())
        return "" if found == self.target.digest else f"it becomes {found}"

    def _name(self, path: Path, features: int) -> None:
        with path.open("r+b") as file:
            file.write(self._header(features).pack())

    def _header(self, features: int) -> Header:
        base = self.base.digest if self.base else None
        return Header(features, base, self.target.digest, len(self.data), MAX_BLOCK)

    def _path(self, name: str) -> Path:
        base = self.base.digest if self.base else ""
        return self.directory / f".{self.target.digest}{base}.{name}"

    def _written(self, path: Path, features: int, memory: int) -> _Made:
        return _Made(path, features, memory, path.stat().st_size)

    def _base_segments(self) -> tuple[Segment, ...]:
        return _segments(self.base, self.old) if self.base else ()


_Attempt = Callable[[list[_Made], Callable[[int], None]], _Made | None]


@dataclass(frozen=True, slots=True)
class _Held:
    """The base, as the decoder asks for it."""

    data: Buffer

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= len(self.data):
            raise ValueError("outside of the base")
        return bytes(self.data[offset : offset + length])


def _part(tell: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    """Progress of one attempt as that of all."""
    return lambda done: tell(before + done, total)


def _with_lzma(features: int, lzma: bool) -> tuple[int, ...]:
    """Without it first: only the decoder knows whether any stream is."""
    return (features, features | FEATURE_LZMA) if lzma else (features,)


def _segments(file: File, data: Buffer) -> tuple[Segment, ...]:
    """The numbers of the file."""
    if file.role not in STUDIED:
        return ()
    if file.model is None:
        return segments.find(data)
    external = segments.find_external(file.model.read_bytes())
    if file.location is not None:
        return external.get(file.location, ())
    return next(iter(external.values())) if len(external) == 1 else ()


def _mapped(file: File | None) -> Buffer:
    """The bytes of a file, checked against its digest."""
    if file is None:
        return b""
    with file.path.open("rb") as opened:
        if not file.path.stat().st_size:
            raise InvalidRequest("OUT-B107", f"{file.path.name} has 0 bytes")
        # Not closed here: arrays over it may live a little longer.
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    seen = hashlib.sha256()
    for start in range(0, len(data), MAX_BLOCK):
        seen.update(data[start : start + MAX_BLOCK])
    if digest_from_hex(seen.hexdigest()) != file.digest:
        raise InvalidRequest("OUT-B120", f"{file.path.name} is not {file.digest}")
    return data

"""A bundle as one stream: an uncompressed tar of exactly the files of an OCI layout.

Our own reader, because a general one follows what is hostile in the format: links, devices, long
names, sparse files, nested headers. This one knows one kind of header and three kinds of names,
is fed as the upload comes, and verifies every blob before it looks at the next.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from control_plane.catalog.layout import BLOBS, INDEX, MARKER, Layout, read
from protocol.bundle import MAX_MEMBERS, MAX_VARIANTS
from protocol.codec import MAX_INDEX
from protocol.errors import InvalidRequest
from protocol.payload import MAX_PAYLOAD

MEDIA_TYPE: Final = "application/x-tar"
BLOCK: Final = 512
CHUNK: Final = 256 * 1024
MAX_FILES: Final = 2 + MAX_VARIANTS * (MAX_MEMBERS + 1)

_BLOB: Final = re.compile(re.escape(BLOBS) + r"/([0-9a-f]{64})")
_LIMITS: Final = {MARKER: 1024, INDEX: MAX_INDEX}
_OCTAL: Final = re.compile(rb"([0-7]{1,11})[\0 ]*")
_SUM: Final = slice(148, 156)


def pack(directory: Path) -> Iterator[bytes]:
    """The tar of a bundle directory, in chunks: equal bundles give equal bytes."""
    layout = read(directory)
    names = [MARKER, INDEX]
    names += sorted(f"{BLOBS}/{path.name}" for path in (layout.directory / BLOBS).iterdir())
    for name in names:
        path = directory / name
        size = path.stat().st_size
        yield _header(name, size)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        yield b"\0" * (-size % BLOCK)
    yield b"\0" * (2 * BLOCK)


def packed_size(directory: Path) -> int:
    """Bytes that `pack` gives, for a Content-Length and a progress bar."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    sizes = (path.stat().st_size for path in files)
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + 2 * BLOCK


class Unpacker:
    """Takes a tar piece by piece into a new folder; `finish` verifies the bundle as a whole.

    Every method raises `InvalidRequest`: OUT-B107 for more than `limit` bytes, OUT-B120 for
    anything that is not a bundle. The caller removes the folder then (`discard`).
    """

    def __init__(self, directory: Path, *, limit: int = MAX_PAYLOAD) -> None:
        (directory / BLOBS).mkdir(parents=True)
        self._directory = directory
        self._limit = limit
        self._received = 0
        self._header = bytearray()
        self._names: set[str] = set()
        self._name = ""
        self._left = 0
        self._padding = 0
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._ended = False

    def feed(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._limit:
            raise InvalidRequest("OUT-B107", f"the upload has more than {self._limit:,} bytes")
        view = memoryview(data)
        while view:
            if self._ended:
                if any(view):
                    raise _malformed("something follows after the end")
                return
            if self._file is not None:
                view = self._content(view)
            elif self._padding:
                used = min(self._padding, len(view))
                if any(view[:used]):
                    raise _malformed("something hides between two files")
                self._padding -= used
                view = view[used:]
            else:
                used = min(BLOCK - len(self._header), len(view))
                self._header += view[:used]
                view = view[used:]
                if len(self._header) == BLOCK:
                    self._open(bytes(self._header))
                    self._header.clear()

    def finish(self) -> Layout:
        """The verified bundle, when everything has been fed."""
        if not self._ended:
            raise _malformed("it is cut short")
        return read(self._directory)

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _open(self, header: bytes) -> None:
        if not any(header):
            self._ended = True
            return
        name, size = _parse(header)
        if name in self._names or len(self._names) >= MAX_FILES:
            raise _malformed(f"{name[:80]} comes twice, or there are too many files")
        self._names.add(name)
        self._name, self._left, self._padding = name, size, -size % BLOCK
        self._hash = hashlib.sha256()
        self._file = (self._directory / name).open("xb")
        if not size:
            self._close()

    def _content(self, view: memoryview) -> memoryview:
        assert self._file is not None
        piece, rest = view[: self._left], view[self._left :]
        self._file.write(piece)
        self._hash.update(piece)
        self._left -= len(piece)
        if not self._left:
            self._close()
        return rest

    def _close(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        blob = _BLOB.fullmatch(self._name)
        if blob and self._hash.hexdigest() != blob[1]:
            raise _malformed(f"blob {blob[1][:8]} does not have its digest")


def _header(name: str, size: int) -> bytes:
    """A ustar header of a regular file: nobody's, of no time, so that bytes depend on content."""
    block = bytearray(BLOCK)
    block[: len(name)] = name.encode("ascii")
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = f"{size:011o}".encode() + b"\0"
    block[136:148] = b"00000000000\0"
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[_SUM] = f"{_checksum(block):06o}".encode() + b"\0 "
    return bytes(block)


def _parse(header: bytes) -> tuple[str, int]:
    """`(name, size)` of a header block that may come from anybody."""
    if header[257:263] not in (b"ustar\0", b"ustar "):
        raise _malformed("it is not a tar archive")
    if _octal(header[_SUM]) != _checksum(header):
        raise _malformed("a header is damaged")
    raw = header[:100].rstrip(b"\0")
    if header[156:157] not in (b"0", b"\0") or any(header[157:257]):
        raise _malformed(f"{_shown(raw)} is not a regular file")
    if header[257:265] == b"ustar\x0000" and any(header[345:500]):
        raise _malformed(f"{_shown(raw)} has a prefix")
    name = raw.decode("latin-1")
    if name not in _LIMITS and not _BLOB.fullmatch(name):
        raise _malformed(f"no file of a bundle is called {_shown(raw)}")
    size = _octal(header[124:136])
    if size > _LIMITS.get(name, MAX_PAYLOAD):
        raise _malformed(f"{name[:80]} has {size:,} bytes")
    return name, size


def _octal(field: bytes) -> int:
    found = _OCTAL.fullmatch(field.strip(b" "))
    if not found:
        raise _malformed("a number in a header cannot be read")
    return int(found[1], 8)


def _checksum(header: bytes | bytearray) -> int:
    return sum(header) - sum(header[_SUM]) + 8 * ord(" ")


def _shown(name: bytes) -> str:
    return repr(name.decode("latin-1")[:80])


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest("OUT-B120", why)

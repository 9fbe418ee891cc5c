"""How bytes travel: hint, frame lists and the payload header (the format only).

A payload's digest is the SHA-256 of its concatenated frame lists, so one 32-byte name checks
every frame on receipt. Nothing here is signed: only the file digest of the signed manifest
accepts what a payload decodes to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from protocol.errors import PeerError
from protocol.identifiers import (
    Count,
    DeviceId,
    Digest,
    digest,
    digest_from_hex,
    digest_hex,
    digest_of,
)

FRAME_SIZE: Final = 64 * 1024
DIGESTS_PER_LIST: Final = 2048
MAX_PAYLOAD: Final = 4 * 1024**3
MAX_FRAMES: Final = MAX_PAYLOAD // FRAME_SIZE
MAX_HINT_ENTRIES: Final = 32
MAX_BLOCK: Final = 256 * 1024
"""Decoders work in blocks of at most this many bytes."""

MAX_DECODE_MEMORY: Final = 8_000_000
"""Bytes above Python and numpy that a decoder may take; payloads that need more are not tried."""
MAX_WINDOW: Final = 4 * 1024 * 1024
"""Bytes of history of an encoding of whole files."""

FEATURE_RAW: Final = 1 << 0
FEATURE_ZSTD: Final = 1 << 1
FEATURE_SEGMENTS: Final = 1 << 2
FEATURE_LZMA: Final = 1 << 3
FEATURE_BROTLI: Final = 1 << 4
FEATURE_PATCH: Final = 1 << 5
FEATURE_BSDIFF: Final = 1 << 6
FEATURE_NAMES: Final[Mapping[int, str]] = {
    FEATURE_RAW: "payload/1",
    FEATURE_ZSTD: "payload/1",
    FEATURE_SEGMENTS: "payload-segments/1",
    FEATURE_LZMA: "payload-lzma/1",
    FEATURE_BROTLI: "payload-brotli/1",
    FEATURE_PATCH: "payload-patch/1",
    FEATURE_BSDIFF: "payload-bsdiff/1",
}
"""What a device reports of each bit that it can decode."""
KNOWN_FEATURES: Final = sum(FEATURE_NAMES)
PLAIN_FEATURES: Final = FEATURE_RAW | FEATURE_ZSTD
"""What every device can decode."""
FEATURE_SETS: Final = frozenset(
    {
        FEATURE_RAW,
        FEATURE_ZSTD,
        FEATURE_SEGMENTS,
        FEATURE_SEGMENTS | FEATURE_LZMA,
        FEATURE_BROTLI,
        FEATURE_PATCH,
        FEATURE_BSDIFF,
        FEATURE_BSDIFF | FEATURE_LZMA,
    }
)
"""Encodings that go together."""
WITHOUT_BASE: Final = FEATURE_RAW | FEATURE_ZSTD | FEATURE_BROTLI
WITH_BASE: Final = FEATURE_PATCH | FEATURE_BSDIFF
"""Encodings that never, and that always start from a base. The decoder insists on it: headers that
earlier versions wrote stay readable."""

HTTP_NAME: Final = "payload-http/1"
"""What a device reports that also fetches over HTTP."""
LISTS_SUFFIX: Final = ".lists"
"""Of the address of a payload's frame lists, joined."""
PAYLOAD_PATH: Final = "/v1/payloads/"
MAX_URLS: Final = 4
MAX_URL: Final = 512
_PROOF: Final = b"outrider-payload-v1\0"

_HEADER = struct.Struct("<4sBBHI32s32sQI")
_MAGIC: Final = b"OAD1"
HEADER_SIZE: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class HintEntry:
    """One way to obtain a file: `payload` of `size` bytes in `frames` frames, on top of `base`."""

    payload: Digest
    size: Count
    frames: Count
    features: Count
    decode_memory: Count
    base: Digest | None = None
    urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        digest(self.payload)
        if self.base is not None:
            digest(self.base)
        if not 0 < self.size <= MAX_PAYLOAD:
            raise ValueError(f"a payload has 1 to {MAX_PAYLOAD:,} bytes")
        if self.frames != frame_count(self.size):
            raise ValueError(f"{self.size:,} bytes are {frame_count(self.size)} frames")
        if len(self.urls) > MAX_URLS or any(len(url) > MAX_URL for url in self.urls):
            raise ValueError(f"an entry has at most {MAX_URLS} addresses of {MAX_URL} characters")

    def usable(self, file_size: int, known: int = PLAIN_FEATURES) -> bool:
        """Whether an agent that decodes `known` may try it: its encoding, and not larger than any
        honest encoding of a file of that size."""
        return not self.features & ~known and self.size <= file_size * 1.02 + FRAME_SIZE


@dataclass(frozen=True, slots=True)
class Hint:
    """Retained and unsigned: what the control plane currently offers for one file."""

    entries: tuple[HintEntry, ...]

    def __post_init__(self) -> None:
        if len(self.entries) > MAX_HINT_ENTRIES:
            raise ValueError(f"a hint has at most {MAX_HINT_ENTRIES} entries")


@dataclass(frozen=True, slots=True)
class Header:
    """First bytes of every payload; what follows belongs to the feature bits."""

    features: int
    base: Digest | None
    target: Digest
    target_size: int
    max_block: int

    def pack(self) -> bytes:
        base = bytes.fromhex(digest_hex(self.base)) if self.base else bytes(32)
        target = bytes.fromhex(digest_hex(self.target))
        return _HEADER.pack(
            _MAGIC, 1, 0, HEADER_SIZE, self.features, base, target, self.target_size, self.max_block
        )

    @classmethod
    def unpack(cls, data: bytes) -> tuple[Header, int]:
        """`(header, offset of what follows)`. Raises `PeerError` for anything unknown."""
        if len(data) < HEADER_SIZE:
            raise PeerError("OUT-F110", "the header is cut short")
        magic, version, flags, length, features, base, target, size, block = _HEADER.unpack_from(
            data
        )
        if magic != _MAGIC or version != 1 or flags or length != HEADER_SIZE:
            raise PeerError("OUT-F110", "not a payload of version 1")
        if not features or features & ~KNOWN_FEATURES:
            raise PeerError("OUT-F110", f"unknown encoding 0x{features:x}")
        if not 0 < block <= MAX_BLOCK or size > MAX_PAYLOAD:
            raise PeerError("OUT-F110", "it declares more memory than an agent grants")
        if features not in FEATURE_SETS:
            raise PeerError("OUT-F110", f"encodings 0x{features:x} do not go together")
        return (
            cls(
                features,
                digest_from_hex(base.hex()) if any(base) else None,
                digest_from_hex(target.hex()),
                size,
                block,
            ),
            length,
        )


def features_named(names: Iterable[str]) -> int:
    """Bits of the encodings that a device reports; names of other things are ignored."""
    known = frozenset(names)
    return sum(bit for bit, name in FEATURE_NAMES.items() if name in known)


def names_of(features: int) -> tuple[str, ...]:
    """The inverse of `features_named`, each name once."""
    return tuple(dict.fromkeys(name for bit, name in FEATURE_NAMES.items() if bit & features))


def payload_proof_bytes(device: DeviceId, payload: Digest) -> bytes:
    """What a device signs with its key to read one payload over HTTP."""
    return _PROOF + device.encode() + b"\0" + payload.encode()


def frame_count(size: int) -> int:
    return -(-size // FRAME_SIZE)


def list_count(frames: int) -> int:
    return -(-frames // DIGESTS_PER_LIST)


def frame_length(size: int, number: int) -> int:
    """Bytes of frame `number` of a payload of `size` bytes."""
    return min(FRAME_SIZE, size - number * FRAME_SIZE)


def frame_digest(frame: bytes) -> bytes:
    return sha256(frame).digest()


def build_lists(frames: Sequence[bytes]) -> tuple[Digest, list[bytes]]:
    """`(payload digest, frame lists)` of the frames of one payload."""
    digests = [frame_digest(frame) for frame in frames]
    lists = [
        b"".join(digests[start : start + DIGESTS_PER_LIST])
        for start in range(0, len(digests), DIGESTS_PER_LIST)
    ]
    return digest_of(b"".join(lists)), lists


def check_lists(entry: HintEntry, lists: Sequence[bytes]) -> tuple[bytes, ...]:
    """Digests of all frames, in order. Raises `PeerError` unless the lists are the payload's."""
    joined = b"".join(lists)
    if len(joined) != 32 * entry.frames or digest_of(joined) != entry.payload:
        raise PeerError("OUT-F111", "the frame lists do not give the payload's digest")
    return tuple(joined[start : start + 32] for start in range(0, len(joined), 32))

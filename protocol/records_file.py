"""Records in files: what a device without a link sends on a stick, signed with the device's key.

    OUTRIDER-RECORDS 1                      a line that says what it is
    {"certificate": …, "device": …, …}      the head, one line of JSON
    MEUCIQ…                                 its signature, base64, one line
    …                                       the batches, each as the link would have carried it

The head holds the digest of the batches, so one signature covers everything. Whoever reads a file
takes the device's name from the certificate, and only what the head's key signed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.codec import MAX_UP_PACKED, decode, encode
from protocol.errors import InvalidRequest, PeerError, TrustError
from protocol.identifiers import (
    Count,
    DeviceId,
    Digest,
    FleetName,
    digest,
    digest_of,
    fleet_name,
    split_device_id,
)

SUFFIX: Final = ".records"
MAX_FILES: Final = 9_999
MAX_FILE: Final = 4 * 1024 * 1024
MAX_HEAD: Final = 32 * 1024
MAX_BATCHES: Final = 512
_MAGIC: Final = b"OUTRIDER-RECORDS 1\n"
_SIGNED: Final = b"outrider-records-v1\0"
_MAX_SIGNATURE: Final = 256


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of itself; signed."""

    v: Count
    fleet: FleetName
    device: DeviceId
    made_ms: Count
    """By the device's clock: advice."""
    number: Count
    """From 1, of the files of one export."""
    records: Count
    sizes: tuple[Count, ...]
    """Bytes of each batch, in order."""
    batches: Digest
    """Of all batches together."""
    certificate: str
    """Of the device, PEM."""

    def __post_init__(self) -> None:
        if self.v != 1:
            raise ValueError(f"a file of schema {self.v}; this reads 1")
        if split_device_id(self.device)[0] != fleet_name(self.fleet):
            raise ValueError(f"{self.device!r:.80} is not a device of fleet {self.fleet!r:.40}")
        if len(self.sizes) > MAX_BATCHES or any(not 0 < s <= MAX_UP_PACKED for s in self.sizes):
            raise ValueError(f"at most {MAX_BATCHES} batches of at most {MAX_UP_PACKED:,} bytes")
        digest(self.batches)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file, taken apart. Nothing of it is trusted before `signature` was checked."""

    head: Head
    signed: bytes
    """What the signature is over."""
    signature: bytes
    batches: tuple[bytes, ...]


def file_name(device: DeviceId, number: int) -> str:
    return f"{device}.{number}{SUFFIX}"


def signed_bytes(head: Head) -> bytes:
    return _SIGNED + encode(head)


def put_together(head: Head, signature: bytes, batches: Sequence[bytes]) -> bytes:
    signed = base64.b64encode(signature)
    return b"".join((_MAGIC, encode(head), b"\n", signed, b"\n", *batches))


def take_apart(data: bytes) -> Opened:
    """Raises `InvalidRequest` OUT-D505 for what is no such file, `TrustError` OUT-D504 for batches
    that are not those of the head."""
    if len(data) > MAX_FILE:
        raise InvalidRequest("OUT-D505", f"{len(data):,} bytes, at most {MAX_FILE:,}")
    if not data.startswith(_MAGIC):
        raise InvalidRequest("OUT-D505", "this is not a file of records")
    lines = data[len(_MAGIC) : len(_MAGIC) + MAX_HEAD + _MAX_SIGNATURE + 2].split(b"\n", 2)
    if len(lines) != 3 or len(lines[1]) > _MAX_SIGNATURE:
        raise InvalidRequest("OUT-D505", "it is cut short, or damaged")
    try:
        head = decode(lines[0], Head, limit=MAX_HEAD)
        signature = base64.b64decode(lines[1], validate=True)
    except (PeerError, binascii.Error) as error:
        raise InvalidRequest("OUT-D505", str(error)) from error
    body = data[len(_MAGIC) + len(lines[0]) + len(lines[1]) + 2 :]
    if len(body) < sum(head.sizes):
        raise InvalidRequest("OUT-D505", "it is cut short: the stick was pulled out too early")
    if len(body) != sum(head.sizes) or digest_of(body) != head.batches:
        raise TrustError("OUT-D504", "its batches are not those that were signed")
    batches, start = [], 0
    for size in head.sizes:
        batches.append(body[start : start + size])
        start += size
    return Opened(head, _SIGNED + lines[0], signature, tuple(batches))

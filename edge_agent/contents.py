"""What a bundle's documents may say: checked against what is signed before anything is kept."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from protocol import codec
from protocol.bundle import Facts, Index, Member, VariantReference, decode_index, decode_manifest
from protocol.errors import Failed, OutriderError, PeerError, TrustError, Unavailable
from protocol.identifiers import Digest, ModelName, digest_of, short
from protocol.payload import MAX_DECODE_MEMORY, PLAIN_FEATURES, Hint, HintEntry

INDEX: Final = "index.json"
MANIFEST: Final = "manifest.json"
HINT_PREFIX: Final = ".h-"


def read_index(
    data: bytes, model: ModelName, digest: Digest, facts: Facts
) -> tuple[Index, VariantReference]:
    """The index, and the variant for a device with these facts.

    Raises `TrustError` (OUT-T107) when it is not the signed one, `Unavailable` (OUT-F101) when it
    was cleared, `PeerError` when it cannot be read, `Failed` (OUT-D302) when no variant fits.
    """
    if len(data) > codec.MAX_INDEX or digest_of(data) != digest:
        raise _refused(data, "index", digest)
    index = decode_index(data)
    if index.model != model:
        raise PeerError("OUT-B120", f"an index of {index.model}, not of {model}")
    chosen = index.choose(facts)
    if chosen is None:
        raise Failed("OUT-D302", "no variant of it fits this device")
    return index, chosen


def read_manifest(data: bytes, chosen: VariantReference) -> tuple[Member, ...]:
    """Members of the chosen variant. Raises like `read_index`."""
    if len(data) != chosen.size or digest_of(data) != chosen.digest:
        raise _refused(data, "manifest", chosen.digest)
    return decode_manifest(data).members


def read_hint(
    data: bytes,
    member: Member,
    known: int = PLAIN_FEATURES,
    bases: Collection[Digest] = (),
) -> tuple[HintEntry, ...]:
    """The entries that this agent may try for a member, in the order given.

    `known`: feature bits of what it can decode; `bases`: files that it has.
    Raises `PeerError` (OUT-F103): a hint is unsigned, and anybody's.
    """
    try:
        entries = codec.decode(data, Hint, limit=codec.MAX_HINT).entries
    except PeerError as error:
        raise PeerError("OUT-F103", error.why) from error
    return tuple(
        entry
        for entry in entries
        if entry.usable(member.size, known)
        and (entry.base is None or entry.base in bases)
        and entry.decode_memory <= MAX_DECODE_MEMORY
    )


def lying_there(path: Path, digest: Digest) -> bytes:
    """The document that an earlier run left, if it is the right one; else nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b""
    return data if digest_of(data) == digest else b""


def keep(path: Path, data: bytes) -> None:
    """Write it whole or not at all; Stage makes it durable. Raises `OSError`."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)


def keep_hint(directory: Path, member: Member, data: bytes) -> None:
    """So that what its addresses have can be fetched without a broker, after a restart. Raises
    `OSError`."""
    keep(_hint(directory, member), data)


def kept_hint(directory: Path, member: Member) -> bytes:
    """What was kept; else nothing. It is as unsigned as it came. Raises `OSError`."""
    try:
        return _hint(directory, member).read_bytes()[: codec.MAX_HINT + 1]
    except FileNotFoundError:
        return b""


def forget_hint(directory: Path, member: Member) -> None:
    """The member is here. Raises `OSError`."""
    _hint(directory, member).unlink(missing_ok=True)


def _hint(directory: Path, member: Member) -> Path:
    return directory / f"{HINT_PREFIX}{member.digest}"


def _refused(data: bytes, what: str, digest: Digest) -> OutriderError:
    if not data:
        return Unavailable("OUT-F101", f"{what} {short(digest)} was cleared")
    return TrustError("OUT-T107", f"{what} {short(digest)}")

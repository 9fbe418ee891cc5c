"""A bundle as an approver sees it: fetched whole to their machine, every byte under its digest.

    signed entry ── digest, length ──▶ index ──▶ manifests ──▶ members

Nothing is unpacked and nothing is written: files are named by digests only, members go through a
hash and are gone. Nobody can make the approver read more than the documents above declare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from protocol.bundle import (
    Index,
    Member,
    Needs,
    Variant,
    decode_index,
    decode_manifest,
)
from protocol.codec import MAX_BUNDLE_DOCUMENT, MAX_INDEX, T
from protocol.errors import PeerError, TrustError
from protocol.identifiers import Digest, digest_from_hex
from protocol.members import Card, Contract, Policy, member_document
from protocol.payload import MAX_PAYLOAD

Read = Callable[[Digest], Iterable[bytes]]
"""The blocks of a file, from whoever claims to have it; reading stops where it is too long."""
Progress = Callable[[int, int], None]
"""`(done, total)` in bytes."""

_SHOWN = ("contract", "policy", "card")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a bundle says, as far as a person judges it. Lists are in the order of variants."""

    index: Index
    contracts: tuple[Contract, ...]
    policies: tuple[Policy, ...]
    card: Card
    size_bytes: int
    """Of all members, each content once."""

    @property
    def needs(self) -> tuple[Needs, ...]:
        return tuple(each.needs for each in self.index.variants)


def nothing(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def fetch(
    read: Read,
    path: str,
    digest: Digest,
    length: int,
    *,
    whole: bool = True,
    progress: Progress = nothing,
) -> Evidence:
    """Everything below an index, checked here; without `whole` only what is shown of it.

    Raises `TrustError`: OUT-T103 for bytes that are not what their digest says, OUT-T114 for a
    bundle that no device would take, or that is another one than `path` says.
    """
    if not 0 < length <= MAX_INDEX:
        raise TrustError("OUT-T114", f"{path}: an index of {length:,} bytes")
    try:
        index = decode_index(_all(read, digest, length, path))
        if f"models/{index.model}/{index.version}" != path:
            named = f"{index.model}/{index.version}"
            raise TrustError("OUT-T114", f"{path}: the bundle calls itself {named}")
        variants = [
            decode_manifest(_all(read, each.digest, each.size, f"{path}: a manifest"))
            for each in index.variants
        ]
        members = _distinct(variants)
        total = sum(each.size for each in members.values())
        if total > MAX_PAYLOAD:
            raise TrustError("OUT-T114", f"{path} claims {total:,} bytes")
        documents = _fetch(read, path, variants, members, whole=whole, progress=progress)
        contracts = _documents(documents, variants, "contract", Contract)
        policies = _documents(documents, variants, "policy", Policy)
        card = _documents(documents, variants[:1], "card", Card)[0]
    except PeerError as error:
        raise TrustError("OUT-T114", f"{path}: {error.why}") from error
    return Evidence(index, contracts, policies, card, total)


def _distinct(variants: Iterable[Variant]) -> dict[Digest, Member]:
    """Members, each content once. Raises `TrustError` where one content has two sizes."""
    found: dict[Digest, Member] = {}
    for member in (member for variant in variants for member in variant.members):
        if found.setdefault(member.digest, member).size != member.size:
            raise TrustError("OUT-T114", f"{member.path} has two sizes")
    return found


def _fetch(
    read: Read,
    path: str,
    variants: Iterable[Variant],
    members: dict[Digest, Member],
    *,
    whole: bool,
    progress: Progress,
) -> dict[Digest, bytes]:
    """The content of what is shown; everything else has only been checked."""
    shown = {v.member(role).digest for v in variants for role in _SHOWN}
    wanted = [each for each in members.values() if whole or each.digest in shown]
    total, before = sum(each.size for each in wanted), 0
    kept: dict[Digest, bytes] = {}
    for member in wanted:
        where = f"{path}: {member.path}"
        if member.digest in shown and member.size > MAX_BUNDLE_DOCUMENT:
            raise TrustError("OUT-T114", f"{where} has {member.size:,} bytes")
        content = bytearray()
        done = before
        for block in _checked(read, member.digest, member.size, where):
            if member.digest in shown:
                content += block
            done += len(block)
            progress(done, total)
        if member.digest in shown:
            kept[member.digest] = bytes(content)
        before += member.size
    return kept


def _documents(
    content: dict[Digest, bytes], variants: Iterable[Variant], role: str, into: type[T]
) -> tuple[T, ...]:
    return tuple(member_document(content[v.member(role).digest], into) for v in variants)


def _all(read: Read, digest: Digest, size: int, where: str) -> bytes:
    return b"".join(_checked(read, digest, size, where))


def _checked(read: Read, digest: Digest, size: int, where: str) -> Iterator[bytes]:
    """The blocks of exactly this content. Raises `TrustError` OUT-T103 at the first byte too
    many, and at the end for any other content."""
    running, length = hashlib.sha256(), 0
    for block in read(digest):
        length += len(block)
        if length > size:
            raise TrustError("OUT-T103", f"{where} has more than the {size:,} bytes it claims")
        running.update(block)
        yield block
    found = digest_from_hex(running.hexdigest())
    if found != digest or length != size:
        raise TrustError("OUT-T103", f"{where} should be {digest[:15]}, is {found[:15]}")

"""Takes a verified bundle into the catalogue: blobs, payloads to travel, the entry, a draft.

Payloads that every device can decode come before the entry, all others after it: they take long,
and approvers need not wait for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control_plane.blobs import Blobs
from control_plane.catalog.layout import INDEX, Layout
from control_plane.deltas import Deltas, Tell, kilobytes
from control_plane.encode import encode
from control_plane.encode.offering import is_plain
from control_plane.settings import Settings
from control_plane.signing.drafts import approval
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.store.bundles import CLOSED, BundleRow, ManifestRow
from control_plane.store.payloads import EncodedPayload
from protocol.bundle import Member
from protocol.codec import to_wire
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest
from protocol.payload import MAX_PAYLOAD

_BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a push writes to."""

    settings: Settings
    store: Store
    blobs: Blobs
    repository: Repository
    deltas: Deltas


def push(layout: Layout, to: Catalogue, now_ms: int, tell: Tell, *, who: str) -> BundleRow:
    """Every step may be repeated, so a push that was cut short is simply done again.

    Raises `InvalidRequest` OUT-B130 if the version exists with other content.
    """
    index = layout.index
    check_free(layout, to.store)
    members = _distinct(layout)
    for path, digest in _files(layout, members):
        if not to.blobs.has(digest):
            with path.open("rb") as file:
                blocks = iter(lambda: file.read(_BLOCK), b"")
                to.blobs.put(blocks, limit=MAX_PAYLOAD, expected=digest)
    due = to.deltas.of(layout.digest)
    first = kilobytes(layout.size)
    total = first + kilobytes(sum(each.size for each in due))
    done = 0
    tell(0, total, "kB")
    for member in members:
        _encode(layout, member, to, now_ms)
        done += member.size
        tell(kilobytes(done), total, "kB")
    bundle = _row(layout, now_ms)
    with to.store.write():
        check_free(layout, to.store)
        there = to.store.bundles.version(bundle.model, bundle.version)
        if there is not None and there.digest != bundle.digest:
            to.store.bundles.forget(there.digest)
        to.store.bundles.put(bundle)
        if there is None or there.state in CLOSED:
            to.store.bundles.set_state(bundle.digest, "draft")
            about = {"version": bundle.version, "digest": bundle.digest}
            to.store.happened(
                who,
                f"models/{bundle.model}",
                "model.pushed",
                about,
                now_ms,
                before=there.state if there else None,
                after="draft",
            )
    if bundle.digest not in to.repository.approvals():
        change = approval(index, bundle.digest, len(layout.index_bytes))
        to.repository.draft((change,), now_ms, to.store.audit.head())
    to.deltas.make(due, lambda done, _, unit: tell(first + done, total, unit))
    return to.store.bundles.get(bundle.digest) or bundle


def check_free(layout: Layout, store: Store) -> None:
    """A version never changes, unless it was withdrawn before anybody could run it.

    Raises `InvalidRequest` OUT-B130.
    """
    index = layout.index
    there = store.bundles.version(index.model, index.version)
    if there is not None and there.digest != layout.digest and there.state != "withdrawn":
        raise InvalidRequest(
            "OUT-B130", f"{there.reference} is {there.digest[:15]}, this is {layout.digest[:15]}"
        )


def _distinct(layout: Layout) -> list[Member]:
    """Members, each content once: variants share most of theirs."""
    return list({member.digest: member for member in layout.members()}.values())


def _files(layout: Layout, members: list[Member]) -> Iterator[tuple[Path, Digest]]:
    """Members first, the index last: whoever finds an index finds all of it."""
    digests = [each.digest for each in members] + [each.digest for each in layout.index.variants]
    for digest in digests:
        yield layout.path(digest), digest
    yield layout.directory / INDEX, layout.digest


def _encode(layout: Layout, member: Member, to: Catalogue, now_ms: int) -> None:
    model = layout.index.model
    if any(is_plain(each.entry) for each in to.store.payloads.of_file(model, member.digest)):
        return
    encoded = encode(layout.path(member.digest), member.digest, to.settings.payloads)
    path = str(encoded.path.relative_to(to.settings.home))
    to.store.payloads.put(EncodedPayload(model, member.digest, encoded.entry, path, now_ms))


def _row(layout: Layout, now_ms: int) -> BundleRow:
    manifests = tuple(
        ManifestRow(reference.digest, variant.member("profile").digest)
        for reference, variant in zip(layout.index.variants, layout.variants, strict=True)
    )
    card = to_wire(layout.card(layout.variants[0]))
    return BundleRow(
        layout.digest,
        layout.index.model,
        layout.index.version,
        layout.size,
        now_ms,
        "draft",
        manifests,
        card,
    )

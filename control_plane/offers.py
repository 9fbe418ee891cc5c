"""What devices need of an approved bundle lies with the broker: manifests, hints, payloads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from control_plane.blobs import Blobs
from control_plane.encode import Encoded
from control_plane.encode.offering import Able, chosen, is_plain
from control_plane.store.payloads import EncodedPayload, Payloads
from protocol.bundle import Member, decode_index, decode_manifest
from protocol.errors import OutriderError
from protocol.identifiers import Digest, ModelName
from protocol.payload import HintEntry
from protocol.topics import Topics

log = logging.getLogger(__name__)

Encode = Callable[[Path, Digest, Path], Encoded]
"""`(file, its digest, directory) -> the payload, kept there`."""
Reopen = Callable[[Path, Digest], Encoded | None]
"""`(directory, payload) -> the payload`; None if it is not whole."""


class Keeper(Protocol):
    """Makes the broker retain what it is told."""

    def keep(self, topic: str, data: bytes) -> None: ...
    def offer(self, model: ModelName, file: Digest, payloads: Sequence[Encoded]) -> None: ...


class Offers:
    """Offers each bundle once per process, and again what has changed of it: the keeper remembers,
    and looks after it."""

    def __init__(
        self, topics: Topics, blobs: Blobs, payloads: Payloads, home: Path, directory: Path, *,
        encode: Encode, reopen: Reopen, abilities: Callable[[], Collection[Able]] = tuple,
    ) -> None:  # fmt: skip
        """`directory` is for encoded files, below `home`; `abilities`: what devices can decode."""
        self._topics = topics
        self._blobs = blobs
        self._payloads = payloads
        self._home = home
        self._directory = directory
        self._encode = encode
        self._reopen = reopen
        self._ask = abilities
        self._asked_ms = -1
        self._abilities: frozenset[Able] = frozenset()
        self._offered: dict[Digest, _Known] = {}
        self._members: dict[Digest, tuple[ModelName, tuple[Member, ...]]] = {}
        self._handed: dict[tuple[ModelName, Digest], tuple[HintEntry, ...]] = {}
        self._failed: set[Digest] = set()

    def offer(self, bundle: Digest, keeper: Keeper, now_ms: int) -> bool:
        """Whether everything of the bundle has been handed to the keeper.

        A bundle that cannot be read is logged once and tried again each time.
        """
        if now_ms != self._asked_ms:
            self._abilities, self._asked_ms = frozenset(self._ask()), now_ms
        known = self._payloads.changes, self._abilities
        if self._offered.get(bundle) == known:
            return True
        try:
            self._hand_over(bundle, keeper, now_ms)
        except (KeyError, OSError, OutriderError):
            if bundle not in self._failed:
                log.exception("%s cannot be offered", bundle)
            self._failed.add(bundle)
            return bundle in self._offered
        self._offered[bundle] = known
        self._failed.discard(bundle)
        return True

    def _hand_over(self, bundle: Digest, keeper: Keeper, now_ms: int) -> None:
        if bundle in self._members:
            self._hand_over_files(*self._members[bundle], keeper, now_ms)
            return
        data = self._blobs.read(bundle)
        index = decode_index(data)
        # Members before manifests before the index: nobody is told of what is not there yet.
        manifests = {each.digest: self._blobs.read(each.digest) for each in index.variants}
        members = tuple(m for text in manifests.values() for m in decode_manifest(text).members)
        self._hand_over_files(index.model, members, keeper, now_ms)
        for name, text in manifests.items():
            keeper.keep(self._topics.manifest(index.model, name), text)
        keeper.keep(self._topics.manifest(index.model, bundle), data)
        self._members[bundle] = index.model, members

    def _hand_over_files(
        self, model: ModelName, members: Sequence[Member], keeper: Keeper, now_ms: int
    ) -> None:
        for member in members:
            rows = self._payloads.of_file(model, member.digest)
            picked = chosen([each.entry for each in rows], self._abilities)
            if self._handed.get((model, member.digest)) == picked:
                continue
            there = self._there(model, member.digest, rows)
            if not any(map(is_plain, there)):
                made = self._encoded(model, member, now_ms)
                there[made.entry] = made
            offered = chosen(list(there), self._abilities)
            keeper.offer(model, member.digest, [there[each] for each in offered])
            self._handed[model, member.digest] = offered

    def _there(
        self, model: ModelName, file: Digest, rows: Sequence[EncodedPayload]
    ) -> dict[HintEntry, Encoded]:
        """What of it is whole. One for everybody that is not is forgotten: it is made again here,
        and might seem to be the better one for ever; what becomes of others is up to `Deltas`."""
        there: dict[HintEntry, Encoded] = {}
        for each in rows:
            found = self._reopen((self._home / each.path).parent, each.entry.payload)
            if found is not None:
                there[found.entry] = found
            elif is_plain(each.entry):
                self._payloads.remove(model, file, each.entry.payload)
        return there

    def _encoded(self, model: ModelName, member: Member, now_ms: int) -> Encoded:
        made = self._encode(self._blobs.path(member.digest), member.digest, self._directory)
        path = str(made.path.relative_to(self._home))
        self._payloads.put(EncodedPayload(model, member.digest, made.entry, path, now_ms))
        return made


_Known = tuple[int, frozenset[Able]]
"""What was known of all payloads, and of devices, when a bundle was handed over."""

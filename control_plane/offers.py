"""What devices need of an approved bundle lies with the broker: manifests, hints, payloads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from control_plane.blobs import Blobs
from control_plane.encode import Encoded
from control_plane.store.payloads import EncodedPayload, Payloads
from protocol.bundle import Member, decode_index, decode_manifest
from protocol.errors import OutriderError
from protocol.identifiers import Digest, ModelName
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
    """Offers each bundle once per process: the keeper remembers, and looks after it."""

    def __init__(
        self, topics: Topics, blobs: Blobs, payloads: Payloads, home: Path, directory: Path, *,
        encode: Encode, reopen: Reopen,
    ) -> None:  # fmt: skip
        """`directory` is for encoded files, below `home`."""
        self._topics = topics
        self._blobs = blobs
        self._payloads = payloads
        self._home = home
        self._directory = directory
        self._encode = encode
        self._reopen = reopen
        self._offered: set[Digest] = set()
        self._failed: set[Digest] = set()

    def offer(self, bundle: Digest, keeper: Keeper, now_ms: int) -> bool:
        """Whether everything of the bundle has been handed to the keeper.

        A bundle that cannot be read is logged once and tried again each time.
        """
        if bundle in self._offered:
            return True
        try:
            self._hand_over(bundle, keeper, now_ms)
        except (KeyError, OSError, OutriderError):
            if bundle not in self._failed:
                log.exception("%s cannot be offered", bundle)
            self._failed.add(bundle)
            return False
        self._offered.add(bundle)
        self._failed.discard(bundle)
        return True

    def _hand_over(self, bundle: Digest, keeper: Keeper, now_ms: int) -> None:
        data = self._blobs.read(bundle)
        index = decode_index(data)
        # Members before manifests before the index: nobody is told of what is not there yet.
        manifests = {each.digest: self._blobs.read(each.digest) for each in index.variants}
        for text in manifests.values():
            for member in decode_manifest(text).members:
                keeper.offer(index.model, member.digest, self._encoded(index.model, member, now_ms))
        for name, text in manifests.items():
            keeper.keep(self._topics.manifest(index.model, name), text)
        keeper.keep(self._topics.manifest(index.model, bundle), data)

    def _encoded(self, model: ModelName, member: Member, now_ms: int) -> list[Encoded]:
        known = self._payloads.of_file(model, member.digest)
        there = [
            found
            for each in known
            if (found := self._reopen((self._home / each.path).parent, each.entry.payload))
        ]
        if there:
            return there
        made = self._encode(self._blobs.path(member.digest), member.digest, self._directory)
        path = str(made.path.relative_to(self._home))
        self._payloads.put(EncodedPayload(model, member.digest, made.entry, path, now_ms))
        return [made]

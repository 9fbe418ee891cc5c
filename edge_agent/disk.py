"""Bundles by digest and the two-slot journal of each model, safe against power cuts.

    state/<model>.0 .1     two preallocated slots, written in place, in turn
    bundles/<digest>/      complete: index.json, manifest.json, members
    bundles/.<digest>/     being fetched

What is present is derived from the directory and believed only after hashing. A bundle appears by
one rename, after everything in it was synced; it is deleted in place, without a rename first,
because a renamed one could not be told from a partial one after a power cut.

Long because all writes whose order matters are easier to judge side by side.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge_agent.filesystem import FileSystem, Stat
from edge_agent.journal import SLOT_BYTES, Journal, decode_slot, encode_slot
from protocol.bundle import Index, Member, Variant, decode_index, decode_manifest
from protocol.codec import MAX_BUNDLE_DOCUMENT, MAX_INDEX, MAX_MANIFEST
from protocol.errors import PeerError, Unavailable
from protocol.identifiers import Digest, ModelName, digest, digest_from_hex, digest_of, model_name
from protocol.members import Contract, Policy, Profile, member_document

INDEX: Final = "index.json"
MANIFEST: Final = "manifest.json"
SLOTS: Final = ("0", "1")

ROOM_TO_SPARE: Final = 1024 * 1024
"""Kept free beside a download: directories, file-system bookkeeping, the outbox."""
_PAYLOAD_GROWTH: Final = 1.02
"""A payload may be this much larger than the file it gives, plus `_PAYLOAD_HEAD`."""
_PAYLOAD_HEAD: Final = 64 * 1024

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_Seen = tuple[tuple[str, Stat | None], ...]


@dataclass(frozen=True, slots=True)
class Installed:
    """A complete bundle whose every byte was checked."""

    path: Path
    digest: Digest
    manifest: Digest
    index: Index
    variant: Variant
    contract: Contract
    policy: Policy

    @property
    def name(self) -> str:
        return f"{self.index.model}/{self.index.version}"


class Disk:
    """Everything below `state` and `bundles` of one agent home.

    All methods raise `Unavailable("OUT-D201")` where the disk is full, and `OSError` where it is
    broken. Results of hashing are kept while the files' sizes, times and inodes do not change,
    and never beyond this process.
    """

    def __init__(self, home: Path, files: FileSystem | None = None) -> None:
        self._files = files or FileSystem()
        self._state = home / "state"
        self._bundles = home / "bundles"
        self._installed: dict[str, tuple[_Seen, Installed | None]] = {}
        with _room():
            for directory in (self._state, self._bundles):
                if not self._files.is_dir(directory):
                    self._files.mkdir(directory)
                    self._files.fsync(directory.parent)

    def sync(self) -> None:
        """Before the first decision: a killed predecessor may have left writes in the cache."""
        for directory in (self._state, self._bundles):
            self._files.sync(directory)

    # --- journal ---

    def models(self) -> tuple[ModelName, ...]:
        """Models that have, or had, a journal here."""
        names = set()
        for entry in self._files.names(self._state):
            name, dot, slot = entry.rpartition(".")
            if dot and slot in SLOTS:
                names.add(name)
        return tuple(sorted(names))

    def journal(self, model: ModelName) -> Journal | None:
        """The valid slot with the highest sequence; None if neither is valid."""
        generations = [journal for _, journal in self._slots(model) if journal is not None]
        return max(generations, key=lambda journal: journal.seq, default=None)

    def generations(self, model: ModelName) -> tuple[Journal, ...]:
        """Both generations, as far as they can be read: a torn write falls back to the older."""
        return tuple(journal for _, journal in self._slots(model) if journal is not None)

    def write_journal(self, journal: Journal) -> Journal:
        """Overwrite the older slot in place and sync it; returns what was written."""
        slots = self._slots(journal.model)
        seq = max((old.seq for _, old in slots if old is not None), default=0) + 1
        journal = replace(journal, seq=seq)
        data = encode_slot(journal)
        with _room():
            missing = [path for path, _ in slots if not self._whole(path)]
            for path in missing:
                self._files.allocate(path, SLOT_BYTES)
                self._files.fsync(path)
            if missing:
                self._files.fsync(self._state)
            path, _ = min(slots, key=lambda slot: slot[1].seq if slot[1] is not None else -1)
            self._files.write_at(path, 0, data)
            self._files.fsync(path)
        return journal

    def _slots(self, model: ModelName) -> list[tuple[Path, Journal | None]]:
        slots: list[tuple[Path, Journal | None]] = []
        for slot in SLOTS:
            path = self._state / f"{model_name(model)}.{slot}"
            found = None
            if self._files.stat(path) is not None:
                found = decode_slot(self._files.read(path, SLOT_BYTES))
            slots.append((path, found if found is None or found.model == model else None))
        return slots

    def _whole(self, path: Path) -> bool:
        found = self._files.stat(path)
        return found is not None and found.size == SLOT_BYTES

    # --- what is there ---

    def names(self) -> tuple[str, ...]:
        """Every entry of `bundles`, also what nobody knows."""
        return self._files.names(self._bundles)

    def complete(self) -> frozenset[Digest]:
        """Bundles with their final name; whether their bytes are right is `installed`'s to say."""
        return frozenset(name for name in self.names() if _is_digest(name))

    def partials(self) -> frozenset[Digest]:
        return frozenset(
            name[1:] for name in self.names() if name[0] == "." and _is_digest(name[1:])
        )

    def path(self, bundle: Digest) -> Path:
        return self._bundles / digest(bundle)

    def partial(self, bundle: Digest) -> Path:
        return self._bundles / f".{digest(bundle)}"

    def model_of(self, bundle: Digest) -> ModelName | None:
        """Model of a complete bundle; None if its index is not the signed one."""
        index = self._index(self.path(bundle), bundle)
        return index.model if index is not None else None

    def installed(self, bundle: Digest) -> Installed | None:
        """The bundle, if every member has the digest and size that its signed index leads to."""
        return self._check(self.path(bundle), bundle)

    def verify(self, bundle: Digest) -> bool:
        return self.installed(bundle) is not None

    def partial_complete(self, bundle: Digest) -> bool:
        """Whether a fetched bundle has all its bytes, so that it can be staged."""
        return self._check(self.partial(bundle), bundle) is not None

    def needed_bytes(self, bundle: Digest) -> int | None:
        """Room that is still needed to complete a partial bundle; None before its manifest came.

        The largest missing member counts twice: its payload is kept while it is decoded.
        """
        directory = self.partial(bundle)
        variant = self._variant(directory, bundle)
        if variant is None:
            return None
        missing = [m.size for m in variant[1].members if not self._has_size(directory, m)]
        if not missing:
            return 0
        payload = round(max(missing) * _PAYLOAD_GROWTH) + _PAYLOAD_HEAD
        begun = sum(
            found.size
            for name in self._files.names(directory)
            # A base that is held (`.b-`) is a link: nothing of what is needed.
            if name.startswith(".")
            and not name.startswith(".b-")
            and (found := self._files.stat(directory / name)) is not None
        )
        return max(sum(missing) + payload + ROOM_TO_SPARE - begun, 0)

    def free_bytes(self) -> int:
        return self._files.free_bytes(self._bundles)

    # --- changing it ---

    def stage(self, bundle: Digest) -> None:
        """Give a complete partial bundle its name: sync every file, then rename, then sync again.

        Raises `Unavailable("OUT-D316")` if its bytes are not (or no longer) right.
        """
        partial, final = self.partial(bundle), self.path(bundle)
        whole = self._check(partial, bundle)
        if whole is None:
            raise Unavailable("OUT-D316", f"{partial.name} is not complete")
        if self._files.is_dir(final):
            self._remove(final)
        members = {INDEX, MANIFEST, *(member.path for member in whole.variant.members)}
        with _room():
            for name in self._files.names(partial):
                if name not in members:
                    self._files.unlink(partial / name)
            for name in sorted(members):
                self._files.fsync(partial / name)
            self._files.fsync(partial)
            self._files.rename(partial, final)
            self._files.fsync(self._bundles)
        self._installed.pop(partial.name, None)

    def profile(self, manifest: Digest) -> Profile | None:
        """Reference profile of this variant, of whichever complete bundle has it; None if none
        does, or it is not the signed one. Read anew each time."""
        for bundle in sorted(self.complete()):
            directory = self.path(bundle)
            variant = self._variant(directory, bundle)
            if variant is None or variant[2] != manifest:
                continue
            member = variant[1].member("profile")
            data = self._document(directory / member.path, MAX_BUNDLE_DOCUMENT)
            if data is not None and digest_of(data) == member.digest:
                with contextlib.suppress(PeerError):
                    return member_document(data, Profile)
        return None

    def collect(self, name: str) -> None:
        """Delete one entry of `bundles`; a crash in between leaves what does not verify."""
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"not an entry of bundles: {name!r}")
        path = self._bundles / name
        if self._files.is_dir(path):
            self._remove(path)
        else:
            self._files.unlink(path)

    def _remove(self, directory: Path) -> None:
        self._installed.pop(directory.name, None)
        for name in self._files.names(directory):
            if self._files.is_dir(directory / name):
                self._remove(directory / name)
            else:
                self._files.unlink(directory / name)
        self._files.rmdir(directory)

    # --- checking ---

    def _check(self, directory: Path, bundle: Digest) -> Installed | None:
        names = self._files.names(directory)
        seen = tuple((name, self._files.stat(directory / name)) for name in names)
        known = self._installed.get(directory.name)
        if known is not None and known[0] == seen:
            return known[1]
        found = self._hash(directory, bundle) if names else None
        self._installed[directory.name] = (seen, found)
        return found

    def _hash(self, directory: Path, bundle: Digest) -> Installed | None:
        variant = self._variant(directory, bundle)
        if variant is None:
            return None
        index, manifest, reference = variant
        # Sizes first: a download in progress must not be hashed again with every frame.
        if not all(self._has_size(directory, member) for member in manifest.members):
            return None
        if not all(self._is(directory / member.path, member) for member in manifest.members):
            return None
        try:
            documents = {
                role: self._files.read(
                    directory / manifest.member(role).path, MAX_BUNDLE_DOCUMENT + 1
                )
                for role in ("contract", "policy")
            }
            return Installed(
                directory,
                bundle,
                reference,
                index,
                manifest,
                member_document(documents["contract"], Contract),
                member_document(documents["policy"], Policy),
            )
        except PeerError:
            return None

    def _variant(self, directory: Path, bundle: Digest) -> tuple[Index, Variant, Digest] | None:
        """Index and manifest of a directory, if they are the signed ones."""
        index = self._index(directory, bundle)
        data = self._document(directory / MANIFEST, MAX_MANIFEST)
        if index is None or data is None:
            return None
        manifest = digest_of(data)
        if not any(v.digest == manifest and v.size == len(data) for v in index.variants):
            return None
        try:
            return index, decode_manifest(data), manifest
        except PeerError:
            return None

    def _index(self, directory: Path, bundle: Digest) -> Index | None:
        data = self._document(directory / INDEX, MAX_INDEX)
        if data is None or digest_of(data) != bundle:
            return None
        try:
            return decode_index(data)
        except PeerError:
            return None

    def _document(self, path: Path, limit: int) -> bytes | None:
        if self._files.stat(path) is None:
            return None
        data = self._files.read(path, limit + 1)
        return data if len(data) <= limit else None

    def _has_size(self, directory: Path, member: Member) -> bool:
        found = self._files.stat(directory / member.path)
        return found is not None and found.size == member.size

    def _is(self, path: Path, member: Member) -> bool:
        hashed = hashlib.sha256()
        for block in self._files.blocks(path):
            hashed.update(block)
        return digest_from_hex(hashed.hexdigest()) == member.digest


@contextmanager
def _room() -> Iterator[None]:
    """Say "disk full" in the words of the catalogue."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable("OUT-D201", str(error)) from error
        raise


def _is_digest(name: str) -> bool:
    try:
        digest(name)
    except ValueError:
        return False
    return True


def _digest_of(data: bytes) -> Digest:
    return digest_from_hex(hashlib.sha256(data).hexdigest())

"""Makes what travels small: payloads from what devices have, and for what they can decode.

What a push makes without any of this, one payload per file that every device can decode, is there
first and stays: nothing here can keep a version from devices. What was made, or was not worth
keeping, is noted, so it is done once; what breaks off or fails costs bytes, never an update.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from control_plane.blobs import Blobs
from control_plane.encode import Encoded, making, reopen
from control_plane.encode.bases import NEWEST, bases_for
from control_plane.encode.making import RECIPE, STUDIED, Ability, File
from control_plane.encode.offering import WORTH_BYTES, chosen, is_plain
from control_plane.rollout.checking import version_of
from control_plane.rollout.preview import having
from control_plane.rollout.travel import Having, Library, Received, travel
from control_plane.settings import Settings
from control_plane.store import Store
from control_plane.store.operations import Operation
from control_plane.store.payloads import EncodedPayload
from protocol.bundle import Member, Variant
from protocol.errors import OutriderError
from protocol.identifiers import Digest, ModelName
from protocol.payload import FEATURE_PATCH, HEADER_SIZE, PLAIN_FEATURES, HintEntry

log = logging.getLogger(__name__)

Tell = Callable[[int, int, str], None]
"""`(done, total, unit)`."""

MOST_ABILITIES: Final = 4
"""Kinds of devices that are made payloads of their own."""
INTERVAL_S: Final = 60.0
"""Between two looks at what has become due."""
_STEPS: Final = 200
"""So often progress is told at most."""


class Making(Protocol):
    """`encode.making.make`."""

    def __call__(
        self,
        target: File,
        base: File | None,
        abilities: frozenset[Ability],
        directory: Path,
        tell: Callable[[int, int], None],
        *,
        below: int | None,
    ) -> tuple[Encoded, ...]: ...


@dataclass(frozen=True, slots=True)
class Due:
    """One file that is to be encoded, from one base or (None) without one."""

    model: ModelName
    target: File
    size: int
    base: File | None
    abilities: frozenset[Ability]
    devices: int = 0
    """That have the base."""

    @property
    def key(self) -> tuple[ModelName, Digest, Digest | None]:
        return self.model, self.target.digest, self.base.digest if self.base else None


class Deltas:
    """`due`, `of` and `make` belong to one thread at a time (`Work`'s); `stop` to any."""

    def __init__(
        self, store: Store, blobs: Blobs, settings: Settings, now_ms: Callable[[], int],
        make: Making = making.make,
    ) -> None:  # fmt: skip
        self._store = store
        self._library = Library(blobs.read)
        self._blobs = blobs
        self._home = settings.home
        self._directory = settings.payloads
        self._now_ms = now_ms
        self._make = make
        self._failed: set[tuple[ModelName, Digest, Digest | None]] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Give up what is being made; it is due again."""
        self._stopped.set()

    def due(self) -> tuple[Due, ...]:
        """What is missing of the bundles that devices are sent: candidates of rollouts, and what
        is stable somewhere. What has failed in this process is left alone."""
        wanted = [(each.model, each.candidate) for each in self._store.rollouts.active()]
        for model in self._store.plans.models():
            wanted += [(model, each.stable) for each in self._store.plans.assignments(model)]
        found: dict[tuple[ModelName, Digest, Digest | None], Due] = {}
        for _, bundle in dict.fromkeys(wanted):
            row = self._store.bundles.get(bundle)
            if row is None or row.state != "approved":
                continue
            try:
                found |= {each.key: each for each in self._of(bundle, ())}
            except (KeyError, OutriderError):
                continue  # not whole here: `Offers` says so
        return _ordered(each for key, each in found.items() if key not in self._failed)

    def of(self, bundle: Digest) -> tuple[Due, ...]:
        """What is missing of a bundle, also from the newest versions of its model that no device
        has yet. Raises `KeyError` or `OutriderError` if it is not whole here."""
        model = self._library.index(bundle).model
        rows = self._store.bundles.page(model, limit=NEWEST + 8).items
        usable = (each.digest for each in rows if each.state in ("approved", "draft"))
        return _ordered(self._of(bundle, [each for each in usable if each != bundle][:NEWEST]))

    def make(
        self, due: Sequence[Due], tell: Tell, enough: Callable[[], bool] = lambda: False
    ) -> int:
        """Make all of it, one after the other, until it is `enough`; how many payloads came of it.
        `tell` hears kB of the files. What fails is logged, and does not keep the rest from being
        made."""
        total = sum(each.size for each in due)
        progress = _Progress(tell, total)
        made = 0
        for each in due:
            if enough():
                break
            try:
                made += self._one(each, progress)
            except _Stopped:
                break
            except Exception:
                # Top of one attempt: what travels without it travels all the same.
                log.exception("%s from %s is not encoded", each.target.digest, each.key[2])
                self._failed.add(each.key)
            progress.over(each.size)
        return made

    def _one(self, due: Due, progress: _Progress) -> int:
        if self._stopped.is_set():
            raise _Stopped
        model, file, base = due.key
        entries = [each.entry for each in self._store.payloads.of_file(model, file)]
        if not any(is_plain(each) for each in entries):
            return 0  # it comes first, from whoever offers the file

        def tell(done: int, total: int) -> None:
            if self._stopped.is_set():
                raise _Stopped
            progress.within(due.size, done, total)

        found = self._make(
            due.target,
            due.base,
            due.abilities,
            self._directory,
            tell,
            below=_below(entries, due.abilities) if due.base else None,
        )
        now_ms = self._now_ms()
        for each in found:
            path = str(each.path.relative_to(self._home))
            self._store.payloads.put(EncodedPayload(model, file, each.entry, path, now_ms))
        smallest = min((each.entry.size for each in found), default=None)
        abilities = [(each.features, each.memory) for each in due.abilities]
        self._store.deltas.put(model, file, base, RECIPE, abilities, smallest, now_ms)
        return len(found)

    # --- what is due ------------------------------------------------------------------------------

    def _of(self, bundle: Digest, newest: Sequence[Digest]) -> list[Due]:
        common = abilities_of(self._store, MOST_ABILITIES)
        able = frozenset(each for each in common if each.features & ~PLAIN_FEATURES)
        if not able:
            return []
        index = self._library.index(bundle)
        held = self._store.devices.holding(index.model, bundle)
        found: dict[tuple[ModelName, Digest, Digest | None], Due] = {}
        for reference in index.variants:
            variant = self._library.variant(reference.digest)
            for member in variant.members:
                target = self._file(member, variant)
                mine = able if member.role in STUDIED else _patching(able)
                for base, devices in self._bases(member, held, newest):
                    missing = mine - self._tried(index.model, target, base)
                    if missing:
                        each = Due(index.model, target, member.size, base, missing, devices)
                        found.setdefault(each.key, each)
        return list(found.values())

    def _bases(
        self, member: Member, held: Mapping[Digest, int], newest: Sequence[Digest]
    ) -> list[tuple[File | None, int]]:
        """None first: to be packed better than every device can unpack it."""
        found: list[tuple[File | None, int]] = [(None, 0)] if member.role in STUDIED else []
        if member.size <= HEADER_SIZE + WORTH_BYTES:
            return found
        bases = bases_for(member.role, member.path, member.digest, held, newest, self._members)
        for digest, bundle, devices in bases:
            file = self._base(digest, bundle)
            if file is not None:
                found.append((file, devices))
        return found

    def _members(self, bundle: Digest) -> tuple[Member, ...]:
        return tuple(member for variant in self._variants(bundle) for member in variant.members)

    def _variants(self, bundle: Digest) -> tuple[Variant, ...]:
        """None of a bundle that nobody knows any more."""
        try:
            index = self._library.index(bundle)
            return tuple(self._library.variant(each.digest) for each in index.variants)
        except (KeyError, OutriderError):
            return ()

    def _base(self, digest: Digest, bundle: Digest) -> File | None:
        """None if it is not here any more."""
        for variant in self._variants(bundle):
            for member in variant.members:
                if member.digest == digest:
                    try:
                        return self._file(member, variant)
                    except KeyError:
                        return None
        return None

    def _file(self, member: Member, variant: Variant) -> File:
        """Raises `KeyError`."""
        path = self._blobs.path(member.digest)
        if member.role != "weights":
            return File(path, member.digest, member.role)
        # Beside each other on a device, so the model calls the file by its name there.
        model = self._blobs.path(variant.member("model").digest)
        return File(path, member.digest, member.role, model, member.path)

    def _tried(self, model: ModelName, target: File, base: File | None) -> frozenset[Ability]:
        """Abilities for which it was made and is still here, or was not worth it."""
        digest = base.digest if base else None
        for each in self._store.payloads.of_file(model, target.digest):
            mine = each.entry.base == digest and not is_plain(each.entry)
            if mine and reopen(self._directory, each.entry.payload) is None:
                self._store.payloads.remove(model, target.digest, each.entry.payload)
                self._store.deltas.forget(model, target.digest, digest)
        tried = self._store.deltas.tried(model, target.digest, digest, RECIPE)
        return frozenset(Ability(*each) for each in tried)


class InBackground:
    """Starts an operation whenever something is due and none is at it: for a `Loop`. It ends early
    where others wait for it: what is left is due again."""

    def __init__(
        self,
        deltas: Deltas,
        store: Store,
        start: Callable[[str, Mapping[str, Any], Callable[[Tell], Mapping[str, Any]]], Operation],
        wake: Callable[[], None],
    ) -> None:
        """`start` is `Work.start`; `wake` has what was made offered at once."""
        self._deltas = deltas
        self._store = store
        self._start = start
        self._wake = wake
        self._operation = ""

    def step(self) -> None:
        running = self._store.operations.get(self._operation)
        if running is not None and running.state in ("queued", "running"):
            return
        due = self._deltas.due()
        if not due:
            return

        def task(tell: Tell) -> Mapping[str, Any]:
            made = self._deltas.make(due, tell, self._others_wait)
            self._wake()
            return {"made": made}

        about = {"models": sorted({each.model for each in due})}
        self._operation = self._start("encode", about, task).id

    def _others_wait(self) -> bool:
        return any(each.state == "queued" for each in self._store.operations.unfinished())


def abilities_of(store: Store, most: int | None = None) -> tuple[Ability, ...]:
    """What the devices of the fleet can decode, by how many can: those that have said so."""
    counts: Counter[int] = Counter()
    for features, devices in store.devices.abilities().items():
        counts[features | PLAIN_FEATURES] += devices
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return tuple(Ability(features) for features, _ in ranked[:most])


def travelling(
    store: Store, read: Callable[[Digest], bytes], bundle: Digest
) -> list[dict[str, Any]]:
    """What devices of the fleet would receive of a bundle, as JSON values, least bytes first:
    `{"base": "digits/v1" or null, "devices": 291, "bytes": 9100}`.

    Counts devices that have some version of the model; what one without any receives is always
    among it, with as many devices as there are. Raises `KeyError` or `OutriderError` if the bundle
    is not whole here.
    """
    library = Library(read)
    model = library.index(bundle).model
    kinds = abilities_of(store)
    known: dict[Digest, list[HintEntry]] = {}
    for each in store.payloads.of_model(model):
        known.setdefault(each.file, []).append(each.entry)
    offered = {file: chosen(entries, kinds) for file, entries in known.items()}
    mine = [d for d in store.devices.all() if d.state is not None and model in d.state.models]
    found = travel(bundle, library, offered, [having(each, model) for each in mine])
    received = [each for each in found.received if each.bytes_each]
    if all(each.base is not None for each in received):
        new = Having(features=kinds[0].features if kinds else PLAIN_FEATURES)
        full = travel(bundle, library, offered, [new]).received[0].bytes_each
        received.append(Received(None, 0, full))
    return [
        {
            "base": f"{model}/{version_of(store, each.base)}" if each.base else None,
            "devices": each.devices,
            "bytes": each.bytes_each,
        }
        for each in sorted(received, key=lambda each: (each.bytes_each, -each.devices))
    ]


class _Stopped(Exception):
    """The control plane ends."""


class _Progress:
    """Of many files as one, in kB; told now and then."""

    def __init__(self, tell: Tell, total: int) -> None:
        self._tell = tell
        self._total = total
        self._done = 0
        self._told = -1

    def within(self, size: int, done: int, total: int) -> None:
        self._say(self._done + size * done // max(1, total))

    def over(self, size: int) -> None:
        self._done += size
        self._say(self._done)

    def _say(self, done: int) -> None:
        step = _STEPS * done // max(1, self._total)
        if step > self._told:
            self._told = step
            self._tell(kilobytes(done), kilobytes(self._total), "kB")


def kilobytes(size: int) -> int:
    """Of bytes, rounded up."""
    return -(-size // 1000)


def _ordered(due: Iterable[Due]) -> tuple[Due, ...]:
    """Without a base first: deltas are compared with it. Then what serves most devices."""
    return tuple(sorted(due, key=lambda each: (each.base is not None, -each.devices)))


def _below(entries: Iterable[HintEntry], abilities: Iterable[Ability]) -> int:
    """What these devices receive without a base, at most."""
    full = [each for each in entries if each.base is None]
    return max(
        min(e.size for e in full if ability.grants(e.features, e.decode_memory))
        for ability in abilities
    )


def _patching(abilities: frozenset[Ability]) -> frozenset[Ability]:
    """Files without numbers are only ever patched."""
    return frozenset(each for each in abilities if each.features & FEATURE_PATCH)

"""How many bytes a rollout will move: published once, and received by each device.

Devices fetch the index, one manifest, and those files that no bundle on their disk has; of the
payloads of a file they take the smallest that they can decode and whose base they have. What MQTT
and TLS add is not counted. A file that is not encoded yet counts with its own size, which no
payload is larger than.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from protocol.bundle import Facts, Index, Member, Variant, decode_index, decode_manifest
from protocol.errors import OutriderError
from protocol.identifiers import Digest
from protocol.payload import MAX_DECODE_MEMORY, PLAIN_FEATURES, HintEntry

Read = Callable[[Digest], bytes]
"""The stored index or manifest. Raises `KeyError`."""


@dataclass(frozen=True, slots=True)
class Having:
    """One device: what it is, which bundles are on its disk, and which of them it runs."""

    facts: Facts = Facts()
    bundles: frozenset[Digest] = frozenset()
    runs: Digest | None = None
    features: int = PLAIN_FEATURES
    """What payloads it can decode."""


@dataclass(frozen=True, slots=True)
class Received:
    """`devices` receive `bytes_each`. `base`: the bundle that makes it less than everything."""

    base: Digest | None
    devices: int
    bytes_each: int


@dataclass(frozen=True, slots=True)
class Carried:
    """One payload and how many devices fetch it. `payload` None: the file is not encoded yet."""

    file: Digest
    payload: Digest | None
    base: Digest | None
    size_bytes: int
    devices: int


@dataclass(frozen=True, slots=True)
class Travel:
    published_bytes: int
    """What the broker holds of the bundle, for any number of devices."""
    received: tuple[Received, ...]
    """Most devices first."""
    payloads: tuple[Carried, ...]
    estimated: bool
    """Whether something is not encoded yet, so that less will travel."""

    @property
    def received_bytes(self) -> int:
        return sum(each.devices * each.bytes_each for each in self.received)


class Library:
    """What is inside of bundles, read when it is asked for and then remembered."""

    def __init__(self, read: Read) -> None:
        self.read = cache(read)
        self._indexes: dict[Digest, Index] = {}
        self._variants: dict[Digest, Variant] = {}

    def index(self, bundle: Digest) -> Index:
        """Raises `KeyError` or `OutriderError`."""
        if bundle not in self._indexes:
            self._indexes[bundle] = decode_index(self.read(bundle))
        return self._indexes[bundle]

    def variant(self, manifest: Digest) -> Variant:
        """Raises `KeyError` or `OutriderError`."""
        if manifest not in self._variants:
            self._variants[manifest] = decode_manifest(self.read(manifest))
        return self._variants[manifest]

    def choice(self, bundle: Digest, facts: Facts) -> Digest:
        """The manifest that a device with these facts fetches; of one that has not said what it
        is, or that none suits, the first. Raises `KeyError` or `OutriderError`."""
        index = self.index(bundle)
        return (index.choose(facts) or index.variants[0]).digest

    def held(self, bundle: Digest, facts: Facts) -> Digest | None:
        """The manifest of a bundle on a device; None if nobody knows the bundle any more."""
        try:
            return self.choice(bundle, facts)
        except (KeyError, OutriderError):
            return None

    def files(self, manifest: Digest) -> frozenset[Digest]:
        return frozenset(member.digest for member in self.variant(manifest).members)


Offered = Mapping[Digest, Sequence[HintEntry]]
"""Per file its payloads, in the order of the hint: smallest first."""


def travel(bundle: Digest, library: Library, offered: Offered, devices: Iterable[Having]) -> Travel:
    """Raises `KeyError` or `OutriderError` if the bundle itself cannot be read."""
    alike = Counter(
        (
            library.choice(bundle, each.facts),
            frozenset(library.held(held, each.facts) for held in each.bundles),
            each.runs,
            each.features,
            bundle in each.bundles,
        )
        for each in devices
    )
    rows: Counter[tuple[Digest | None, int]] = Counter()
    fetched: Counter[_Way] = Counter()
    for (manifest, manifests, runs, features, there), count in alike.items():
        if there:
            rows[runs, 0] += count
            continue
        held = frozenset[Digest]().union(*(library.files(m) for m in manifests if m is not None))
        overhead = len(library.read(bundle)) + len(library.read(manifest))
        members = _distinct(library.variant(manifest))
        ways = _ways(members, offered, held, features)
        everything = _ways(members, offered, frozenset(), features)
        size = overhead + sum(way[2] for way in ways)
        less = size < overhead + sum(way[2] for way in everything)
        rows[runs if less else None, size] += count
        for way in ways:
            fetched[way] += count
    return Travel(
        _published(bundle, library, offered),
        tuple(
            Received(base, count, size)
            for (base, size), count in sorted(
                rows.items(), key=lambda row: (-row[1], row[0][1], row[0][0] or "")
            )
        ),
        tuple(
            Carried(file, entry.payload if entry else None, entry.base if entry else None, size, n)
            for (file, entry, size), n in sorted(
                fetched.items(), key=lambda row: (-row[0][2], row[0][0], row[1])
            )
        ),
        any(entry is None for _, entry, _ in fetched),
    )


_Way = tuple[Digest, HintEntry | None, int]
"""A file, the payload by which it comes, and bytes."""


def _ways(
    members: Iterable[Member], offered: Offered, held: frozenset[Digest], features: int
) -> list[_Way]:
    """For each file that the device does not have."""
    return [_way(each, offered, held, features) for each in members if each.digest not in held]


def _way(member: Member, offered: Offered, held: frozenset[Digest], features: int) -> _Way:
    for entry in offered.get(member.digest, ()):
        if (
            entry.usable(member.size, features)
            and entry.decode_memory <= MAX_DECODE_MEMORY
            and (entry.base is None or entry.base in held)
        ):
            return member.digest, entry, entry.size
    return member.digest, None, member.size


def _distinct(variant: Variant) -> Sequence[Member]:
    return tuple({member.digest: member for member in variant.members}.values())


def _published(bundle: Digest, library: Library, offered: Offered) -> int:
    index = library.index(bundle)
    manifests = sum(each.size for each in index.variants)
    files = {
        member.digest: member
        for each in index.variants
        for member in library.variant(each.digest).members
    }
    payloads = {entry.payload: entry.size for file in files for entry in offered.get(file, ())}
    rest = sum(each.size for each in files.values() if not offered.get(each.digest))
    return len(library.read(bundle)) + manifests + sum(payloads.values()) + rest

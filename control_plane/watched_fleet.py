"""What there is to watch in a fleet: the variants that devices serve, cohorts, and the budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.drift.budget import Terms, terms
from control_plane.store import Store
from control_plane.store.devices import Device
from protocol.errors import OutriderError
from protocol.identifiers import DeviceId, Digest, ModelName, Version
from protocol.members import Profile, member_document

YEAR_S: Final = 365.25 * 86_400
_KEPT: Final = 16

ProfileOf = Callable[[Digest], Profile | None]
"""Of the digest of a reference profile."""


class Profiles:
    """Reference profiles by their digests; the last few are kept. For any thread."""

    def __init__(self, read: Callable[[Digest], bytes], most: int = _KEPT) -> None:
        self._read = read
        self._most = most
        self._kept: OrderedDict[Digest, Profile] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, digest: Digest) -> Profile | None:
        """None where it is not there, or needs a newer version of Outrider to be read."""
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return self._kept[digest]
        try:
            found = member_document(self._read(digest), Profile)
        except (KeyError, OutriderError):
            return None
        with self._lock:
            self._kept[digest] = found
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found


@dataclass(frozen=True, slots=True)
class Group:
    """Devices whose windows can be compared: those of one variant with one reference profile."""

    model: ModelName
    version: Version
    bundle: Digest
    manifest: Digest
    digest: Digest
    """Of the profile."""
    profile: Profile

    @property
    def name(self) -> str:
        """As in the names of streams: short, and the same for all windows that merge."""
        return f"{self.manifest[7:23]}/{self.digest[7:23]}"


@dataclass(frozen=True, slots=True)
class Cohort:
    name: str
    """ "site=b"; "not site" for devices without the label; "all" without one."""
    value: str | None
    devices: frozenset[DeviceId]


def groups(store: Store, profile_of: ProfileOf) -> tuple[Group, ...]:
    """Of every bundle that a device serves, newest bundle first where two share a variant."""
    found: dict[tuple[Digest, Digest], Group] = {}
    served = [store.bundles.get(digest) for digest in store.drift.serving()]
    bundles = [bundle for bundle in served if bundle is not None]
    for bundle in sorted(bundles, key=lambda each: (-each.pushed_ms, each.digest)):
        for each in bundle.manifests:
            profile = profile_of(each.profile)
            if profile is not None and profile.streams:
                found.setdefault(
                    (each.digest, each.profile),
                    Group(
                        bundle.model,
                        bundle.version,
                        bundle.digest,
                        each.digest,
                        each.profile,
                        profile,
                    ),
                )
    return tuple(found.values())


def cohorts(devices: Iterable[Device], by: str | None) -> dict[str, Cohort]:
    """By name. Every device is in exactly one."""
    named: dict[tuple[str, str | None], set[DeviceId]] = {}
    for device in devices:
        value = device.selectable.get(by) if by else None
        name = "all" if by is None else f"not {by}" if value is None else f"{by}={value}"
        named.setdefault((name, value), set()).add(device.id)
    return {
        name: Cohort(name, value, frozenset(members))
        for (name, value), members in sorted(named.items(), key=lambda each: each[0][0])
    }


def fleet_terms(
    store: Store, profile_of: ProfileOf, now_ms: int, *, slot_s: float, day_s: float
) -> Terms:
    """The thresholds that follow from the budget, for what devices serve now.

    A device watches the streams of each bundle that it serves; of a bundle with several variants
    the largest profile counts. Each version of a model that was pushed in the last year has started
    the detectors of its devices anew.
    """
    streams: dict[ModelName, int] = {}
    for digest, devices in store.drift.serving().items():
        bundle = store.bundles.get(digest)
        profiles = [profile_of(each.profile) for each in bundle.manifests] if bundle else []
        widest = max((profile.streams for profile in profiles if profile is not None), default=0)
        if bundle is not None:
            streams[bundle.model] = streams.get(bundle.model, 0) + devices * widest
    pushed: Mapping[ModelName, int] = store.drift.pushed(now_ms - round(YEAR_S * 1000))
    return terms(
        store.drift.terms().per_year,
        streams=sum(streams.values()),
        starts=sum(n * max(1, pushed.get(model, 0)) for model, n in streams.items()),
        slots_per_year=YEAR_S / slot_s,
        days_per_year=YEAR_S / day_s,
    )

"""A fleet whose windows are in a store, as its agents would have sent them, hour after hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from control_plane.drift.budget import Terms
from control_plane.store import Store
from control_plane.store.bundles import BundleRow, ManifestRow
from control_plane.store.drift_rows import DriftRow
from control_plane.watched_fleet import fleet_terms
from control_plane.watching import Watch
from protocol import edetector
from protocol.codec import encode
from protocol.identifiers import DeviceId, digest_of
from protocol.members import Feature, Profile
from protocol.reported import ModelState, ReportedState
from protocol.telemetry import FINAL, DriftWindow, Record, stream_name

HOUR_MS = 3_600_000
START_MS = 500_000 * HOUR_MS - 500_000 * HOUR_MS % (24 * HOUR_MS)
"""Midnight."""
EDGES = tuple(np.linspace(-2, 2, 9).tolist())
NAMES = ("temperature", "pressure", "flow")
REFERENCE = 20_000


def counted(values: NDArray[np.float64]) -> tuple[int, ...]:
    slots = np.searchsorted([*EDGES, np.inf, np.nan], values, side="right")
    return tuple(np.bincount(slots, minlength=len(EDGES) + 3).tolist())


def reference() -> Profile:
    rng = np.random.default_rng(1)
    return Profile(
        REFERENCE,
        tuple(Feature(name, EDGES, counted(rng.normal(size=REFERENCE))) for name in NAMES),
    )


@dataclass
class WatchedFleet:
    """`hour()` lets every device count for an hour; `settle()` lets the watch do all it has to."""

    store: Store
    many: int = 16
    rows: int = 200
    seed: int = 5
    sites: int = 1
    offset: float = 0.05
    """Standard deviation of what every device differs by for good."""
    shifted: dict[str, Sequence[float]] = field(default_factory=dict)
    """Per local name by how much each feature is off now."""
    silent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.clock = [START_MS]
        self.profile = reference()
        self.manifest, self.digest = digest_of(b"manifest"), digest_of(b"profile")
        self.known: Mapping[str, Profile] = {self.digest: self.profile}
        self.bundle = self.push("v1")
        self.rng = np.random.default_rng(self.seed)
        self.names = [f"cam-{n}" for n in range(self.many)]
        for number, name in enumerate(self.names):
            labels = {"site": "abcdef"[number % self.sites]}
            self.store.devices.enrol(self.id(name), labels, None, START_MS)
            self.serve(name, self.bundle)
        self.usual = self.rng.normal(scale=self.offset, size=(self.many, len(NAMES)))
        self.bets = edetector.all_bets(self.profile)
        self.states: dict[str, edetector.DetectorState] = {}
        self.windows = dict.fromkeys(self.names, 0)
        self.watch = self.another_watch()
        self.settle()

    def another_watch(self) -> Watch:
        """As after a restart of the control plane."""
        return Watch(
            self.store, self.known.get, lambda: self.clock[0], slot_s=3600.0, day_s=86_400.0
        )

    def terms(self) -> Terms:
        """The thresholds that hold now."""
        return fleet_terms(self.store, self.known.get, self.clock[0], slot_s=3600.0, day_s=86_400.0)

    def push(self, version: str, *, same: bool = False) -> str:
        """`same`: its only variant is that of v1."""
        digest = digest_of(version.encode())
        other = (
            self.manifest if same or version == "v1" else digest_of(b"other " + version.encode())
        )
        variants = (ManifestRow(other, self.digest),)
        row = BundleRow(digest, "digits", version, 1, self.clock[0], manifests=variants)
        self.store.bundles.put(row)
        return digest

    def id(self, name: str) -> DeviceId:
        return f"north-{name}"

    def serve(self, name: str, bundle: str) -> None:
        device = self.store.devices.need(self.id(name))
        state = ReportedState(
            device.state_order + 2, "0.1", models={"digits": ModelState(serving=bundle)}
        )
        self.store.devices.put_state(self.id(name), state, self.clock[0])

    # --- time -----------------------------------------------------------------------------------

    def hour(self, hours: int = 1, *, settle: bool = True) -> None:
        for _ in range(hours):
            began = self.clock[0]
            self.clock[0] += HOUR_MS
            for name in self.names:
                if name not in self.silent:
                    self.count(name, began)
            if settle:
                self.settle()

    def count(self, name: str, began_ms: int, length_ms: int = HOUR_MS) -> None:
        """One window of a device, with the evidence of its own detectors."""
        number = self.names.index(name)
        shift = np.asarray(self.shifted.get(name, (0, 0, 0)), float) + self.usual[number]
        counts = tuple(counted(self.rng.normal(s, size=self.rows)) for s in shift)
        stepped = edetector.step(
            self.bets, self.states.get(name, edetector.DetectorState()), counts
        )
        self.states[name] = stepped.state
        window = DriftWindow(
            self.manifest,
            self.digest,
            self.rows,
            counts,
            looks=stepped.state.t,
            evidence=edetector.evidence(stepped.ln_e),
        )
        self.send(name, window, began_ms, began_ms + length_ms)

    def send(self, name: str, window: DriftWindow, t0_ms: int, t1_ms: int) -> None:
        number = self.windows[name]
        self.windows[name] += 1
        stream = stream_name("drift", self.manifest, self.digest)
        record = Record(7, stream, number, number, window.rows, {}, FINAL, t0_ms, t1_ms)
        self.store.records.ingest(self.id(name), [(record, encode(window).decode())])

    def settle(self, most: int = 500) -> None:
        """Step by step until there is nothing more to do."""
        for _ in range(most):
            if self.watch.step() is None:
                return
        raise AssertionError("the watch never came to an end")

    # --- what came of it ------------------------------------------------------------------------

    @property
    def alarms(self) -> list[tuple[str, str, str]]:
        """`(verdict, subject, state)`, the oldest first."""
        every = (*self.store.alarms.open(), *self.store.alarms.resolved_since(0))
        return [
            (each.verdict, each.subject, each.state)
            for each in sorted(every, key=lambda alarm: alarm.number)
        ]

    def newest(self, name: str) -> DriftRow:
        """The last window of a device."""
        return list(self.store.drift.of_device(self.id(name), self.manifest, self.digest))[-1]

    def events(self) -> list[str]:
        return [each.type for each in self.store.events.after(0, ["alarms"])]

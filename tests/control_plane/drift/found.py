"""Windows of a small fleet, and the records of what is found in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from control_plane.drift.budget import Terms
from control_plane.drift.measuring import Family, Measured, measure
from control_plane.drift.record import About, made, rule_of
from control_plane.drift.windows import Query
from control_plane.drift.words import Kind
from protocol.identifiers import DeviceId
from protocol.members import Feature, Profile
from protocol.telemetry import DriftWindow

HOUR_MS = 3_600_000
MANIFEST = "sha256-" + "a" * 64
PROFILE = "sha256-" + "b" * 64
BUNDLE = "sha256-" + "c" * 64
EDGES = tuple(np.linspace(-2, 2, 9).tolist())
NAMES = ("temperature", "pressure", "flow")
TERMS = Terms(1.0, streams=3000, starts=6000, slots_per_year=8766, days_per_year=365.25)


@dataclass(frozen=True)
class Kept:
    """A stored window, as `DriftRow`."""

    device: DeviceId
    epoch: int
    lo: int
    hi: int
    t0_ms: int
    t1_ms: int
    n: int
    c: int
    body: DriftWindow


def slots(values: npt.NDArray[np.float64]) -> tuple[int, ...]:
    found = np.searchsorted([*EDGES, np.inf, np.nan], values, side="right")
    return tuple(np.bincount(found, minlength=len(EDGES) + 3).tolist())


def a_profile(rows: int = 20_000, seed: int = 1) -> Profile:
    rng = np.random.default_rng(seed)
    return Profile(
        rows, tuple(Feature(name, EDGES, slots(rng.normal(size=rows))) for name in NAMES)
    )


def windows(
    devices: Mapping[DeviceId, Sequence[float]],
    *,
    hours: int = 3,
    rows: int = 200,
    seed: int = 2,
    first: int = 0,
    offset: float = 0.1,
) -> list[Kept]:
    """One window per hour and device. `devices`: by how much each of its features is shifted.

    `offset`: standard deviation of what every device differs by for good.
    """
    rng = np.random.default_rng(seed)
    found: list[Kept] = []
    for number, (device, shift) in enumerate(devices.items()):
        usual = rng.normal(scale=offset, size=len(NAMES))
        for hour in range(first, first + hours):
            counts = tuple(
                slots(rng.normal(s + u, size=rows)) for s, u in zip(shift, usual, strict=True)
            )
            body = DriftWindow(MANIFEST, PROFILE, rows, counts, looks=hour - first + 1)
            t0 = hour * HOUR_MS + number
            found.append(Kept(device, 7, hour, hour, t0, t0 + HOUR_MS, rows, 10 + len(found), body))
    return found


def fleet(many: int, **shifted: Sequence[float]) -> dict[DeviceId, Sequence[float]]:
    """Devices north-cam-0 …; `cam_3=(2, 0, 0)` shifts one of them."""
    names = [f"north-cam-{n}" for n in range(many)]
    return {
        name: shifted.get(name.removeprefix("north-").replace("-", "_"), (0, 0, 0))
        for name in names
    }


def a_record(
    kind: Kind,
    subject: str,
    rows: Iterable[Kept],
    profile: Profile,
    *,
    hours: int = 3,
    family: Family | None = None,
    by_detectors: bool = False,
    **asked: Any,
) -> tuple[dict[str, Any], Measured]:
    rule = rule_of(kind, subject, TERMS, by_detectors=by_detectors, family=family)
    query = replace(Query(0, (hours + 1) * HOUR_MS, 1_000_000, HOUR_MS), **asked)
    measured = measure(rule, query, profile, rows)
    about = About(
        kind, "digits", "v2", BUNDLE, MANIFEST, PROFILE, subject, "sensor broken",
        f"something about {subject}", 1_700_000_000_000,
    )  # fmt: skip
    return made(about, rule, TERMS, query, measured), measured

"""The statistic of one finding, computed from stored windows: when it is found, and ever after.

Three ways, told by the unit of the threshold:

    ln e    the e-detectors of a device, run again over its windows in their order
    p       one device against its peers, in the last three slots of time in which it was judged
    q       the devices of a cohort against the reference, or one half of them against the other
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Final, Literal

from control_plane.drift import heterogeneity, peers, robust, verdicts
from control_plane.drift.distance import corrected_psi
from control_plane.drift.findings import FoundFeature
from control_plane.drift.windows import (
    Query,
    Row,
    Table,
    added,
    by_device,
    by_slot,
    counts_of,
    placed,
    streams_of,
    total,
)
from control_plane.drift.words import Kind
from protocol import edetector
from protocol.histogram import Counts
from protocol.identifiers import DeviceId, Digest
from protocol.members import Feature, Profile

Unit = Literal["ln e", "p", "q"]

MOST_FEATURES: Final = 8
MOST_NAMED: Final = 50
LAST_WINDOWS: Final = 24
"""Of a device: what its effect size, and the picture of a detector, are of."""
LAST_SLOTS: Final = 3
_EVERY: Final = 2.0
"""A p that is never reached: all comparisons are asked for."""


@dataclass(frozen=True, slots=True)
class Family:
    """The family of a day's tests: `cut` is the largest p that was called, `q` its level."""

    cut: float
    tests: int
    q: float


@dataclass(frozen=True, slots=True)
class Rule:
    """By what is measured. `family` only of cohorts that are called by a test."""

    kind: Kind
    subject: str
    unit: Unit
    threshold: float
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Point:
    at_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class Shown:
    """Counts of one stream, of the subject and of what it is compared with."""

    index: int
    name: str
    counts: Counts
    against: Counts
    what: str
    """The other side in words: "reference", "61 peers"."""


@dataclass(frozen=True, slots=True)
class Measured:
    statistic: dict[str, Any]
    windows: int
    devices: int
    rows: int
    counts: Digest
    """Of the windows, see `counts_of`."""
    beyond: bool
    """Whether the statistic is beyond the threshold of its rule."""
    course: tuple[Point, ...] = ()
    """Of the foremost feature: ln e per window, p per slot, or PSI of the cohort per slot."""
    shown: tuple[Shown, ...] = ()


def measure(rule: Rule, query: Query, profile: Profile, rows: Iterable[Row]) -> Measured:
    """`rows` may be more than asked for; those of other bins than the profile's are left out."""
    if rule.kind == "detector":
        query = replace(query, devices=(rule.subject,))
    kept = placed(query, profile, rows)
    if rule.unit == "ln e":
        statistic, beyond, course, shown = _detectors(rule, profile, kept)
    elif rule.unit == "p":
        statistic, beyond, course, shown = _peers(rule, query, profile, kept)
    else:
        statistic, beyond, course, shown = _cohort(rule, query, profile, kept)
    return Measured(
        statistic,
        len(kept),
        len({row.device for row in kept}),
        sum(row.n for row in kept),
        counts_of(kept),
        beyond,
        course,
        shown,
    )


def features_of(rule: Rule, statistic: Mapping[str, Any]) -> tuple[FoundFeature, ...]:
    """The features beyond the threshold of the rule, the clearest first, each once."""
    found = []
    for each in _listed(statistic):
        if rule.unit == "ln e" and each["ln_e"] >= rule.threshold:
            found.append(FoundFeature(each["index"], each["name"], each["ln_e"], each["psi"], ""))
        elif rule.unit == "p" and each["p"] < rule.threshold:
            found.append(FoundFeature(each["index"], each["name"], each["p"], each["psi"], ""))
        elif rule.unit == "q" and rule.family is not None and called(each, rule.family):
            what = each["drifted"] if rule.kind == "part" else each["score"]
            found.append(FoundFeature(each["index"], each["name"], each["p"], each["psi"], what))
    found.sort(key=lambda each: -each.value if rule.unit == "ln e" else each.value)
    once = {each.index: each for each in reversed(found)}
    return tuple(each for each in found if once[each.index] is each)


def _listed(statistic: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "slots" in statistic:
        return [feature for slot in statistic["slots"] for feature in slot["features"]]
    return list(statistic.get("devices", statistic.get("features", ())))


_Found = tuple[dict[str, Any], bool, tuple[Point, ...], tuple[Shown, ...]]


# --- detectors -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    """The detectors of one device, run again. `top`: its streams, most evidence first."""

    device: DeviceId
    rows: Sequence[Row]
    course: Sequence[Sequence[float]]
    """ln e per window and stream."""
    last: edetector.DetectorState
    top: Sequence[int]

    @property
    def ln_e(self) -> float:
        return self.course[-1][self.top[0]] if self.top else float("-inf")


def _detectors(rule: Rule, profile: Profile, rows: Sequence[Row]) -> _Found:
    heard: dict[DeviceId, list[Row]] = defaultdict(list)
    for row in rows:
        heard[row.device].append(row)
    runs = [_run(profile, device, mine) for device, mine in sorted(heard.items())]
    first = max(runs, key=lambda run: run.ln_e, default=None)
    if rule.kind == "detector":
        features = _features(profile, first) if first else []
        statistic: dict[str, Any] = {"features": features}
        beyond = any(each["ln_e"] >= rule.threshold for each in features)
    else:
        said = [
            {"device": run.device, **feature}
            for run in runs
            for feature in _features(profile, run)[:1]
        ]
        statistic = {"devices": said}
        fired = sum(each["ln_e"] >= rule.threshold for each in said)
        beyond = verdicts.of_detectors(fired, len(runs)) is not None
    if first is None or not first.top:
        return statistic, beyond, (), ()
    course = tuple(
        Point(row.t1_ms, ln_e[first.top[0]])
        for row, ln_e in zip(first.rows, first.course, strict=True)
        if isfinite(ln_e[first.top[0]])
    )
    lately = added(profile, first.rows[-LAST_WINDOWS:])
    shown = tuple(
        Shown(
            index,
            profile.stream(index).name,
            lately[index],
            profile.stream(index).counts,
            "reference",
        )
        for index in first.top
    )
    return statistic, beyond, course, shown


def _run(profile: Profile, device: DeviceId, rows: Sequence[Row]) -> _Run:
    """From the last window with which the device's detectors began anew."""
    starts = [number for number, row in enumerate(rows) if row.body.looks == 1]
    since = rows[starts[-1] if starts else 0 :]
    taken = [row for row in since if edetector.histograms(row.body, profile) is not None]
    course, last = [], edetector.DetectorState()
    for stepped in edetector.run(profile, (row.body for row in taken)):
        # A state has thousands of numbers: of all but the last one, only what they came to.
        course.append(stepped.ln_e)
        last = stepped.state
    newest = course[-1] if course else ()
    order = sorted((-value, index) for index, value in enumerate(newest) if isfinite(value))
    top = [index for value, index in order if -value >= edetector.SENT_FROM]
    top = top[:MOST_FEATURES] or [index for _, index in order[:1]]
    return _Run(device, taken, course, last, top)


def _features(profile: Profile, run: _Run) -> list[dict[str, Any]]:
    lately = added(profile, run.rows[-LAST_WINDOWS:])
    found = []
    for index in run.top:
        stream = run.last.streams[index]
        feature = profile.stream(index)
        found.append(
            {
                "index": index,
                "name": feature.name,
                "ln_e": run.course[-1][index],
                "psi": corrected_psi(lately[index], feature.counts),
                "t": run.last.t,
                "exponent": edetector.exponent(stream),
                "vif": stream.vif,
            }
        )
    return found


# --- peers ---------------------------------------------------------------------------------------


def _peers(rule: Rule, query: Query, profile: Profile, rows: Sequence[Row]) -> _Found:
    streams = streams_of(profile)
    slots = by_slot(profile, query, rows)
    judged: list[int] = []
    least: dict[int, float] = {}
    for slot in sorted(slots, reverse=True):
        if rule.subject not in slots[slot] or len(judged) == LAST_SLOTS:
            continue
        compared = peers.compare(streams, slots[slot])
        if rule.subject not in compared.judged:
            continue
        judged.insert(0, slot)
        for peer in compared.found:
            if peer.device == rule.subject:
                least[peer.index] = min(peer.p, least.get(peer.index, 1.0))
    chosen = sorted(least, key=lambda index: (least[index], index))[:MOST_FEATURES]
    told = []
    hits: dict[int, list[bool]] = defaultdict(list)
    course = []
    few = set()
    for slot in judged:
        tables = {d: tuple(table[i] for i in chosen) for d, table in slots[slot].items()}
        compared = peers.compare([streams[index] for index in chosen], tables, _EVERY)
        features = []
        for peer in sorted(compared.found, key=lambda each: each.index):
            if peer.device != rule.subject:
                continue
            index, scale = chosen[peer.index], compared.scales[peer.index]
            hits[index].append(peer.p < rule.threshold)
            if scale.devices < peers.FITTED_FROM:
                few.add(index)
            if index == chosen[0]:
                course.append(Point((slot + 1) * query.slot_ms, peer.p))
            if peer.p < rule.threshold:
                features.append(_peer(peer, scale, index, streams[index].name))
        told.append({"slot": slot, "features": features})
    beyond = any(peers.broken(each, few=index in few) for index, each in hits.items())
    others = len({device for slot in judged for device in slots[slot]} - {rule.subject})
    shown = tuple(
        Shown(
            index,
            streams[index].name,
            total(slots[slot][rule.subject][index] for slot in judged),
            total(
                table[index]
                for slot in judged
                for device, table in slots[slot].items()
                if device != rule.subject
            ),
            f"{others} peers",
        )
        for index in chosen
    )
    return {"slots": told}, beyond, tuple(course), shown


def _peer(peer: peers.Peer, scale: peers.Scale, index: int, name: str) -> dict[str, Any]:
    return {
        "index": index,
        "name": name,
        "p": peer.p,
        "psi": peer.psi,
        "statistic": peer.statistic,
        "df": scale.df,
        "g": scale.g,
        "nu": scale.nu,
        "devices": scale.devices,
        "rows": peer.rows,
    }


# --- cohorts -------------------------------------------------------------------------------------


def _cohort(rule: Rule, query: Query, profile: Profile, rows: Sequence[Row]) -> _Found:
    streams = streams_of(profile)
    days = by_device(profile, rows)
    devices = sorted(days)
    tables = [days[device] for device in devices]
    family = rule.family or Family(0.0, 0, rule.threshold)
    moved: dict[int, frozenset[DeviceId]] = {}
    if rule.kind == "part":
        found = heterogeneity.parts(streams, tables)
        moved = {each.index: frozenset(devices[n] for n in each.moved) for each in found}
        told = [_part(each, streams[each.index], moved[each.index], days) for each in found]
    else:
        told = [_tested(each, streams[each.index]) for each in robust.test(streams, tables)]
    told.sort(key=lambda each: (not called(each, family), each["p"], each["index"]))
    beyond = any(called(each, family) for each in told)
    told = told[:MOST_FEATURES]
    drawn = [each["index"] for each in told if called(each, family)]
    statistic = {"features": told, "cut": family.cut, "family": family.tests, "q": family.q}
    shown = []
    for index in drawn or [each["index"] for each in told[:1]]:
        mine = moved.get(index, frozenset(devices))
        against, what = streams[index].counts, "reference"
        if rule.kind == "part":
            against = total(days[device][index] for device in devices if device not in mine)
            what = f"the other {len(devices) - len(mine)} devices"
        counts = total(days[device][index] for device in devices if device in mine)
        shown.append(Shown(index, streams[index].name, counts, against, what))
    course = []
    first = told[0]["index"] if told else None
    for slot, then in sorted(by_slot(profile, query, rows).items()):
        if first is None:
            break
        counts = total(then[d][first] for d in then if d in moved.get(first, then))
        if sum(counts) >= robust.LEAST_ROWS:
            value = corrected_psi(counts, streams[first].counts)
            course.append(Point((slot + 1) * query.slot_ms, value))
    return statistic, beyond, tuple(course), tuple(shown)


def called(feature: Mapping[str, Any], family: Family) -> bool:
    """Whether a feature of a cohort's statistic is called: certain enough, and large enough."""
    return bool(feature["p"] <= family.cut and feature["psi"] > verdicts.LEAST_PSI)


def _tested(each: robust.CohortTest, feature: Feature) -> dict[str, Any]:
    return {
        "index": each.index,
        "name": feature.name,
        "p": each.p,
        "psi": each.psi,
        "score": each.score,
        "shift": each.shift,
        "devices": each.devices,
        "rows": each.rows,
    }


def _part(
    each: heterogeneity.Parts,
    feature: Feature,
    moved: frozenset[DeviceId],
    days: Mapping[DeviceId, Table],
) -> dict[str, Any]:
    """`psi`: of the devices that moved. Ten thousand names are no evidence: a few of them are."""
    counts = total(days[device][each.index] for device in sorted(moved))
    return {
        "index": each.index,
        "name": feature.name,
        "p": each.p,
        "psi": corrected_psi(counts, feature.counts),
        "gap": each.gap,
        "ratio": each.ratio,
        "low": len(each.low),
        "high": len(each.high),
        "drifted": each.drifted,
        "moved": sorted(moved)[:MOST_NAMED],
    }

"""What stored windows show: devices whose detectors fired, devices unlike their peers, cohorts.

Windows carry the evidence of a device's own detectors, which says where to look. What a finding
rests on is computed from stored counts, by the very functions that replay it, so a device's word
alone opens no alarm. Nothing is computed again for an alarm that already says the same.

Long because detectors, peers and cohorts look at the same windows, and at each other's alarms.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from control_plane.drift import heterogeneity, peers, robust, verdicts
from control_plane.drift.alarms import RESPITE_MS
from control_plane.drift.budget import Terms
from control_plane.drift.distance import corrected_psi
from control_plane.drift.family import called
from control_plane.drift.findings import Finding
from control_plane.drift.measuring import LAST_SLOTS, LAST_WINDOWS, Family, Rule, measure
from control_plane.drift.record import About, rule_of
from control_plane.drift.telling import again, found
from control_plane.drift.windows import (
    LONGEST,
    Query,
    Row,
    Table,
    by_device,
    placed,
    streams_of,
)
from control_plane.drift.words import Kind, Verdict
from control_plane.store import Store
from control_plane.store.drift_rows import DriftRow, Hit
from control_plane.watched_fleet import Cohort, Group
from protocol.identifiers import DeviceId

CALM: Final = 5.0
"""So far below its threshold (in ln e) a detector counts as quiet."""
LATELY_SLOTS: Final = 72
LATELY_WINDOWS: Final = 3
"""A device whose newest window is older than both reports nothing."""
MOST_ASKED: Final = 200
"""Devices that fired, and as many that did not, are compared with each other at one look."""
MOST_AT_ONCE: Final = 24
"""Devices of a cohort whose detectors are run again for one finding. What happens to more of them
is said by the test of the day."""

Test = tuple[str, str, Kind, int]
"""Of a day: group and cohort by their names, kind, index of the stream."""


@dataclass(frozen=True, slots=True)
class Found:
    findings: tuple[Finding, ...] = ()
    quiet: Mapping[str, int] = field(default_factory=dict)
    """Per key how many evaluations found nothing."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What came of comparing the devices of one slot."""

    number: int
    hits: Mapping[DeviceId, Collection[Hit]]
    """Of every device that was judged for the first time."""
    few: bool
    """Too few of them to fit how much devices differ."""


class Look:
    """One look at the store, at one time, by one set of thresholds."""

    def __init__(self, store: Store, terms: Terms, slot_ms: int, day_ms: int, now_ms: int) -> None:
        self._store = store
        self._rows = store.drift
        self._terms = terms
        self._slot_ms = slot_ms
        self._day_ms = day_ms
        self._now_ms = now_ms
        self._upto = store.drift.number()
        self._alarms = {each.key: each for each in store.alarms.open()}
        self._ended = {
            each.key: each.changed_ms for each in store.alarms.resolved_since(now_ms - RESPITE_MS)
        }
        self._slots: dict[tuple[str, DeviceId], tuple[int, tuple[Hit, ...]]] = {}

    # --- detectors ------------------------------------------------------------------------------

    def detectors(
        self, group: Group, new: Mapping[DeviceId, int], among: Iterable[Cohort]
    ) -> Found:
        """By the newest windows of a group's devices. `new`: per device how many have just come.

        Only those are told of, so that each window is one evaluation, whoever else sends. Where
        peers have found something, the next slot says how it goes on.
        """
        newest = {d: row for d, row in self._newest(group).items() if row.body.looks}
        fired = {device: streams for device, row in newest.items() if (streams := self._fired(row))}
        few = len(newest) < verdicts.COMPARABLE
        for device in list(fired):
            if self._outlying(group, device, few=few):
                del fired[device]
        apart = None if few else self._apart(group, fired, newest.keys())
        psi = {device: self._day_psi(group, device, fired[device]) for device in fired}
        moved = {
            device
            for device in fired
            if verdicts.of_device(
                fired=True,
                outlier=False,
                apart=None if apart is None else device in apart,
                psi=psi[device],
                cohort_called=False,
            )
        }
        least = verdicts.LEAST_PSI if few else verdicts.CLEAR_PSI
        far = {device for device in fired if psi[device] > least}
        findings, spoken_for = self._together(group, newest.keys(), fired.keys(), far, among)
        quiet: dict[str, int] = {}
        for device in new.keys() & newest.keys():
            known = self._alarms.get(device_key(group, device))
            if known is not None and known.kind != "detector":
                continue
            if device in moved - spoken_for:
                findings.extend(self._told(group, device, "device drifted"))
            elif known is not None and (device in spoken_for or self._calm(newest[device])):
                quiet[known.key] = new[device]
        return Found(tuple(findings), quiet)

    def _together(
        self,
        group: Group,
        reporting: Collection[DeviceId],
        fired: Collection[DeviceId],
        far: Collection[DeviceId],
        among: Iterable[Cohort],
    ) -> tuple[list[Finding], set[DeviceId]]:
        """Cohorts whose devices fired together, and the devices that a cohort speaks for.

        `far`: those of `fired` that are far enough from the reference to speak for it. Where peers
        can be compared, a device that fired with many others waits for them: first comes who is
        hit hardest, and all together are one fault.
        """
        findings: list[Finding] = []
        spoken_for: set[DeviceId] = set()
        for cohort in among:
            members = sorted(cohort.devices.intersection(reporting))
            loud, clear = ([d for d in members if d in of] for of in (fired, far))
            said = verdicts.of_detectors(len(loud), len(members)) if len(loud) > 1 else None
            enough = len(clear) > 1 and verdicts.of_detectors(len(clear), len(members)) is not None
            if cohort_key(group, cohort.name) in self._alarms:
                spoken_for.update(loud)
            if said is None:
                continue
            if enough and len(members) <= MOST_AT_ONCE:
                told = self._moved_together(group, cohort, said, members)
                findings.extend(told)
                spoken_for.update(clear if told else ())
            elif len(reporting) >= verdicts.COMPARABLE:
                spoken_for.update(loud)
        return findings, spoken_for

    # --- peers ----------------------------------------------------------------------------------

    def compare(self, group: Group, slot: int) -> Slot:
        """The devices of a slot with each other. Whoever was judged there is in the pool only."""
        streams, tables = streams_of(group.profile), self._tables_of_slot(group, slot)
        threshold = self._terms.peer_p
        compared = peers.compare(streams, tables, threshold)
        before = self._rows.judged_in(group.manifest, group.digest, slot)
        hits: dict[DeviceId, list[Hit]] = {
            device: [] for device in compared.judged if device not in before
        }
        for peer in compared.found:
            if peer.device in hits and peer.p < threshold:
                hits[peer.device].append(Hit(peer.index, peer.p))
        return Slot(slot, hits, few=len(compared.judged) < peers.FITTED_FROM)

    def compared(self, group: Group, slot: Slot) -> Found:
        """What a slot shows of its devices, with those before it."""
        self._slots.update(
            ((group.name, device), (slot.number, tuple(hits))) for device, hits in slot.hits.items()
        )
        findings: list[Finding] = []
        quiet: dict[str, int] = {}
        for device, hits in slot.hits.items():
            known = self._alarms.get(device_key(group, device))
            if not hits and known is None:
                # What stood out before has been told, or has been seen to since.
                continue
            if self._outlying(group, device, few=slot.few):
                findings.extend(self._told(group, device, "sensor broken"))
            elif known is not None and known.kind == "peer":
                quiet[known.key] = 1
        return Found(tuple(findings), quiet)

    def _outlying(self, group: Group, device: DeviceId, *, few: bool) -> frozenset[int]:
        """Streams in which a device stood out in enough of its own last slots."""
        last = self._judged(group, device)
        seen = [{hit.index for hit in hits} for _, hits in last]
        every = frozenset[int]().union(*seen)
        return frozenset(
            index for index in every if peers.broken([index in hits for hits in seen], few=few)
        )

    def _judged(self, group: Group, device: DeviceId) -> list[tuple[int, tuple[Hit, ...]]]:
        """The last slots in which a device was judged, one that is not stored yet among them."""
        known = dict(self._rows.judged(group.manifest, group.digest, device, LAST_SLOTS))
        now = self._slots.get((group.name, device))
        if now is not None:
            known.setdefault(*now)
        return sorted(known.items())[-LAST_SLOTS:]

    # --- cohorts --------------------------------------------------------------------------------

    def day(
        self, groups: Iterable[Group], among: Collection[Cohort], by: str | None, day: int
    ) -> Found:
        """Every cohort of every group against its reference, as one family of tests."""
        from_ms, to_ms = day * self._day_ms, (day + 1) * self._day_ms
        tests: dict[Test, float] = {}
        matters: set[Test] = set()
        judged: list[tuple[Group, Cohort, tuple[DeviceId, ...], tuple[DeviceId, ...]]] = []
        for group in groups:
            broken = self._broken(group)
            tables = by_device(group.profile, self._within(group, from_ms, to_ms))
            streams = streams_of(group.profile)
            for cohort in among:
                devices = tuple(sorted((cohort.devices & tables.keys()) - set(broken)))
                if not devices:
                    continue
                judged.append((group, cohort, devices, broken))
                mine = [tables[device] for device in devices]
                for test in robust.test(streams, mine):
                    if test.devices >= robust.LEAST_DEVICES:
                        name: Test = (group.name, cohort.name, "cohort", test.index)
                        tests[name] = test.p
                        matters.update([name] if test.psi > verdicts.LEAST_PSI else [])
                for part in heterogeneity.parts(streams, mine):
                    name = (group.name, cohort.name, "part", part.index)
                    tests[name] = part.p
                    matters.add(name)
        hits, cut = called(tests, self._terms.cohort_q)
        family = Family(cut, len(tests), self._terms.cohort_q)
        findings: list[Finding] = []
        quiet: dict[str, int] = {}
        for group, cohort, devices, broken in judged:
            mine_of = (group.name, cohort.name)
            kinds = {kind for *of, kind, _ in hits & matters if tuple(of) == mine_of}
            if kinds:
                asked = Query(
                    from_ms,
                    to_ms,
                    self._upto,
                    self._slot_ms,
                    by,
                    cohort.value,
                    devices,
                    broken,
                )
                kind: Kind = "part" if "part" in kinds else "cohort"
                findings.extend(self._day_told(group, cohort, kind, asked, family))
            elif cohort_key(group, cohort.name) in self._alarms:
                tested = any((g, c) == mine_of for g, c, *_ in tests)
                if tested or self._detectors_calm(group, cohort):
                    quiet[cohort_key(group, cohort.name)] = 1
        return Found(tuple(findings), quiet)

    def _detectors_calm(self, group: Group, cohort: Cohort) -> bool:
        """What ends the alarm of a cohort that is too small to be tested."""
        newest = self._newest(group)
        mine = [row for device, row in newest.items() if device in cohort.devices]
        return bool(mine) and all(self._calm(row) for row in mine)

    def _broken(self, group: Group) -> tuple[DeviceId, ...]:
        """Devices of a group with an alarm of a broken sensor."""
        return tuple(
            sorted(
                alarm.subject
                for alarm in self._alarms.values()
                if alarm.verdict == "sensor broken"
                and (alarm.model, alarm.profile) == (group.model, group.digest)
            )
        )

    # --- findings -------------------------------------------------------------------------------

    def _told(self, group: Group, device: DeviceId, said: Verdict) -> list[Finding]:
        """That a device has drifted, or that its sensor is broken; nothing if counts deny it."""
        known = self._alarms.get(device_key(group, device))
        if known is not None and known.verdict == said:
            return [again(known, self._now_ms)]
        kind: Kind = "peer" if said == "sensor broken" else "detector"
        rule = rule_of(kind, device, self._terms)
        if kind == "detector":
            rows: Sequence[Row] = list(
                self._rows.of_device(device, group.manifest, group.digest, self._upto)
            )
            asked = self._whole_time(rows, devices=(device,))
        else:
            last = self._judged(group, device)
            from_ms, to_ms = last[0][0] * self._slot_ms, (last[-1][0] + 1) * self._slot_ms
            rows = self._within(group, from_ms, to_ms)
            pool = tuple(sorted({row.device for row in rows}))
            asked = Query(from_ms, to_ms, self._upto, self._slot_ms, devices=pool)
        return self._measured(group, rule, said, asked, rows)

    def _moved_together(
        self, group: Group, cohort: Cohort, said: Verdict, devices: Sequence[DeviceId]
    ) -> list[Finding]:
        """That a cohort has drifted, by what the detectors of its devices say."""
        known = self._alarms.get(cohort_key(group, cohort.name))
        if known is not None and (known.verdict == said or said != "cohort drifted"):
            return [again(known, self._now_ms)]
        rule = rule_of("cohort", cohort.name, self._terms, by_detectors=True)
        rows = [
            row
            for device in devices
            for row in self._rows.of_device(device, group.manifest, group.digest, self._upto)
        ]
        by = self._rows.terms().by
        asked = self._whole_time(rows, by=by, value=cohort.value, devices=tuple(devices))
        return self._measured(group, rule, said, asked, rows)

    def _day_told(
        self, group: Group, cohort: Cohort, kind: Kind, asked: Query, family: Family
    ) -> list[Finding]:
        said: Verdict = "half of the cohort drifted" if kind == "part" else "cohort drifted"
        known = self._alarms.get(cohort_key(group, cohort.name))
        if known is not None and known.verdict == said:
            return [again(known, self._now_ms)]
        rule = rule_of(kind, cohort.name, self._terms, family=family)
        rows = self._within(group, asked.from_ms, asked.to_ms, asked.devices)
        return self._measured(group, rule, said, asked, rows)

    def _measured(
        self, group: Group, rule: Rule, said: Verdict, asked: Query, rows: Sequence[Row]
    ) -> list[Finding]:
        measured = measure(rule, asked, group.profile, rows)
        if not measured.beyond:
            return []
        about = About(
            rule.kind,
            group.model,
            group.version,
            group.bundle,
            group.manifest,
            group.digest,
            rule.subject,
            said,
            "",
            self._now_ms,
        )
        return [found(about, rule, self._terms, asked, measured)]

    def _whole_time(
        self,
        rows: Sequence[Row],
        *,
        devices: tuple[DeviceId, ...],
        by: str | None = None,
        value: str | None = None,
    ) -> Query:
        """As far as these windows reach: detectors have a memory."""
        from_ms = min((row.t0_ms for row in rows), default=0)
        to_ms = max((row.t1_ms for row in rows), default=0) + 1
        return Query(from_ms, to_ms, self._upto, self._slot_ms, by, value, devices)

    # --- windows --------------------------------------------------------------------------------

    def _fired(self, row: DriftRow) -> tuple[int, ...]:
        """Streams whose detectors have reached the threshold, by the window's own word."""
        threshold = self._terms.ln_threshold
        return tuple(index for index, tenths in row.body.evidence if tenths / 10 >= threshold)

    def _calm(self, row: DriftRow) -> bool:
        least = self._terms.ln_threshold - CALM
        return all(tenths / 10 < least for _, tenths in row.body.evidence)

    def _apart(
        self,
        group: Group,
        fired: Mapping[DeviceId, Collection[int]],
        reporting: Collection[DeviceId],
    ) -> frozenset[DeviceId]:
        """Of the devices that fired those that differ from their peers in a stream that fired, by
        their last windows together.

        At most `MOST_ASKED` of them are looked at, beside as many others: what befalls more is no
        fault of one device.
        """
        asked = sorted(fired)[:MOST_ASKED]
        others = sorted(set(reporting) - fired.keys())
        pool = others[:: max(1, len(others) // MOST_ASKED)][:MOST_ASKED] if asked else []
        tables = {device: self._lately(group, device) for device in (*asked, *pool)}
        known = {device: table for device, table in tables.items() if table}
        compared = peers.compare(streams_of(group.profile), known, verdicts.APART_P)
        return frozenset(
            peer.device for peer in compared.found if peer.index in fired.get(peer.device, ())
        )

    def _day_psi(self, group: Group, device: DeviceId, streams: Iterable[int]) -> float:
        """The largest of these streams, of the device's last windows against the reference."""
        merged = self._lately(group, device)
        known = streams_of(group.profile)
        return max(
            (
                corrected_psi(merged[index], known[index].counts)
                for index in streams
                if index < len(merged) and merged[index]
            ),
            default=0.0,
        )

    def _lately(self, group: Group, device: DeviceId) -> Table:
        """What a device's last windows come to; () without any.

        Evidence takes time to fall. So after an alarm of the device has ended, only what it has
        counted since then says that there is still something.
        """
        since_ms = self._ended.get(device_key(group, device), 0)
        last = self._rows.lately(device, group.manifest, group.digest, LAST_WINDOWS)
        rows = [row for row in last if row.t0_ms >= since_ms]
        fitting = placed(self._whole_time(rows, devices=(device,)), group.profile, rows)
        return by_device(group.profile, fitting).get(device, ())

    def _tables_of_slot(self, group: Group, slot: int) -> dict[DeviceId, Table]:
        from_ms = slot * self._slot_ms
        rows = self._within(group, from_ms, from_ms + self._slot_ms)
        short = LONGEST * self._slot_ms
        return by_device(group.profile, [row for row in rows if row.t1_ms - row.t0_ms <= short])

    def _newest(self, group: Group) -> dict[DeviceId, DriftRow]:
        """Per device that reports at all its newest window."""
        lately = max(LATELY_SLOTS * self._slot_ms, LATELY_WINDOWS * group.profile.window_s * 1000)
        return self._rows.newest(group.manifest, group.digest, self._now_ms - lately)

    def _within(
        self,
        group: Group,
        from_ms: int,
        to_ms: int,
        devices: Collection[DeviceId] | None = None,
    ) -> list[Row]:
        """Of this span, without windows of other bins than the profile's."""
        rows = self._rows.within(
            group.manifest, group.digest, from_ms, to_ms, upto=self._upto, devices=devices
        )
        return placed(Query(from_ms, to_ms, self._upto, self._slot_ms), group.profile, rows)


def device_key(group: Group, device: DeviceId) -> str:
    return f"device/{group.model}/{group.digest[7:23]}/{device}"


def cohort_key(group: Group, cohort: str) -> str:
    return f"cohort/{group.model}/{group.digest[7:23]}/{cohort}"

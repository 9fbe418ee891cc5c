"""The drift watch: new windows, slots of time that are over, and days, turned into alarms.

    windows     as they come: the evidence of the devices' own detectors
    a slot      when it is over and a grace with it: every device against its peers of that time;
                once more a day later, for devices that brought theirs late
    a day       when it is over: every cohort against the reference, its windows merged, so that
                night and day are in it alike

Each step does one piece of that, and ends in one short transaction: marks, alarms, their records
and events change together, so a step that breaks off is gone on with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from control_plane.drift.alarms import (
    RESPITE_MS,
    RUNS_NO_MORE,
    WATCH,
    Alarm,
    Change,
    fold,
    said,
)
from control_plane.drift.budget import Terms
from control_plane.drift.findings import Finding
from control_plane.drift.record import sealed
from control_plane.finding_drift import Found, Look, device_key
from control_plane.store import Store
from control_plane.store.drift_rows import DriftRow
from control_plane.watched_fleet import Cohort, Group, ProfileOf, cohorts, fleet_terms, groups
from protocol.identifiers import DeviceId, Digest

RECORDS: Final = "records"
DAY: Final = "day"
SLOT: Final = "slot"
LATE: Final = "late"
"""Names of marks: how far each kind of work is."""
AT_ONCE: Final = 500
"""Windows in one step."""
LONG_SLOT_S: Final = 3600.0
"""From such slots on, devices get two of them to bring their windows; short ones, one."""
LATE_SLOTS: Final = 24
KEPT_SLOTS: Final = 7 * 24
"""Judged slots are kept, and slots looked back for, so far."""
OTHER_COHORTS: Final = "cohorts are made by another label now"


@dataclass(frozen=True, slots=True)
class _Due:
    """A slot of a group, to be judged. `mark`: under which it is noted then."""

    group: Group
    slot: int
    mark: str


class Watch:
    """`step` in a loop; 0.0 while there is more to do at once."""

    def __init__(
        self,
        store: Store,
        profile_of: ProfileOf,
        now_ms: Callable[[], int],
        *,
        slot_s: float,
        day_s: float,
    ) -> None:
        self._store = store
        self._profile_of = profile_of
        self._now_ms = now_ms
        self._slot_s, self._day_s = slot_s, day_s
        self._slot_ms, self._day_ms = round(slot_s * 1000), round(day_s * 1000)
        self._grace_ms = self._slot_ms * (2 if slot_s >= LONG_SLOT_S else 1)

    def step(self) -> float | None:
        now_ms = self._now_ms()
        self._attend(now_ms)
        if self._windows(now_ms):
            return 0.0
        watched = groups(self._store, self._profile_of)
        due = self._next_slot(watched, now_ms)
        if due is not None:
            self._judge_slot(due, now_ms)
            return 0.0
        if self._judge_day(watched, now_ms):
            return 0.0
        return None

    @property
    def detail(self) -> str:
        """For people: how many alarms are not resolved."""
        return f"{self._store.alarms.count():,} alarms"

    # --- what needs no windows ------------------------------------------------------------------

    def _attend(self, now_ms: int) -> None:
        """Snoozes that are over, and alarms of versions that run nowhere any more."""
        alarms = self._store.alarms.open()
        servers: dict[Digest, frozenset[DeviceId]] = {}
        gone: dict[str, str] = {}
        for alarm in alarms:
            if alarm.manifest not in servers:
                servers[alarm.manifest] = self._store.drift.servers(alarm.manifest)
            on = servers[alarm.manifest]
            if not on or (alarm.about_device and alarm.subject not in on):
                gone[alarm.key] = RUNS_NO_MORE
        slept = any(each.until_ms is not None and each.until_ms <= now_ms for each in alarms)
        if gone or slept:
            with self._store.write():
                self._settle(Found(), now_ms, gone)

    # --- windows --------------------------------------------------------------------------------

    def _windows(self, now_ms: int) -> bool:
        """Whether there were new ones."""
        mark = self._store.drift.mark(RECORDS)
        if mark is None:
            # A store from before there was a watch: what it has is history.
            self._store.drift.set_mark(RECORDS, self._store.drift.number())
            return False
        rows = self._store.drift.since(mark, AT_ONCE)
        if not rows:
            return False
        closed = [row for row in rows if row.final]
        found = self._detectors(closed, now_ms) if closed else Found()
        with self._store.write():
            self._store.drift.set_mark(RECORDS, rows[-1].c)
            self._settle(found, now_ms)
        return True

    def _detectors(self, rows: list[DriftRow], now_ms: int) -> Found:
        watched = {
            (group.manifest, group.digest): group for group in groups(self._store, self._profile_of)
        }
        new: dict[tuple[Digest, Digest], Counter[DeviceId]] = {}
        loud: set[tuple[Digest, Digest]] = set()
        keys = {alarm.key for alarm in self._store.alarms.open()}
        terms = self._terms(now_ms)
        for row in rows:
            of = (row.body.manifest, row.body.profile)
            if of not in watched:
                continue
            new.setdefault(of, Counter())[row.device] += 1
            fired = any(value / 10 >= terms.ln_threshold for _, value in row.body.evidence)
            if fired or device_key(watched[of], row.device) in keys:
                loud.add(of)
        findings: list[Finding] = []
        quiet: dict[str, int] = {}
        among = self._cohorts().values() if loud else ()
        look = Look(self._store, terms, self._slot_ms, self._day_ms, now_ms)
        for of in sorted(loud):
            found = look.detectors(watched[of], new[of], among)
            findings.extend(found.findings)
            quiet.update(found.quiet)
        return Found(tuple(findings), quiet)

    # --- slots ----------------------------------------------------------------------------------

    def _next_slot(self, watched: tuple[Group, ...], now_ms: int) -> _Due | None:
        """The next one that is over and in which a group has windows; empty ones are passed."""
        for group in watched:
            for what, after_ms in (
                (SLOT, self._grace_ms),
                (LATE, self._grace_ms + LATE_SLOTS * self._slot_ms),
            ):
                name = f"{what}/{group.name}"
                last = self._store.drift.mark(name)
                newest = (now_ms - after_ms) // self._slot_ms - 1
                floor = newest - KEPT_SLOTS
                since = floor if last is None else max(last, floor)
                if since >= newest:
                    continue
                first_ms = self._store.drift.first_ms(
                    group.manifest, group.digest, (since + 1) * self._slot_ms
                )
                if first_ms is None:
                    continue
                slot = first_ms // self._slot_ms
                if slot <= newest:
                    return _Due(group, slot, name)
                self._store.drift.set_mark(name, newest)
        return None

    def _judge_slot(self, due: _Due, now_ms: int) -> None:
        drift, group = self._store.drift, due.group
        look = Look(self._store, self._terms(now_ms), self._slot_ms, self._day_ms, now_ms)
        judged = look.compare(group, due.slot)
        found = look.compared(group, judged)
        with self._store.write():
            drift.put_judged(group.manifest, group.digest, due.slot, judged.hits)
            drift.forget_judged(now_ms // self._slot_ms - KEPT_SLOTS)
            drift.set_mark(due.mark, due.slot)
            self._settle(found, now_ms)

    # --- days -----------------------------------------------------------------------------------

    def _judge_day(self, watched: tuple[Group, ...], now_ms: int) -> bool:
        """Whether one was due."""
        last = self._store.drift.mark(DAY)
        newest = (now_ms - 2 * self._slot_ms) // self._day_ms - 1
        if last is None:
            self._store.drift.set_mark(DAY, newest)
            return False
        if last >= newest:
            return False
        by = self._store.drift.terms().by
        among = self._cohorts()
        look = Look(self._store, self._terms(now_ms), self._slot_ms, self._day_ms, now_ms)
        # After days without a control plane, the newest tells how it stands.
        found = look.day(watched, among.values(), by, newest)
        gone = self._gone_cohorts(among)
        with self._store.write():
            self._store.drift.set_mark(DAY, newest)
            self._settle(found, now_ms, gone)
        return True

    def _gone_cohorts(self, among: Mapping[str, Cohort]) -> dict[str, str]:
        gone = {}
        for alarm in self._store.alarms.open():
            if alarm.about_device:
                continue
            if alarm.subject not in among:
                gone[alarm.key] = OTHER_COHORTS
            elif not among[alarm.subject].devices & self._store.drift.servers(alarm.manifest):
                gone[alarm.key] = RUNS_NO_MORE
        return gone

    # --- what comes of it -----------------------------------------------------------------------

    def _settle(self, found: Found, now_ms: int, gone: Mapping[str, str] | None = None) -> None:
        """Inside a transaction: fold what was found into the alarms as they are by now."""
        rows = self._store.alarms
        alarms = (*rows.open(), *rows.resolved_since(now_ms - RESPITE_MS))
        for change in fold(alarms, found.findings, found.quiet, now_ms, gone=gone or {}):
            # Somebody resolved it since it was looked at: next time it is measured again.
            if change.finding is None or change.finding.record:
                self._note(change, now_ms)

    def _note(self, change: Change, now_ms: int) -> None:
        rows, alarm = self._store.alarms, change.alarm
        if change.what == "opened":
            alarm = rows.add(alarm)
        if change.finding is not None:
            alarm = self._on_record(alarm, change)
        rows.put(alarm)
        if change.what != "seen":
            self._store.happened(
                WATCH,
                f"alarms/{alarm.id}",
                f"alarm.{change.what}",
                said(alarm),
                now_ms,
                why=alarm.why,
                evidence=alarm.evidence,
            )

    def _on_record(self, alarm: Alarm, change: Change) -> Alarm:
        """Behind its record before; returns the alarm that rests on it."""
        rows, finding = self._store.alarms, change.finding
        if finding is None:
            return alarm
        before = rows.record(alarm.id)
        digest, text = sealed(finding.record, alarm.id, before.digest if before else "")
        rows.add_record(alarm.id, digest, text, finding.seen_ms)
        return replace(alarm, evidence=digest)

    # --- the fleet ------------------------------------------------------------------------------

    def _cohorts(self) -> dict[str, Cohort]:
        return cohorts(self._store.devices.all(), self._store.drift.terms().by)

    def _terms(self, now_ms: int) -> Terms:
        return fleet_terms(
            self._store, self._profile_of, now_ms, slot_s=self._slot_s, day_s=self._day_s
        )

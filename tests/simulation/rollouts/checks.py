"""What must hold of a fleet's rollouts after every step, and once all is quiet."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from control_plane.rollout.explaining import explain
from control_plane.rollout.phase import AHEAD, HEARD, Counts
from control_plane.rollout.record import broken_at
from control_plane.rollout.wanted import wanted_plan
from control_plane.store import Store
from control_plane.store.rollouts import Rollout
from protocol.identifiers import split_device_id
from protocol.membership import EVERYONE, position
from protocol.plan import Plan
from protocol.plan import Rollout as Planned
from tests.simulation.rollouts.device import MODEL, Device
from tests.simulation.rollouts.fleet import FLEET, Fleet

TOLD: Final = (
    "rollout", "member", "phase_count", "plan", "assignment", "last_end", "wave_evidence", "tick",
    "exposed", "silence", "bettor", "evidence_record", "audit", "event", "device",
)  # fmt: skip
"""Tables that say everything of rollouts and how they came there."""


@dataclass
class Checks:
    """`step` after each step; `wrong` says what did not hold, the first of each kind."""

    fleet: Fleet
    wrong: dict[str, str] = field(default_factory=dict)
    targets: dict[str, frozenset[str]] = field(default_factory=dict)
    """Per rollout, devices that it may change, as it started."""
    records: int = 0
    verdicts: set[str] = field(default_factory=set)
    _seen: dict[str, int] = field(default_factory=dict)
    _activated: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _looked: int = 0

    def step(self) -> None:
        store = self.fleet.store
        rollouts = store.rollouts.page(MODEL, limit=100).items
        for rollout in rollouts:
            if rollout.id not in self.targets:
                members = store.rollouts.members.of(rollout.id)
                self.targets[rollout.id] = frozenset(
                    each.device for each in members if each.phase != "excluded"
                )
        self._devices({each.id: each for each in rollouts})
        plan = self.fleet.plan
        for rollout in rollouts:
            self._counters(rollout)
            if not rollout.ended:
                self._budget(rollout, plan)
            self._replays(rollout)

    def say(self, kind: str, what: str) -> None:
        self.wrong.setdefault(kind, what)

    # --- after every step -----------------------------------------------------------------------

    def _budget(self, rollout: Rollout, plan: Plan | None) -> None:
        """Devices that the plan in force asks, of those that the wave was planned for."""
        going = next(
            (r.rollout for r in (plan.rules if plan else ()) if _is(r.rollout, rollout.id)), None
        )
        if going is None or rollout.wave == 0:
            return
        planned = rollout.waves[rollout.wave - 1]
        asked, by_position = 0, 0
        for id in self.targets[rollout.id]:
            device = self.fleet.store.devices.need(id)
            labels = device.selectable
            name = split_device_id(id)[1]
            taken = going.takes(id, name, labels, device.since)
            place = position(rollout.salt, id)
            if device.since > rollout.as_of:
                if (
                    taken
                    and name not in going.wave.include
                    and (going.wave.threshold_for(labels) != EVERYONE)
                ):
                    self.say("late", f"{id} changed after {rollout.id} began, and is asked")
                continue
            asked += taken
            by_position += name not in going.wave.exclude and (
                name in going.wave.include
                or place < min(going.wave.threshold_for(labels), EVERYONE - rollout.holdback)
            )
        if max(asked, by_position) > planned.devices:
            self.say(
                "budget",
                f"wave {rollout.wave} of {rollout.id} asks {asked} ({by_position} by position) of "
                f"{planned.devices} planned",
            )

    def _devices(self, rollouts: dict[str, Rollout]) -> None:
        """What devices did, against waves and what is held back."""
        began = self.fleet.began[self._looked :]
        self._looked = len(self.fleet.began)
        for each in began:
            rollout = rollouts[each.rollout]
            name = split_device_id(each.device)[1]
            planned = rollout.waves[max(rollout.wave, 1) - 1]
            if each.since > rollout.as_of or each.device not in self.targets[rollout.id]:
                continue
            if position(rollout.salt, each.device) >= EVERYONE - rollout.holdback and not any(
                name in wave.wave.include for wave in rollout.waves
            ):
                self.say("holdback", f"{each.device} is held back from {rollout.id}, and tries it")
            activated = self._activated[rollout.id]
            activated.add(each.device)
            if rollout.wave == 0 or len(activated) > planned.devices:
                self.say(
                    "activated",
                    f"{len(activated)} devices have tried {rollout.id} in wave {rollout.wave}, "
                    f"{planned.devices} planned",
                )

    def _counters(self, rollout: Rollout) -> None:
        found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for row in self.fleet.store.connection().execute(
            "SELECT wave, phase, quiet FROM member WHERE rollout = ?", (rollout.id,)
        ):
            wave, phase, quiet = row
            found[wave]["silent" if quiet and phase in HEARD else phase] += 1
            found[wave]["unlinked"] += bool(quiet) and phase in AHEAD
        counted = self.fleet.store.rollouts.members.counts(rollout.id)
        if counted != {wave: Counts(**numbers) for wave, numbers in sorted(found.items())}:
            self.say("counters", f"{rollout.id}: {counted} counted, {found} are there")

    def _replays(self, rollout: Rollout) -> None:
        after = self._seen.get(rollout.id, 0)
        records = self.fleet.store.evidence.list_records(rollout.id, after, limit=1000)
        if not records:
            return
        self._seen[rollout.id] = records[-1].number
        self.records += len(records)
        for each in records:
            explained = explain(json.loads(each.body))
            self.verdicts.add(f"{explained.recorded['verdict']}/{explained.recorded['id']}")
            if not explained.same:
                self.say("replay", f"{rollout.id} record {each.number}: {explained.recorded}")
        kept = self.fleet.store.evidence.list_records(rollout.id, 0, limit=1000)
        if broken_at(json.loads(each.body) for each in kept) is not None:
            self.say("chain", f"the records of {rollout.id} are not what was written")

    # --- once all is quiet ----------------------------------------------------------------------

    def at_the_end(self, pinned: set[str]) -> None:
        store = self.fleet.store
        rollouts = sorted(store.rollouts.page(MODEL, limit=100).items, key=lambda r: r.number)
        for each in rollouts:
            # Whoever was asked and said to go on is not asked again in the same wave.
            if each.status not in ("completed", "aborted", "paused") and not each.accepted:
                self.say("open", f"{each.id} is {each.status} in wave {each.wave}: {each.verdict}")
            elif each.status in ("paused", "aborted") and not each.why:
                self.say("reason", f"{each.id} is {each.status}, and nothing says why")
        plan = self.fleet.plan
        wanted = wanted_plan(store, FLEET, MODEL)
        if plan is not None and plan.rules != wanted.rules:
            self.say("plan", f"published {plan.rules}, wanted {wanted.rules}")
        self._settled(rollouts)
        self._aborted(rollouts, pinned)

    def _settled(self, rollouts: list[Rollout]) -> None:
        """Who can be heard does what the plan says, and the store knows."""
        active = [each for each in rollouts if not each.ended and each.wave]
        for device in self._heard():
            choice = device.resolved(self.fleet.world.approvals, frozenset(), self.fleet.now_ms)
            if choice is not None and choice.digest != device.serving:
                waits = device.phase == "standby" or device.blocked(choice)
                if not waits:
                    self.say("settled", f"{device.id} is to run {choice}, serves {device.serving}")
            row = self.fleet.store.devices.need(device.id)
            said = row.state.models.get(MODEL) if row.state else None
            if said is None or (said.serving, said.current) != (device.serving, device.current):
                self.say("known", f"{device.id} serves {device.serving}, {said} is known of it")
            for rollout in active:
                member = self.fleet.store.rollouts.members.get(rollout.id, device.id)
                if member is None or choice is None or choice.rollout != rollout.id:
                    continue
                wanted = {"healthy", "unexercised"}
                if device.current == rollout.candidate and member.phase not in wanted:
                    self.say("phase", f"{device.id} runs what {rollout.id} asks: {member}")

    def _aborted(self, rollouts: list[Rollout], pinned: set[str]) -> None:
        plan = self.fleet.plan
        for rollout in rollouts:
            later = [each for each in rollouts if each.number > rollout.number and each.wave]
            stable = {rule.stable for rule in plan.rules} if plan else set()
            if rollout.status != "aborted" or rollout.wave == 0 or rollout.candidate in stable:
                continue
            if any(each.candidate == rollout.candidate for each in rollouts if each != rollout):
                continue
            # Beside which a shadow runs is what a device ran as it was asked; and who gave up what
            # is stable now stays with what it has.
            serving = {
                d.id
                for d in self._heard()
                if d.serving == rollout.candidate
                and d.phase != "standby"
                and not stable & d.notes.keys()
            }
            keeps = any(each.kept for each in rollouts)
            if not keeps and serving - pinned:
                self.say("returned", f"{rollout.id} was aborted, and {sorted(serving)} run it")
            ran = {
                each.device
                for each in self.fleet.store.rollouts.members.of(rollout.id)
                if each.phase in ("healthy", "unexercised")
            }
            heard = {d.id for d in self._heard()} - pinned
            if rollout.kept and not later and (ran & heard) - serving:
                self.say("kept", f"{rollout.id} keeps {sorted(ran & heard)}, {serving} run it")

    def _heard(self) -> list[Device]:
        """Without agents that are too old for the newest plan: they stay with the one before."""
        newest = self.fleet.plan
        return [
            each
            for each in self.fleet.devices.values()
            if each.linked and not each.dead and (each.plan == newest or each.understands(newest))
        ]


def _is(planned: Planned | None, id: str) -> bool:
    return planned is not None and planned.id == id


def told(store: Store) -> dict[str, Any]:
    return {name: store.connection().execute(f"SELECT * FROM {name}").fetchall() for name in TOLD}


def phases(store: Store) -> list[tuple[Any, ...]]:
    """Of members: what they say, without when it was learnt."""
    return (
        store.connection()
        .execute("SELECT rollout, device, wave, phase, reason, outcome FROM member ORDER BY 1, 2")
        .fetchall()
    )

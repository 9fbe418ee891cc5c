"""Alarms: how findings open, change and end them, and what people may do to one.

    finding ──▶ open ──▶ acknowledged ──▶ resolved
                 │  ▲                        ▲
                 ▼  │ when its time is over  │ by a person, or by itself when it is quiet
              snoozed ───────────────────────┘

One thing, one alarm: a key never has two that are not resolved. Nothing but a finding opens one,
and a resolved alarm stays resolved: what comes back gets a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from control_plane.drift.findings import Finding, FoundFeature
from control_plane.drift.words import VERDICTS, Kind, State, Verdict
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, ModelName
from protocol.wording import rfc3339

WATCH: Final = "drift watch"
"""Who acts where no person does."""

QUIET_DEVICE: Final = 3
QUIET_COHORT: Final = 2
"""Evaluations in a row without a finding after which an alarm resolves itself."""
RESPITE_MS: Final = 24 * 3_600_000
"""So long after a person resolved an alarm, one sighting alone does not bring it back."""
NOT_GONE: Final[Mapping[str, str]] = {}
RUNS_NO_MORE: Final = "that version runs there no more"
MOST_TOLD: Final = 8
"""Features in a notice."""

What = Literal["opened", "changed", "reopened", "resolved", "seen"]
"""`seen`: only noted, told to nobody."""


@dataclass(frozen=True, slots=True)
class Alarm:
    id: str
    """ "alarm-17"; "" until it is stored."""
    number: int
    key: str
    """`Finding.key`."""
    model: ModelName
    bundle: Digest
    manifest: Digest
    profile: Digest
    kind: Kind
    subject: str
    """Id of a device, or a cohort: "site=b", "not site", "all"."""
    verdict: Verdict
    sentence: str
    features: tuple[FoundFeature, ...]
    state: State = "open"
    opened_ms: int = 0
    changed_ms: int = 0
    """When its state or its verdict changed last."""
    seen_ms: int = 0
    """When it was found last."""
    until_ms: int | None = None
    """End of a snooze."""
    quiet: int = 0
    """Evaluations in a row that found nothing."""
    by: str = ""
    """Who brought it into its state."""
    why: str = ""
    evidence: str = ""
    """Digest of the newest record that it rests on."""

    @property
    def about_device(self) -> bool:
        return self.key.startswith("device/")


@dataclass(frozen=True, slots=True)
class Change:
    what: What
    alarm: Alarm
    """As it is now."""
    finding: Finding | None = None
    """What it now rests on, where that is new."""


def fold(
    alarms: Sequence[Alarm],
    findings: Sequence[Finding],
    quiet: Mapping[str, int],
    now_ms: int,
    *,
    gone: Mapping[str, str] = NOT_GONE,
) -> tuple[Change, ...]:
    """What one look at the inputs changes. Alarms that stay as they are give no change.

    `alarms`: those that are not resolved, and those that a person resolved within `RESPITE_MS`.
    `quiet`: per key the evaluations, since the fold before, that judged the subject and found
    nothing; not of keys with a finding. `gone`: keys that nothing can be found of any more, each
    with the reason, for instance that no device of it runs the version.
    """
    unresolved = {each.key: each for each in alarms if each.state != "resolved"}
    closed = _closed_by_people(alarms, now_ms)
    found = _clearest(findings)
    changes: list[Change] = []
    for key, finding in found.items():
        if key in unresolved:
            changes.extend(_seen(unresolved[key], finding, now_ms))
        elif key in closed and closed[key].seen_ms <= closed[key].changed_ms:
            # The first sighting since: it may be what the person has just seen to.
            changes.append(Change("seen", replace(closed[key], seen_ms=now_ms)))
        else:
            changes.append(Change("opened", _opened(finding, now_ms), finding))
    for key, alarm in unresolved.items():
        if key not in found:
            changes.extend(_unseen(alarm, quiet.get(key, 0), now_ms, gone.get(key, "")))
    return tuple(changes)


# --- what people do -------------------------------------------------------------------------------


def acknowledge(alarm: Alarm, by: str, why: str, now_ms: int) -> Alarm:
    """Somebody looks after it. Raises `InvalidRequest` OUT-D610 for a resolved alarm."""
    return _acted(alarm, "acknowledged", by, why, now_ms)


def snooze(alarm: Alarm, until_ms: int, by: str, why: str, now_ms: int) -> Alarm:
    """Tell nobody of it until then. Raises `InvalidRequest` OUT-D610, OUT-S120 for the past."""
    if until_ms <= now_ms:
        raise InvalidRequest("OUT-S120", "until: is over already")
    return replace(_acted(alarm, "snoozed", by, why, now_ms), until_ms=until_ms)


def resolve(alarm: Alarm, by: str, why: str, now_ms: int) -> Alarm:
    """It is over. Raises `InvalidRequest` OUT-D610 for a resolved alarm."""
    return _acted(alarm, "resolved", by, why, now_ms)


def said(alarm: Alarm) -> dict[str, Any]:
    """What events, records of the audit trail and notices say of it."""
    return {
        "alarm": alarm.id,
        "state": alarm.state,
        "kind": alarm.kind,
        "verdict": alarm.verdict,
        "sentence": alarm.sentence,
        "model": alarm.model,
        "bundle": alarm.bundle,
        "subject": alarm.subject,
        "features": [
            {"name": each.name, "value": each.value, "psi": each.psi, "what": each.what}
            for each in alarm.features[:MOST_TOLD]
        ],
        "opened": rfc3339(alarm.opened_ms),
        "seen": rfc3339(alarm.seen_ms),
        "until": rfc3339(alarm.until_ms) if alarm.until_ms is not None else None,
        "by": alarm.by,
        "evidence": alarm.evidence,
    }


# --- the rule -------------------------------------------------------------------------------------


def _clearest(findings: Iterable[Finding]) -> dict[str, Finding]:
    """One per key: the one whose verdict says most, the first of equals."""
    best: dict[str, Finding] = {}
    for each in findings:
        kept = best.get(each.key)
        if kept is None or VERDICTS.index(each.verdict) < VERDICTS.index(kept.verdict):
            best[each.key] = each
    return best


def _closed_by_people(alarms: Iterable[Alarm], now_ms: int) -> dict[str, Alarm]:
    """The newest per key."""
    closed: dict[str, Alarm] = {}
    for each in alarms:
        recent = each.state == "resolved" and now_ms - each.changed_ms < RESPITE_MS
        if recent and each.by != WATCH:
            kept = closed.get(each.key)
            closed[each.key] = max(each, kept or each, key=lambda alarm: alarm.number)
    return closed


def _opened(finding: Finding, now_ms: int) -> Alarm:
    return Alarm(
        "",
        0,
        finding.key,
        finding.model,
        finding.bundle,
        finding.manifest,
        finding.profile,
        finding.kind,
        finding.subject,
        finding.verdict,
        finding.sentence,
        finding.features,
        opened_ms=now_ms,
        changed_ms=now_ms,
        seen_ms=now_ms,
        by=WATCH,
    )


def _seen(alarm: Alarm, finding: Finding, now_ms: int) -> list[Change]:
    now = replace(alarm, seen_ms=now_ms, quiet=0, features=finding.features)
    changed = finding.verdict != alarm.verdict
    if changed:
        now = replace(
            now,
            kind=finding.kind,
            verdict=finding.verdict,
            sentence=finding.sentence,
            bundle=finding.bundle,
            manifest=finding.manifest,
            changed_ms=now_ms,
        )
    if _slept(now, now_ms):
        return [Change("reopened", _awake(now, now_ms), finding if changed else None)]
    return [Change("changed" if changed else "seen", now, finding if changed else None)]


def _unseen(alarm: Alarm, quiet: int, now_ms: int, gone: str) -> list[Change]:
    if gone:
        return [Change("resolved", _ended(alarm, gone, now_ms))]
    calm = replace(alarm, quiet=alarm.quiet + quiet)
    if calm.quiet >= (QUIET_DEVICE if alarm.about_device else QUIET_COHORT):
        why = f"{calm.quiet} evaluations in a row found nothing"
        return [Change("resolved", _ended(calm, why, now_ms))]
    if _slept(calm, now_ms):
        return [Change("reopened", _awake(calm, now_ms))]
    return [Change("seen", calm)] if quiet else []


def _slept(alarm: Alarm, now_ms: int) -> bool:
    return alarm.state == "snoozed" and alarm.until_ms is not None and alarm.until_ms <= now_ms


def _awake(alarm: Alarm, now_ms: int) -> Alarm:
    why = "its snooze is over"
    return replace(alarm, state="open", until_ms=None, by=WATCH, why=why, changed_ms=now_ms)


def _ended(alarm: Alarm, why: str, now_ms: int) -> Alarm:
    return replace(alarm, state="resolved", until_ms=None, by=WATCH, why=why, changed_ms=now_ms)


def _acted(alarm: Alarm, state: State, by: str, why: str, now_ms: int) -> Alarm:
    if alarm.state == "resolved":
        raise InvalidRequest("OUT-D610", f"{alarm.id} was resolved by {alarm.by}")
    return replace(alarm, state=state, until_ms=None, by=by, why=why, changed_ms=now_ms)

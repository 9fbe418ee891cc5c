import itertools
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.denials import (
    CALM_MS,
    DEFINITE,
    GUARD_DAY_MS,
    GUARD_GAP_MS,
    GUARD_PER_DAY,
    away,
    guarded_until,
    left,
    lifted,
    revocations,
    standing,
)
from edge_agent.journal import Journal, Note
from protocol.approval import Approved, ApprovedBundle
from protocol.identifiers import digest_of
from protocol.problems import problem

B, C = digest_of(b"b"), digest_of(b"c")
NOW = 10 * GUARD_DAY_MS
HOUR = 3_600_000


def denied(reason: str = "OUT-D310", **rest: Any) -> Note:
    fields: dict[str, Any] = {
        "reason": reason,
        "definite": True,
        "attempt": 1,
        "agent": "1.0",
    } | rest
    return Note(**fields)


@pytest.mark.parametrize(
    "note, attempt, allow, agent, yields",
    [
        pytest.param(denied(), 1, 0, "1.0", False, id="the same attempt changes nothing"),
        pytest.param(denied(), 2, 0, "1.0", True, id="a greater attempt lifts it"),
        pytest.param(denied(attempt=3), 2, 0, "1.0", False, id="an older attempt does not"),
        pytest.param(denied(), 0, 1, "1.0", True, id="a greater allow number lifts it"),
        pytest.param(denied(allow=1), 0, 1, "1.0", False, id="the noted allow number does not"),
        pytest.param(denied("OUT-D301"), 0, 0, "1.1", True, id="a new agent may probe again"),
        pytest.param(denied("OUT-D302"), 0, 0, "1.1", True, id="a new agent may load again"),
        pytest.param(denied("OUT-D310"), 0, 0, "1.1", False, id="a new agent is no better health"),
        pytest.param(denied("OUT-D311"), 0, 0, "1.1", True, id="a crash before serving is a load"),
        pytest.param(
            denied("OUT-D311", activated=True), 0, 0, "1.1", False, id="a crash in service is not"
        ),
    ],
)
def test_a_definite_denial_yields_to(note, attempt, allow, agent, yields):
    assert lifted(note, attempt=attempt, allow=allow, agent=agent) is yields
    journal = Journal("m", notes=((B, note),))
    assert (B in standing(journal, {B: attempt}, {B: allow}, agent)) is not yields


def test_an_unclear_reason_is_no_standing_denial():
    journal = Journal("m", notes=((B, Note(reason="OUT-D312", until_ms=NOW * 2)),))
    assert standing(journal, {}, {}, "1.0") == frozenset()


MINUTE = 60_000
LEFT_ONCE = Note(returns=1, returned_ms=NOW)


@pytest.mark.parametrize(
    "note, now_ms, returns, minutes",
    [
        pytest.param(Note(), NOW, 1, 10, id="the first time"),
        pytest.param(LEFT_ONCE, NOW + 60 * MINUTE, 2, 20, id="twice as long the second time"),
        pytest.param(replace(LEFT_ONCE, returns=4), NOW + HOUR, 5, 160, id="and so on"),
        pytest.param(replace(LEFT_ONCE, returns=40), NOW + HOUR, 41, 24 * 60, id="at most a day"),
        pytest.param(
            replace(LEFT_ONCE, returns=7), NOW + CALM_MS, 1, 10, id="after a calm week from anew"
        ),
        pytest.param(LEFT_ONCE, NOW - 60 * MINUTE, 2, 20, id="a clock set back forgets nothing"),
    ],
)
def test_a_hold_doubles_with_every_return(note, now_ms, returns, minutes):
    assert left(note, now_ms, 0.5) == (returns, now_ms + minutes * MINUTE)


def test_a_hold_outlives_a_commit_and_a_mark():
    kept = Note(reason="OUT-D318", returns=3, returned_ms=NOW, crashes=2).settled
    assert (kept.reason, kept.returns, kept.returned_ms) == (None, 3, NOW)


AWAY = Note(reason="OUT-D318", until_ms=NOW + 1, toward=C, attempt=1, allow=1)


@pytest.mark.parametrize(
    "note, fallback, attempt, allow, stays",
    [
        pytest.param(AWAY, Note(), 1, 1, True, id="while the hold lasts"),
        pytest.param(replace(AWAY, until_ms=NOW), Note(), 1, 1, False, id="not beyond it"),
        pytest.param(
            replace(AWAY, until_ms=NOW), Note(loads=1), 1, 1, True, id="unless C is on trial"
        ),
        pytest.param(
            replace(AWAY, until_ms=None, definite=True), Note(), 1, 1, True, id="denied for good"
        ),
        pytest.param(AWAY, Note(), 2, 1, False, id="a new attempt ends it"),
        pytest.param(AWAY, Note(), 1, 2, False, id="an operator ends it"),
        pytest.param(replace(AWAY, toward=None), Note(), 1, 1, False, id="nowhere to go"),
    ],
)
def test_a_device_stays_with_its_signed_fallback(note, fallback, attempt, allow, stays):
    journal = Journal("m", notes=((B, note), (C, fallback)))
    assert away(journal, {B: attempt}, {B: allow}, NOW) == ((B, C) if stays else None)


@pytest.mark.parametrize(
    "slug, definite",
    [
        ("probe", True),
        ("contract", True),
        ("health", True),
        ("crashes", True),
        ("interrupted", False),
        ("timeout", False),
        ("superseded", False),
        ("disk_full", False),
        ("memory_short", False),
        ("revoked", False),
        ("corrupt", False),
        ("degraded", False),
    ],
)
def test_only_what_speaks_about_the_bundle_itself_denies_it_for_good(slug, definite):
    """Interrupted downloads and missing resources never do."""
    assert (problem(slug).code in DEFINITE) is definite


def approved(state: str, on_device: str = "fallback") -> dict[str, ApprovedBundle]:
    terms = Approved(state, on_device=on_device)  # type: ignore[arg-type]  # table of literals
    return {B: ApprovedBundle("m", "v", B, terms), C: ApprovedBundle("m", "c", C)}


NOTED_STOP = Journal("m", notes=((B, Note(revoked="stop")),))


@pytest.mark.parametrize(
    "approvals, journal, found",
    [
        pytest.param(approved("approved"), Journal("m"), {}, id="approved is not revoked"),
        pytest.param(approved("revoked"), Journal("m"), {B: "fallback"}, id="fallback"),
        pytest.param(approved("revoked", "stop"), Journal("m"), {B: "stop"}, id="stop"),
        pytest.param(approved("revoked", "report"), Journal("m"), {}, id="report keeps running"),
        pytest.param(
            {C: approved("approved")[C]}, Journal("m"), {B: "fallback"}, id="delisted falls back"
        ),
        pytest.param({}, Journal("m"), {}, id="a lost cache says nothing"),
        pytest.param({}, NOTED_STOP, {B: "stop"}, id="a lost cache undoes nothing"),
        pytest.param(
            {C: approved("approved")[C]}, NOTED_STOP, {B: "stop"}, id="delisting is no pardon"
        ),
        pytest.param(approved("approved"), NOTED_STOP, {}, id="approving again is"),
    ],
)
def test_revocations(approvals, journal, found):
    assert revocations(approvals, journal, [B]) == found


def tried(*ago_ms: int) -> Journal:
    return Journal("m", trials=tuple(NOW - ago for ago in ago_ms), tried=C)


@pytest.mark.parametrize(
    "journal, bundle, until",
    [
        pytest.param(Journal("m"), B, None, id="the first trial may begin"),
        pytest.param(tried(60_000), B, NOW - 60_000 + GUARD_GAP_MS, id="15 minutes between two"),
        pytest.param(tried(60_000), C, None, id="the same bundle may go on"),
        pytest.param(tried(GUARD_GAP_MS), B, None, id="after 15 minutes"),
        pytest.param(
            tried(*(n * HOUR for n in range(9, 1, -1))), B, NOW + 15 * HOUR, id="eight a day"
        ),
        pytest.param(
            tried(*(n * HOUR for n in range(9, 2, -1))), B, None, id="seven a day are fine"
        ),
        pytest.param(tried(25 * HOUR, *(HOUR,) * 7), B, None, id="yesterday does not count"),
        pytest.param(tried(-2 * GUARD_DAY_MS), B, None, id="a clock that was wrong blocks nothing"),
    ],
)
def test_the_thrash_guard(journal, bundle, until):
    assert guarded_until(journal, bundle, NOW) == until


def test_whoever_orders_two_bundles_in_turn_gets_eight_trials_a_day_and_never_two_at_once():
    """Approved bundles in turn, every minute for three days: what a stolen online key can do."""
    journal, trials = Journal("m"), []
    for minute in range(3 * 24 * 60):
        bundle, now_ms = (B, C)[minute % 2], NOW + minute * 60_000
        if bundle != journal.tried and guarded_until(journal, bundle, now_ms) is None:
            journal = journal.with_trial(bundle, now_ms)
            trials.append(now_ms)
    assert len(trials) == 3 * GUARD_PER_DAY
    for first, second in itertools.pairwise(trials):
        assert second - first >= GUARD_GAP_MS
    for first, ninth in zip(trials, trials[GUARD_PER_DAY:], strict=False):
        assert ninth - first >= GUARD_DAY_MS

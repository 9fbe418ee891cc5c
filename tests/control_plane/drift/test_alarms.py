from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.drift import alarms
from control_plane.drift.alarms import (
    QUIET_COHORT,
    QUIET_DEVICE,
    RESPITE_MS,
    RUNS_NO_MORE,
    WATCH,
    Alarm,
    fold,
)
from control_plane.drift.findings import Finding, FoundFeature
from protocol.errors import InvalidRequest

DIGEST = "sha256-" + "a" * 64
NOW = 1_795_000_000_000
HOUR = 3_600_000


def finding(kind="peer", subject="north-cam-1", verdict="sensor broken", **more):
    features = (FoundFeature(0, "temperature", 3e-9, 0.61, "peers"),)
    return Finding(
        kind, "digits", DIGEST, DIGEST, DIGEST, subject, verdict, f"{verdict}: {subject}",
        features, NOW, {"v": 1}, **more,
    )  # fmt: skip


def alarm(of=None, number=17, **more):
    """As it is after the first time that `of` was found, an hour ago."""
    (opened,) = fold((), (of or finding(),), {}, NOW - HOUR)
    return replace(opened.alarm, number=number, id=f"alarm-{number}", **more)


def only(changes):
    (change,) = changes
    return change


def test_no_finding_no_alarm():
    assert fold((), (), {"device/digits/x/cam-1": 3}, NOW) == ()


def test_a_finding_opens_an_alarm_that_rests_on_it():
    found = finding()
    change = only(fold((), (found,), {}, NOW))
    assert (change.what, change.finding) == ("opened", found)
    opened = change.alarm
    assert (opened.key, opened.state, opened.by) == (found.key, "open", WATCH)
    assert opened.opened_ms == opened.changed_ms == opened.seen_ms == NOW
    assert opened.features == found.features


def test_what_is_seen_again_only_changes_when():
    before = alarm(quiet=2)
    change = only(fold((before,), (finding(),), {}, NOW))
    assert (change.what, change.finding) == ("seen", None)
    assert change.alarm == replace(before, seen_ms=NOW, quiet=0)


def test_another_verdict_is_told_and_keeps_who_looks_after_it():
    before = alarm(finding("detector", verdict="device drifted"), state="acknowledged", by="ana")
    change = only(fold((before,), (finding(),), {}, NOW))
    assert (change.what, change.alarm.verdict, change.alarm.kind) == (
        "changed", "sensor broken", "peer",
    )  # fmt: skip
    assert (change.alarm.state, change.alarm.by) == ("acknowledged", "ana")
    assert change.finding is not None


def test_of_two_findings_of_one_thing_the_clearer_one_counts():
    drifted = finding("detector", verdict="device drifted")
    change = only(fold((), (drifted, finding()), {}, NOW))
    assert change.alarm.verdict == "sensor broken"


@pytest.mark.parametrize(
    "of, most",
    [
        (finding(), QUIET_DEVICE),
        (finding("cohort", "site=b", "cohort drifted"), QUIET_COHORT),
    ],
)
def test_what_is_quiet_for_long_enough_ends_by_itself(of, most):
    now = alarm(of)
    for number in range(1, most):
        change = only(fold((now,), (), {now.key: 1}, NOW))
        assert (change.what, change.alarm.quiet) == ("seen", number)
        now = change.alarm
    change = only(fold((now,), (), {now.key: 1}, NOW))
    assert (change.what, change.alarm.state, change.alarm.by) == ("resolved", "resolved", WATCH)


def test_nobody_looked_is_not_quiet():
    assert fold((alarm(),), (), {}, NOW) == ()


def test_a_version_that_runs_no_more_resolves_its_alarms():
    before = alarm(state="snoozed", until_ms=NOW + HOUR)
    change = only(fold((before,), (), {}, NOW, gone={before.key: RUNS_NO_MORE}))
    assert (change.what, change.alarm.why, change.alarm.until_ms) == (
        "resolved", RUNS_NO_MORE, None,
    )  # fmt: skip


def test_a_snooze_ends_by_itself():
    asleep = alarms.snooze(alarm(), NOW, "ana", "known", NOW - 1)
    assert fold((asleep,), (), {}, NOW - 1) == ()
    for findings in ((), (finding(),)):
        change = only(fold((asleep,), findings, {}, NOW))
        assert (change.what, change.alarm.state, change.alarm.until_ms) == (
            "reopened",
            "open",
            None,
        )


def test_what_a_person_resolved_comes_back_only_when_it_is_seen_twice():
    closed = alarms.resolve(alarm(), "ana", "cleaned", NOW)
    first = only(fold((closed,), (finding(),), {}, NOW + 1))
    assert (first.what, first.alarm.state) == ("seen", "resolved")
    second = only(fold((first.alarm,), (finding(),), {}, NOW + 2))
    assert (second.what, second.alarm.id) == ("opened", "")


def test_what_was_resolved_by_itself_or_long_ago_comes_back_at_once():
    by_itself = alarm(state="resolved", by=WATCH, changed_ms=NOW)
    assert only(fold((by_itself,), (finding(),), {}, NOW + 1)).what == "opened"
    long_ago = alarms.resolve(alarm(), "ana", "", NOW)
    assert only(fold((long_ago,), (finding(),), {}, NOW + RESPITE_MS)).what == "opened"


@pytest.mark.parametrize(
    "act",
    [
        lambda it: alarms.acknowledge(it, "ana", "", NOW),
        lambda it: alarms.snooze(it, NOW + 1, "ana", "", NOW),
        lambda it: alarms.resolve(it, "ana", "", NOW),
    ],
)
def test_a_resolved_alarm_stays_resolved(act):
    with pytest.raises(InvalidRequest) as refused:
        act(alarm(state="resolved", by="bo"))
    assert refused.value.code == "OUT-D610"


def test_a_snooze_ends_in_the_future():
    with pytest.raises(InvalidRequest):
        alarms.snooze(alarm(), NOW, "ana", "", NOW)


SUBJECTS = ("north-cam-1", "north-cam-2")
FINDINGS = st.sampled_from(
    [
        *(finding(subject=each) for each in SUBJECTS),
        *(finding("detector", each, "device drifted") for each in SUBJECTS),
        finding("cohort", "all", "cohort drifted"),
        finding("part", "all", "half of the cohort drifted"),
    ]
)
KEYS = sorted({finding(subject=each).key for each in SUBJECTS} | {finding("cohort", "all").key})
ACTS = st.sampled_from(["acknowledge", "snooze", "resolve"])
EVENTS = st.one_of(
    st.tuples(
        st.just("look"),
        st.lists(FINDINGS, max_size=4),
        st.dictionaries(st.sampled_from(KEYS), st.integers(1, 3)),
        st.lists(st.sampled_from(KEYS), max_size=1),
    ),
    st.tuples(st.just("act"), ACTS, st.integers(0, 5)),
)


@settings(max_examples=200)
@given(st.lists(EVENTS, max_size=25))
def test_one_unresolved_alarm_per_key_whatever_comes_in_which_order(events):
    kept: dict[str, Alarm] = {}
    now_ms = NOW
    for event in events:
        now_ms += HOUR
        if event[0] == "act":
            acted(kept, event[1], event[2], now_ms)
            continue
        _, findings, quiet, gone = event
        before = dict(kept)
        found = {each.key for each in findings}
        for change in fold(
            tuple(kept.values()), findings, quiet, now_ms, gone=dict.fromkeys(gone, "x")
        ):
            one = change.alarm
            if change.what == "opened":
                assert one.key in found
                one = replace(one, number=len(kept) + 1, id=f"alarm-{len(kept) + 1}")
            elif before[one.id].state == "resolved":
                assert (change.what, one.state) == ("seen", "resolved")
            kept[one.id] = one
        unresolved = [each.key for each in kept.values() if each.state != "resolved"]
        assert len(unresolved) == len(set(unresolved))


def acted(kept, verb, number, now_ms):
    unresolved = [each for each in kept.values() if each.state != "resolved"]
    if not unresolved:
        return
    one = unresolved[number % len(unresolved)]
    until = (now_ms + 2 * HOUR,) if verb == "snooze" else ()
    kept[one.id] = getattr(alarms, verb)(one, *until, "ana", "", now_ms)

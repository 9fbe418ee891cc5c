import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.drift.notices import (
    RETRY_S,
    headers,
    next_try,
    plan,
    read_secret,
    shown_secret,
    signature,
    text,
    trial,
)

DEBOUNCE = 600_000


@dataclass(frozen=True)
class Happened:
    id: int
    time_ms: int
    type: str
    topic: str = "alarms/alarm-17"
    data: dict[str, Any] = field(default_factory=dict)


def happened(*rows, topic="alarms/alarm-17"):
    return [
        Happened(number, at_ms, f"alarm.{type}", topic)
        for number, (at_ms, type) in enumerate(rows, 1)
    ]


def told(events, now_ms, muted=(), mark=0):
    return [each.type for each in plan(events, mark, muted, now_ms, DEBOUNCE).told]


def test_a_signature_is_what_the_standards_own_example_says():
    """Standard Webhooks, "Signature scheme": the example of its reference libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    said = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_name_the_notice_and_its_second():
    said = headers(b"secret", "north-9", 1_614_265_330_999, b"{}")
    assert said["webhook-id"] == "north-9"
    assert said["webhook-timestamp"] == "1614265330"
    assert said["webhook-signature"] == signature(b"secret", "north-9", 1614265330, b"{}")


@given(st.binary(min_size=32, max_size=32))
def test_a_secret_is_read_as_it_is_shown(secret):
    assert read_secret(shown_secret(secret)) == secret


def test_an_event_becomes_one_cloudevent():
    event = Happened(41, 1_795_000_000_000, "alarm.opened", data={"verdict": "sensor broken"})
    assert json.loads(text("north", event)) == {
        "specversion": "1.0",
        "id": "north-41",
        "source": "/v1/fleets/north",
        "type": "dev.outrider.alarm.opened.v1",
        "subject": "alarm-17",
        "time": "2026-11-18T11:06:40Z",
        "datacontenttype": "application/json",
        "data": {"verdict": "sensor broken"},
    }


def test_a_trial_is_a_notice_too():
    said = json.loads(trial("north", "webhook-1", "test-1", 0))
    assert (said["id"], said["subject"]) == ("north-test-1", "webhook-1")
    assert said["type"] == "dev.outrider.webhook.tested.v1"


def test_an_alarm_is_told_when_it_has_lasted():
    events = happened((0, "opened"))
    assert told(events, DEBOUNCE - 1) == []
    assert plan(events, 0, (), DEBOUNCE - 1, DEBOUNCE).mark == 0
    assert told(events, DEBOUNCE) == ["alarm.opened"]
    assert plan(events, 0, (), DEBOUNCE, DEBOUNCE).mark == 1


@pytest.mark.parametrize("end", ["resolved", "snoozed"])
def test_an_alarm_that_is_gone_within_ten_minutes_is_told_to_nobody(end):
    events = happened((0, "opened"), (DEBOUNCE, end))
    assert told(events, DEBOUNCE) == []


def test_an_end_after_that_is_told_with_its_beginning():
    events = happened((0, "opened"), (DEBOUNCE + 1, "resolved"))
    assert told(events, DEBOUNCE + 1) == ["alarm.opened", "alarm.resolved"]


def test_what_happens_to_an_alarm_waits_for_its_beginning():
    events = happened((0, "opened"), (10, "acknowledged"))
    assert told(events, 10) == []
    assert told(events, DEBOUNCE) == ["alarm.opened", "alarm.acknowledged"]


def test_an_alarm_that_was_snoozed_at_once_is_told_when_it_comes_back():
    events = happened((0, "opened"), (10, "snoozed"))
    quiet = plan(events, 0, (), DEBOUNCE, DEBOUNCE)
    assert (list(quiet.told), quiet.mark) == ([], 2)
    assert quiet.muted == frozenset({"alarms/alarm-17"})
    assert told(happened((0, "changed"), (1, "resolved")), DEBOUNCE, quiet.muted) == []
    back = plan(happened((0, "reopened"), (1, "resolved")), 2, quiet.muted, DEBOUNCE, DEBOUNCE)
    assert [each.type for each in back.told] == ["alarm.reopened", "alarm.resolved"]
    assert back.muted == frozenset()


def test_a_changed_verdict_is_not_told_while_it_is_snoozed():
    changed = Happened(1, 0, "alarm.changed", data={"state": "snoozed"})
    assert told([changed], 0) == []


def test_others_are_told_while_one_is_held_back():
    events = [
        Happened(1, 100, "alarm.opened", "alarms/alarm-1"),
        Happened(2, 101, "alarm.resolved", "alarms/alarm-2"),
    ]
    found = plan(events, 0, (), 200, DEBOUNCE)
    assert [each.id for each in found.told] == [2]
    assert found.mark == 0


TYPES = st.sampled_from(["opened", "changed", "reopened", "acknowledged", "snoozed", "resolved"])


@given(
    st.lists(st.tuples(st.integers(0, 400_000), TYPES, st.integers(1, 3)), max_size=12),
    st.lists(st.integers(0, 3_000_000), min_size=1, max_size=6),
)
def test_however_often_it_is_looked_the_same_is_told(rows, looks):
    """Looking again from the mark, with what was muted there, is like looking once at the end."""
    at_ms, events = 0, []
    for number, (later, type, alarm) in enumerate(rows, 1):
        at_ms += later
        events.append(Happened(number, at_ms, f"alarm.{type}", f"alarms/alarm-{alarm}"))
    end = at_ms + DEBOUNCE
    mark, seen = 0, set()
    muted: frozenset[str] = frozenset()
    for now_ms in [*sorted(at_ms + look - 3_000_000 for look in looks), end]:
        there = [each for each in events if each.id > mark and each.time_ms <= now_ms]
        found = plan(there, mark, muted, now_ms, DEBOUNCE)
        seen |= {each.id for each in found.told}
        assert found.mark >= mark
        mark, muted = found.mark, found.muted
    once = plan(events, 0, (), end, DEBOUNCE)
    assert seen == {each.id for each in once.told}
    assert (mark, muted) == (once.mark, once.muted)


def test_tries_come_later_each_time_and_end():
    waits = [next_try(failures, 0, 0.5) for failures in range(1, len(RETRY_S) + 1)]
    assert waits == [seconds * 1000 for seconds in RETRY_S]
    assert next_try(len(RETRY_S) + 1, 0, 0.5) is None
    assert (next_try(1, 0, 0.0), next_try(1, 0, 1.0)) == (4000, 6000)

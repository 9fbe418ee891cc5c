import json
from typing import Any

import pytest

from control_plane.drift.notices import RETRY_S
from control_plane.notifying import COMMAND, KEPT_MS, Notifier
from control_plane.store import Store
from control_plane.store.webhooks import Hook
from control_plane.webhooks import Tried

NOW = 1_795_000_000_000
DEBOUNCE_S = 600.0
URL = "https://hooks.example.com/notices"


class Place:
    """A store with one webhook, and a notifier whose sender does as it is told."""

    def __init__(self, store, *, command=()):
        self.store = store
        self.clock = [NOW]
        self.sent: list[tuple[str, Any]] = []
        self.ran: list[tuple[tuple[str, ...], Any]] = []
        self.tried = Tried()
        self.notifier = Notifier(
            "north",
            store,
            self,
            lambda: self.clock[0],
            debounce_s=DEBOUNCE_S,
            command=command,
            run=self.run,
            chance=lambda: 0.5,
        )
        self.notifier.step()

    def send(self, webhook, url, body, now_ms):
        assert not self.store.connection().in_transaction
        self.sent.append((webhook, json.loads(body)))
        return self.tried

    def run(self, command, body):
        self.ran.append((tuple(command), json.loads(body)))
        return self.tried

    def hook(self, name="webhook-1", **more):
        self.store.webhooks.add(Hook(name, URL, ("alarms",), "ana", self.clock[0], **more))

    def happen(self, type, alarm=17, **data):
        self.store.events.append(f"alarms/alarm-{alarm}", f"alarm.{type}", data, self.clock[0])

    def pass_s(self, seconds):
        self.clock[0] += round(seconds * 1000)
        return self.notifier.step()

    def types(self):
        return [body["type"].split(".")[3] for _, body in self.sent]

    def only(self, webhook="webhook-1"):
        (delivery,) = self.store.webhooks.page(webhook).items
        return delivery


@pytest.fixture
def store(tmp_path):
    kept = Store(tmp_path / "store.sqlite")
    yield kept
    kept.close()


@pytest.fixture
def place(store):
    return Place(store)


def test_an_alarm_that_lasts_is_told_once_to_each(place):
    place.hook()
    place.hook("webhook-2")
    place.happen("opened", verdict="sensor broken")
    place.pass_s(DEBOUNCE_S - 1)
    assert place.sent == []
    for _ in range(3):
        place.pass_s(1)
    assert [webhook for webhook, _ in place.sent] == ["webhook-1", "webhook-2"]
    body = place.sent[0][1]
    assert (body["subject"], body["data"]) == ("alarm-17", {"verdict": "sensor broken"})
    assert place.only().state == "sent"


def test_an_alarm_that_is_gone_within_ten_minutes_is_told_to_nobody(place):
    place.hook()
    place.happen("opened")
    place.pass_s(300)
    place.happen("resolved")
    place.pass_s(2 * DEBOUNCE_S)
    place.pass_s(1)
    assert place.sent == []


def test_what_was_muted_is_remembered_by_another_process(place, store):
    place.hook()
    place.happen("opened")
    place.happen("snoozed")
    place.pass_s(DEBOUNCE_S)
    later = Place(store)
    later.clock[0] = place.clock[0]
    later.happen("resolved")
    later.pass_s(1)
    assert later.sent == []
    assert store.drift.marks("muted") == frozenset()


def test_other_events_are_told_to_nobody(place, store):
    place.hook()
    store.events.append("rollouts/digits-1", "rollout.started", {}, NOW)
    place.pass_s(DEBOUNCE_S)
    assert place.sent == []


def test_what_happened_before_somebody_listened_is_not_told(place):
    place.happen("resolved")
    place.clock[0] += 1000
    place.hook()
    place.pass_s(1)
    assert place.sent == []


def test_a_webhook_that_fails_is_asked_again_later_each_time_then_dead(place):
    place.hook()
    place.tried = Tried("it answered 503")
    place.happen("resolved")
    place.pass_s(0)
    for number, wait_s in enumerate(RETRY_S, 1):
        assert (len(place.sent), place.only().attempts) == (number, number)
        place.pass_s(wait_s - 0.001)
        assert len(place.sent) == number
        place.pass_s(0.001)
    delivery = place.only()
    assert (delivery.state, delivery.why) == ("dead", "it answered 503")
    place.pass_s(365 * 86_400)
    assert len(place.sent) == len(RETRY_S) + 1
    assert len({body["id"] for _, body in place.sent}) == 1


def test_dead_notices_are_sent_again_when_somebody_says_so(place, store):
    place.hook()
    place.tried = Tried("it answered 410", gone=True)
    place.happen("resolved")
    place.pass_s(0)
    place.tried = Tried()
    assert store.webhooks.retry("webhook-1", place.clock[0]) == 1
    place.pass_s(0)
    assert place.only().state == "sent"
    assert store.webhooks.get("webhook-1").stopped_ms is None


def test_410_stops_it(place, store):
    place.hook()
    place.tried = Tried("it answered 410", gone=True)
    place.happen("resolved", alarm=1)
    place.pass_s(0)
    place.happen("resolved", alarm=2)
    place.pass_s(0)
    assert len(place.sent) == 1
    hook = store.webhooks.get("webhook-1")
    assert (hook.stopped_ms, hook.why) == (place.clock[0], "it answered 410")
    assert store.audit.page().items[0].what == "webhook.stopped"


def test_one_that_does_not_answer_does_not_hold_up_the_others(place):
    place.hook()
    for alarm in range(5):
        place.happen("resolved", alarm=alarm)
    place.tried = Tried("no answer in time")
    place.pass_s(0)
    assert len(place.sent) == 1


def test_a_webhook_that_was_removed_meanwhile_is_asked_nothing(place, store):
    place.hook()
    place.tried = Tried("it answered 503")
    place.happen("resolved")
    place.pass_s(0)
    store.webhooks.remove("webhook-1")
    place.pass_s(3600)
    assert len(place.sent) == 1


def test_a_command_is_told_as_a_webhook_is(store):
    place = Place(store, command=("/usr/bin/page", "--stdin"))
    place.happen("resolved")
    place.pass_s(0)
    ((command, body),) = place.ran
    assert command == ("/usr/bin/page", "--stdin")
    assert body["type"] == "dev.outrider.alarm.resolved.v1"
    assert place.only(COMMAND).state == "sent"


def test_a_command_that_fails_is_run_again(store):
    place = Place(store, command=("/usr/bin/page",))
    place.tried = Tried("it ended with 1")
    place.happen("resolved")
    place.pass_s(0)
    place.pass_s(RETRY_S[0])
    assert len(place.ran) == 2


def test_a_broken_step_loses_and_repeats_no_delivery(place, store, monkeypatch):
    """Ends between the request and the note of it: it is brought again, under the same id."""
    place.hook()
    place.happen("resolved")

    def killed(_id, _now_ms):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(store.webhooks, "sent", killed)
        with pytest.raises(KeyboardInterrupt):
            place.pass_s(0)
    place.pass_s(1)
    first, second = (body for _, body in place.sent)
    assert first == second
    assert place.only().state == "sent"


def test_what_ended_long_ago_is_forgotten(place, store):
    place.hook()
    place.happen("resolved", alarm=1)
    place.pass_s(0)
    place.clock[0] += KEPT_MS + 1
    place.happen("resolved", alarm=2)
    place.pass_s(0)
    assert store.webhooks.count("webhook-1") == 1

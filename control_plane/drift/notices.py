"""Notices of alarms: which events are told and when, as what, signed how, tried again when.

A notice is a CloudEvent (1.0, structured JSON); a webhook gets it signed as Standard Webhooks has
it: HMAC-SHA256 over id, time and body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from protocol.codec import encode
from protocol.identifiers import FleetName
from protocol.wording import rfc3339

MEDIA_TYPE: Final = "application/cloudevents+json"
MAX_BODY: Final = 256 * 1024
"""Bytes of a notice."""
SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32

RETRY_S: Final = (5, 30, 120, 600, 1800, 7200, 18_000, 36_000)
"""After a failure, until the next try; after the last of them, it is dead."""
_SPREAD: Final = (0.8, 1.2)

_HELD: Final = "alarm.opened"
_WOKEN: Final = "alarm.reopened"
_ENDS: Final = ("alarm.resolved", "alarm.snoozed")


class Happened(Protocol):
    """An event of the store."""

    @property
    def id(self) -> int: ...
    @property
    def time_ms(self) -> int: ...
    @property
    def topic(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


H = TypeVar("H", bound=Happened)


@dataclass(frozen=True, slots=True)
class Planned(Generic[H]):
    """What is told now."""

    told: tuple[H, ...]
    mark: int
    """Everything up to this event is done with."""
    muted: frozenset[str]
    """Topics of alarms, as of the mark, that nobody was told of."""


def plan(
    events: Sequence[H], mark: int, muted: Collection[str], now_ms: int, debounce_ms: int
) -> Planned[H]:
    """Which of the events behind `mark`, in their order, are told.

    An alarm that opens is held back for `debounce_ms`, and with it all that happens to it. One that
    is resolved or snoozed by then was a passing matter: neither its beginning nor its end is told,
    unless it comes back. What is told again because an older event is still held back has the same
    id, so a queue that takes an event once takes it once.
    """
    quiet, held = set(muted), set[str]()
    told: list[H] = []
    kept, done = frozenset(muted), mark
    for number, event in enumerate(events):
        topic = event.topic
        if event.type == _HELD and topic not in held:
            if now_ms - event.time_ms < debounce_ms:
                held.add(topic)
            elif _passed(events[number + 1 :], event, debounce_ms):
                quiet.add(topic)
        if topic not in held:
            if event.type == _WOKEN:
                quiet.discard(topic)
            if topic not in quiet and not _asleep(event):
                told.append(event)
            if event.type == "alarm.resolved":
                quiet.discard(topic)
        if not held:
            kept, done = frozenset(quiet), event.id
    return Planned(tuple(told), done, kept)


def _passed(later: Sequence[Happened], opened: Happened, debounce_ms: int) -> bool:
    """Whether the last word on its state within the time was that it is over, or to be quiet."""
    state = ""
    for event in later:
        if event.topic == opened.topic and event.time_ms <= opened.time_ms + debounce_ms:
            state = event.type if event.type != "alarm.changed" else state
    return state in _ENDS


def _asleep(event: Happened) -> bool:
    """That an alarm looks otherwise is not told while it is snoozed."""
    return event.type == "alarm.changed" and event.data.get("state") == "snoozed"


def cloudevent(
    fleet: FleetName, id: str, type: str, topic: str, at_ms: int, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Of something that happened to `topic`; `id` is its own in the fleet."""
    return {
        "specversion": "1.0",
        "id": f"{fleet}-{id}",
        "source": f"/v1/fleets/{fleet}",
        "type": f"dev.outrider.{type}.v1",
        "subject": topic.partition("/")[2],
        "time": rfc3339(at_ms),
        "datacontenttype": "application/json",
        "data": dict(data),
    }


def text(fleet: FleetName, event: Happened) -> str:
    """The bytes of a notice, as text. Equal events give equal ones."""
    e = event
    return encode(cloudevent(fleet, str(e.id), e.type, e.topic, e.time_ms, e.data)).decode()


def trial(fleet: FleetName, webhook: str, id: str, now_ms: int) -> str:
    """A notice that tells of nothing, to try a webhook with."""
    about = {"webhook": webhook}
    made = cloudevent(fleet, id, "webhook.tested", f"webhooks/{webhook}", now_ms, about)
    return encode(made).decode()


def shown_secret(secret: bytes) -> str:
    """As whoever receives notices configures it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def read_secret(shown: str) -> bytes:
    """Raises `ValueError` for anything that `shown_secret` does not write."""
    if not shown.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret begins with {SECRET_PREFIX}")
    return base64.b64decode(shown.removeprefix(SECRET_PREFIX), validate=True)


def signature(secret: bytes, id: str, at_s: int, body: bytes) -> str:
    """Header `webhook-signature` for a notice of that id at that time (Unix seconds)."""
    signed = f"{id}.{at_s}.".encode() + body
    mac = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(mac).decode()


def headers(secret: bytes, id: str, now_ms: int, body: bytes) -> dict[str, str]:
    """Of the request that brings a notice."""
    at_s = now_ms // 1000
    return {
        "content-type": MEDIA_TYPE,
        "webhook-id": id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signature(secret, id, at_s, body),
    }


def next_try(failures: int, now_ms: int, chance: float) -> int | None:
    """When to try again after that many failures, in Unix ms; None: never. `chance`: 0 to 1."""
    if failures > len(RETRY_S):
        return None
    low, high = _SPREAD
    return now_ms + round(RETRY_S[failures - 1] * 1000 * (low + (high - low) * chance))

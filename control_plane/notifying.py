"""Tells people of alarms: events become deliveries, deliveries are brought and tried again.

Deliveries are in the store before anything is sent, and a try is noted when it has ended. So a
notice may come twice, under the same id, and is never lost.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from control_plane.drift.notices import Planned, next_try, plan, text
from control_plane.store import Store
from control_plane.store.events import Event
from control_plane.store.webhooks import Delivery, matches
from control_plane.webhooks import Tried, run
from protocol.identifiers import FleetName

log = logging.getLogger(__name__)

COMMAND: Final = "command"
"""What stands in the place of a webhook for deliveries to the command."""
TOPICS: Final = ("alarms",)
"""What can be listened to."""
MARK: Final = "notices"
MUTED: Final = "muted"
AT_ONCE: Final = 20
KEPT_MS: Final = 30 * 24 * 3_600_000
"""Deliveries that ended are shown for so long."""
_BATCH: Final = 500

Run = Callable[[Sequence[str], bytes], Tried]


class Sends(Protocol):
    """`control_plane.webhooks.Sender`."""

    def send(self, webhook: str, url: str, body: bytes, now_ms: int) -> Tried: ...


class Notifier:
    """`step` in a loop. `command`: empty for none."""

    def __init__(
        self,
        fleet: FleetName,
        store: Store,
        sender: Sends,
        now_ms: Callable[[], int],
        *,
        debounce_s: float,
        command: Sequence[str] = (),
        run: Run = run,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._sender = sender
        self._now_ms = now_ms
        self._debounce_ms = round(debounce_s * 1000)
        self._command = tuple(command)
        self._run = run
        self._chance = chance

    def step(self) -> float | None:
        """Queue what is to be told, then bring what is due. 0.0: more is due at once."""
        self._queue()
        due = self._store.webhooks.due(self._now_ms(), AT_ONCE)
        failing: set[str] = set()
        for each in due:
            # One that does not answer must not make the others wait for every of its notices.
            if each.webhook not in failing and not self._bring(each):
                failing.add(each.webhook)
        if due:
            self._store.webhooks.forget(self._now_ms() - KEPT_MS)
        return 0.0 if len(due) == AT_ONCE and not failing else None

    @property
    def detail(self) -> str:
        """For people: what waits, and what was given up."""
        waiting = self._store.webhooks.count(state="waiting")
        dead = self._store.webhooks.count(state="dead")
        return f"{waiting:,} waiting, {dead:,} dead"

    # --- events to deliveries -------------------------------------------------------------------

    def _queue(self) -> None:
        drift, now_ms = self._store.drift, self._now_ms()
        mark = drift.mark(MARK)
        if mark is None:
            # What happened before anybody could listen is history.
            drift.set_mark(MARK, self._store.events.span()[1])
            return
        events = self._events(mark)
        if not events:
            return
        muted = drift.marks(MUTED)
        found = plan(events, mark, muted, now_ms, self._debounce_ms)
        with self._store.write():
            for event in found.told:
                self._queue_one(event, now_ms)
            self._note(found, mark, muted)

    def _events(self, mark: int) -> tuple[Event, ...]:
        """Of alarms, behind the mark: few, unless one has been held back for long."""
        found: list[Event] = []
        while batch := self._store.events.after(found[-1].id if found else mark, TOPICS, _BATCH):
            found.extend(batch)
            if len(batch) < _BATCH:
                break
        return tuple(found)

    def _queue_one(self, event: Event, now_ms: int) -> None:
        hooks = [
            hook.id
            for hook in self._store.webhooks.all()
            if hook.stopped_ms is None
            and matches(hook.topics, event.topic)
            and event.time_ms >= hook.created_ms
        ]
        body = text(self._fleet, event)
        for each in (*hooks, *([COMMAND] if self._command else [])):
            self._store.webhooks.queue(each, event.id, body, now_ms)

    def _note(self, found: Planned[Event], mark: int, muted: frozenset[str]) -> None:
        drift = self._store.drift
        if found.mark != mark:
            drift.set_mark(MARK, found.mark)
        for topic in found.muted - muted:
            drift.set_mark(f"{MUTED}/{topic}", found.mark)
        for topic in muted - found.muted:
            drift.unmark(f"{MUTED}/{topic}")

    # --- deliveries -----------------------------------------------------------------------------

    def _bring(self, delivery: Delivery) -> bool:
        """Whether it was taken. The other side's time is spent outside of any transaction."""
        tried = self._try(delivery)
        rows, now_ms = self._store.webhooks, self._now_ms()
        if not tried.why:
            rows.sent(delivery.id, now_ms)
            return True
        again = next_try(delivery.attempts + 1, now_ms, self._chance())
        log.warning("notice %d to %s: %s", delivery.event, delivery.webhook, tried.why)
        with self._store.write():
            rows.failed(delivery.id, tried.why, None if tried.gone else again, now_ms)
            if tried.gone:
                self._stop(delivery.webhook, tried.why, now_ms)
        return False

    def _try(self, delivery: Delivery) -> Tried:
        body = delivery.body.encode()
        if delivery.webhook == COMMAND:
            return self._run(self._command, body) if self._command else Tried("there is no command")
        hook = self._store.webhooks.get(delivery.webhook)
        if hook is None:
            return Tried("it was removed")
        return self._sender.send(hook.id, hook.url, body, self._now_ms())

    def _stop(self, webhook: str, why: str, now_ms: int) -> None:
        self._store.webhooks.stop(webhook, why, now_ms)
        self._store.happened(
            "control plane",
            f"webhooks/{webhook}",
            "webhook.stopped",
            {"webhook": webhook},
            now_ms,
            why=why,
        )

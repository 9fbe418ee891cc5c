"""Who is told of alarms, and how far each notice is. Secrets are files, never in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from control_plane.store.table import Row, Slice, Table, cut, dump, load

DeliveryState = Literal["waiting", "sent", "dead"]

_HOOK: Final = "id, url, topics, who, created_ms, stopped_ms, why"
_DELIVERY: Final = "id, webhook, event, body, state, attempts, due_ms, done_ms, why"


@dataclass(frozen=True, slots=True)
class Hook:
    id: str
    url: str
    topics: tuple[str, ...]
    who: str
    """Who added it."""
    created_ms: int
    stopped_ms: int | None = None
    """It said that it is gone; nothing is sent any more."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notice for one webhook, or for the command (`webhook` is "command" then)."""

    id: int
    webhook: str
    event: int
    """Id of the event that it tells of."""
    body: str
    """The very bytes that are sent and signed."""
    state: DeliveryState
    attempts: int
    due_ms: int
    done_ms: int | None
    why: str
    """Of the last failure."""


class Webhooks(Table):
    def add(self, hook: Hook) -> None:
        self._do(
            f"INSERT INTO webhook ({_HOOK}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                hook.id,
                hook.url,
                dump(list(hook.topics)),
                hook.who,
                hook.created_ms,
                hook.stopped_ms,
                hook.why,
            ),
        )

    def get(self, id: str) -> Hook | None:
        row = self._one(f"SELECT {_HOOK} FROM webhook WHERE id = ?", (id,))
        return _hook(row) if row else None

    def all(self) -> tuple[Hook, ...]:
        """In the order in which they were added."""
        return tuple(map(_hook, self._all(f"SELECT {_HOOK} FROM webhook ORDER BY created_ms, id")))

    def stop(self, id: str, why: str, now_ms: int) -> None:
        """Send nothing any more; what waits is dead."""
        with self._write():
            self._do("UPDATE webhook SET stopped_ms = ?, why = ? WHERE id = ?", (now_ms, why, id))
            self._do(
                "UPDATE delivery SET state = 'dead', done_ms = ?, why = ?"
                " WHERE webhook = ? AND state = 'waiting'",
                (now_ms, why, id),
            )

    def remove(self, id: str) -> None:
        """With its deliveries."""
        with self._write():
            self._do("DELETE FROM delivery WHERE webhook = ?", (id,))
            self._do("DELETE FROM webhook WHERE id = ?", (id,))

    # --- deliveries -----------------------------------------------------------------------------

    def queue(self, webhook: str, event: int, body: str, due_ms: int) -> None:
        """Once per webhook and event, however often it is asked for."""
        self._do(
            "INSERT INTO delivery (webhook, event, body, state, due_ms)"
            " VALUES (?, ?, ?, 'waiting', ?) ON CONFLICT (webhook, event) DO NOTHING",
            (webhook, event, body, due_ms),
        )

    def due(self, now_ms: int, limit: int) -> tuple[Delivery, ...]:
        """The longest due first."""
        rows = self._all(
            f"SELECT {_DELIVERY} FROM delivery WHERE state = 'waiting' AND due_ms <= ?"
            " ORDER BY due_ms, id LIMIT ?",
            (now_ms, limit),
        )
        return tuple(Delivery(*row) for row in rows)

    def sent(self, id: int, now_ms: int) -> None:
        self._do(
            "UPDATE delivery SET state = 'sent', attempts = attempts + 1, done_ms = ?, why = ''"
            " WHERE id = ? AND state = 'waiting'",
            (now_ms, id),
        )

    def failed(self, id: int, why: str, due_ms: int | None, now_ms: int) -> None:
        """`due_ms` None: it is not tried again."""
        self._do(
            "UPDATE delivery SET attempts = attempts + 1, why = ?1, due_ms = coalesce(?2, due_ms),"
            " state = iif(?2 IS NULL, 'dead', 'waiting'), done_ms = iif(?2 IS NULL, ?3, NULL)"
            " WHERE id = ?4 AND state = 'waiting'",
            (why, due_ms, now_ms, id),
        )

    def retry(self, webhook: str, now_ms: int) -> int:
        """All dead ones are due again, and a webhook that had stopped goes on. How many."""
        with self._write():
            self._do("UPDATE webhook SET stopped_ms = NULL, why = '' WHERE id = ?", (webhook,))
            return self._do(
                "UPDATE delivery SET state = 'waiting', attempts = 0, due_ms = ?, done_ms = NULL"
                " WHERE webhook = ? AND state = 'dead'",
                (now_ms, webhook),
            )

    def page(
        self,
        webhook: str,
        state: DeliveryState | None = None,
        after: tuple[str | int, ...] | None = None,
        limit: int = 50,
    ) -> Slice[Delivery]:
        """Newest first. Key: (id,)."""
        rows = self._all(
            f"SELECT {_DELIVERY} FROM delivery WHERE webhook = ?1 AND id < ?2"
            " AND (?3 IS NULL OR state = ?3) ORDER BY id DESC LIMIT ?4",
            (webhook, int(after[0]) if after else 2**53, state, limit + 1),
        )
        return cut([Delivery(*row) for row in rows], limit, lambda each: (each.id,))

    def count(self, webhook: str | None = None, state: DeliveryState | None = None) -> int:
        return self._number(
            "SELECT count(*) FROM delivery WHERE (?1 IS NULL OR webhook = ?1)"
            " AND (?2 IS NULL OR state = ?2)",
            (webhook, state),
        )

    def forget(self, before_ms: int) -> int:
        """Deliveries that ended before."""
        return self._do("DELETE FROM delivery WHERE done_ms < ?", (before_ms,))


def _hook(row: Row) -> Hook:
    id, url, topics, who, created_ms, stopped_ms, why = row
    return Hook(id, url, load(topics, tuple[str, ...]), who, created_ms, stopped_ms, why)


def matches(topics: Sequence[str], topic: str) -> bool:
    """A topic also stands for everything below it."""
    return any(topic == each or topic.startswith(f"{each}/") for each in topics)

"""What happened, in order, once: streams, webhooks and the audit read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.store.table import Row, Table, dump, load


@dataclass(frozen=True, slots=True)
class Event:
    """`topic` is what it is about ("rollouts/digits-7"), `type` what happened
    ("rollout.verdict")."""

    id: int
    time_ms: int
    topic: str
    type: str
    data: dict[str, Any]


class Events(Table):
    def append(self, topic: str, type: str, data: Mapping[str, Any], now_ms: int) -> int:
        """Returns the event's id. Ids increase strictly and are never used again."""
        with self._write() as connection:
            done = connection.execute(
                "INSERT INTO event (time_ms, topic, type, data) VALUES (?, ?, ?, ?)",
                (now_ms, topic, type, dump(dict(data))),
            )
            return int(done.lastrowid or 0)

    def after(self, id: int, topics: Sequence[str] = (), limit: int = 500) -> tuple[Event, ...]:
        """Events behind `id`. A topic also stands for everything below it; none means all."""
        wanted = " OR ".join("topic = ? OR topic LIKE ? || '/%'" for _ in topics) or "1"
        values = [each for topic in topics for each in (topic, topic)]
        rows = self._all(
            f"SELECT id, time_ms, topic, type, data FROM event WHERE id > ? AND ({wanted}) "
            "ORDER BY id LIMIT ?",
            (id, *values, limit),
        )
        return tuple(_event(row) for row in rows)

    def span(self) -> tuple[int, int]:
        """Ids of the oldest and the newest event that are kept; (0, 0) without any."""
        row = self._one("SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM event")
        return (row[0], row[1]) if row else (0, 0)

    def forget(self, before_ms: int) -> int:
        return self._do("DELETE FROM event WHERE time_ms < ?", (before_ms,))


def _event(row: Row) -> Event:
    id, time_ms, topic, type, data = row
    return Event(id, time_ms, topic, type, load(data, dict[str, Any]))

"""Alarms, and the chain of records that each of them rests on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from control_plane.drift.alarms import Alarm
from control_plane.drift.findings import FoundFeature
from control_plane.drift.words import STATES, State
from control_plane.store.table import Row, Slice, Table, cut, dump, load
from protocol.identifiers import Digest, ModelName

UNRESOLVED: Final[tuple[State, ...]] = tuple(state for state in STATES if state != "resolved")

_COLUMNS: Final = (
    "id, number, key, model, bundle, manifest, profile, kind, subject, verdict, sentence, "
    "features, state, opened_ms, changed_ms, seen_ms, until_ms, quiet, who, why, evidence"
)


@dataclass(frozen=True, slots=True)
class AlarmRecord:
    """`body` is exactly the text that `digest` is of. Numbers count from 1 in each alarm."""

    digest: Digest
    alarm: str
    number: int
    at_ms: int
    body: str


class Alarms(Table):
    def add(self, alarm: Alarm) -> Alarm:
        """Store a new one; returns it with its number and id. Raises `sqlite3.IntegrityError`
        while its key has one that is not resolved."""
        with self._write():
            number = self._number("SELECT seq FROM sqlite_sequence WHERE name = 'alarm'") + 1
            named = replace(alarm, number=number, id=f"alarm-{number}")
            self._do(
                f"INSERT INTO alarm ({_COLUMNS}) VALUES ({', '.join('?' * 21)})", _values(named)
            )
            return named

    def put(self, alarm: Alarm) -> None:
        """Store what has changed of it."""
        columns = ", ".join(f"{each} = ?" for each in _COLUMNS.split(", ")[2:])
        self._do(f"UPDATE alarm SET {columns} WHERE id = ?", (*_values(alarm)[2:], alarm.id))

    def get(self, id: str) -> Alarm | None:
        row = self._one(f"SELECT {_COLUMNS} FROM alarm WHERE id = ?", (id,))
        return _alarm(row) if row else None

    def open(self, model: ModelName | None = None) -> tuple[Alarm, ...]:
        """All that are not resolved, of a model or of all; the oldest first."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM alarm WHERE state <> 'resolved' AND (?1 IS NULL OR model = ?1)"
            " ORDER BY number",
            (model,),
        )
        return tuple(map(_alarm, rows))

    def resolved_since(self, at_ms: int) -> tuple[Alarm, ...]:
        """The oldest first."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM alarm WHERE state = 'resolved' AND changed_ms > ?"
            " ORDER BY number",
            (at_ms,),
        )
        return tuple(map(_alarm, rows))

    def page(
        self,
        states: Collection[State] = UNRESOLVED,
        model: ModelName | None = None,
        after: tuple[str | int, ...] | None = None,
        limit: int = 50,
    ) -> Slice[Alarm]:
        """Newest first. Key: (number,)."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM alarm WHERE number < ?1 AND (?2 IS NULL OR model = ?2)"
            " AND state IN (SELECT value FROM json_each(?3)) ORDER BY number DESC LIMIT ?4",
            (int(after[0]) if after else 2**53, model, dump(sorted(states)), limit + 1),
        )
        return cut([_alarm(row) for row in rows], limit, lambda each: (each.number,))

    def count(self, states: Collection[State] = UNRESOLVED, model: ModelName | None = None) -> int:
        return self._number(
            "SELECT count(*) FROM alarm WHERE (?1 IS NULL OR model = ?1)"
            " AND state IN (SELECT value FROM json_each(?2))",
            (model, dump(sorted(states))),
        )

    # --- records --------------------------------------------------------------------------------

    def add_record(self, alarm: str, digest: Digest, body: str, at_ms: int) -> None:
        """Behind the records that the alarm has."""
        self._do(
            "INSERT INTO alarm_record (digest, alarm, number, at_ms, body) VALUES (?1, ?2,"
            " (SELECT coalesce(max(number), 0) + 1 FROM alarm_record WHERE alarm = ?2), ?3, ?4)",
            (digest, alarm, at_ms, body),
        )

    def records(self, alarm: str) -> tuple[AlarmRecord, ...]:
        """In the order in which they were made."""
        rows = self._all(
            "SELECT digest, alarm, number, at_ms, body FROM alarm_record WHERE alarm = ?"
            " ORDER BY number",
            (alarm,),
        )
        return tuple(AlarmRecord(*row) for row in rows)

    def record(self, alarm: str, digest: Digest | None = None) -> AlarmRecord | None:
        """One of an alarm; the newest without a digest."""
        row = self._one(
            "SELECT digest, alarm, number, at_ms, body FROM alarm_record WHERE alarm = ?1"
            " AND (?2 IS NULL OR digest = ?2) ORDER BY number DESC LIMIT 1",
            (alarm, digest),
        )
        return AlarmRecord(*row) if row else None


def _values(alarm: Alarm) -> tuple[object, ...]:
    a = alarm
    return (
        a.id, a.number, a.key, a.model, a.bundle, a.manifest, a.profile, a.kind, a.subject,
        a.verdict, a.sentence, dump(list(a.features)), a.state, a.opened_ms, a.changed_ms,
        a.seen_ms, a.until_ms, a.quiet, a.by, a.why, a.evidence,
    )  # fmt: skip


def _alarm(row: Row) -> Alarm:
    read = (*row[:11], load(row[11], tuple[FoundFeature, ...]), *row[12:])
    return Alarm(*read)

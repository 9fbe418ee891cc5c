"""The audit trail, append-only: the database refuses to change or remove a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from control_plane.audit import Line, Record, head_of, line_of
from control_plane.store.table import Slice, Table, load
from protocol.codec import to_wire

_PAGE = 500


class Audit(Table):
    def append(
        self,
        who: str,
        what: str,
        about: str,
        data: Mapping[str, Any],
        now_ms: int,
        *,
        before: Any = None,
        after: Any = None,
        why: str = "",
        evidence: str = "",
    ) -> str:
        """Returns the new head."""
        with self._write():
            last = self._one("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
            number, previous = (last[0] + 1, last[1]) if last else (1, "")
            record = Record(
                number,
                now_ms,
                who,
                what,
                about,
                to_wire(dict(data)),
                to_wire(before),
                to_wire(after),
                why,
                evidence,
                previous,
            )
            line = line_of(record)
            self._do(
                "INSERT INTO audit (number, time_ms, who, what, about, line, hash) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, now_ms, who, what, about, line.text, line.hash),
            )
            return head_of(number, line.hash)

    def head(self) -> str:
        """ "<number>:<hash>" of the newest record; "" without any."""
        row = self._one("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
        return head_of(*row) if row else ""

    def count(self) -> int:
        return self._number("SELECT count(*) FROM audit")

    def lines(self, after: int = 0, to: int | None = None) -> Iterator[Line]:
        """As kept, in order, behind a number; bounded memory."""
        while True:
            rows = self._all(
                "SELECT number, line, hash FROM audit WHERE number > ? AND number <= ? "
                "ORDER BY number LIMIT ?",
                (after, 2**53 if to is None else to, _PAGE),
            )
            yield from (Line(text, hash) for _, text, hash in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def page(
        self,
        after: tuple[str | int, ...] | None = None,
        limit: int = 50,
        *,
        who: str | None = None,
        about: str | None = None,
    ) -> Slice[Record]:
        """Newest first. `about` also stands for everything below it. Key: (number,)."""
        rows = self._all(
            "SELECT line FROM audit WHERE number < ? AND (? IS NULL OR who = ?) "
            "AND (? IS NULL OR about = ? OR about LIKE ? || '/%') ORDER BY number DESC LIMIT ?",
            (int(after[0]) if after else 2**53, who, who, about, about, about, limit + 1),
        )
        records = [load(row[0], Record) for row in rows]
        kept = tuple(records[:limit])
        return Slice(kept, (kept[-1].number,) if len(records) > limit and kept else None)

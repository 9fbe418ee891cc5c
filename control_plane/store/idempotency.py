"""Answers of requests that may be sent again: the same key gets the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.store.table import Table, dump, load
from protocol.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Idempotency(Table):
    def begin(self, key: str, request: str, now_ms: int) -> Answer | None:
        """Claim `key` for a request (digest of method, path and body).

        None means: do it, then `finish` or `release`. An answer means: it was done before.
        Raises `InvalidRequest` OUT-S140 for another request, OUT-S141 while the first one runs.
        """
        with self._write():
            row = self._one(
                "SELECT request, status, headers, body FROM idempotency WHERE key = ?", (key,)
            )
            if row is None:
                self._do(
                    "INSERT INTO idempotency (key, request, created_ms) VALUES (?, ?, ?)",
                    (key, request, now_ms),
                )
                return None
        if row[0] != request:
            raise InvalidRequest("OUT-S140")
        if row[1] is None:
            raise InvalidRequest("OUT-S141")
        return Answer(row[1], load(row[2], dict[str, str]), row[3])

    def finish(self, key: str, answer: Answer) -> None:
        self._do(
            "UPDATE idempotency SET status = ?, headers = ?, body = ? WHERE key = ?",
            (answer.status, dump(_plain(answer.headers)), answer.body, key),
        )

    def release(self, key: str) -> None:
        """The request left nothing behind: it may be tried again under the same key."""
        self._do("DELETE FROM idempotency WHERE key = ? AND status IS NULL", (key,))

    def release_interrupted(self) -> int:
        """At start: no request of an earlier process is still running."""
        return self._do("DELETE FROM idempotency WHERE status IS NULL")

    def forget(self, before_ms: int) -> int:
        return self._do("DELETE FROM idempotency WHERE created_ms < ?", (before_ms,))


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(headers)

"""People and programs that may call the API: only hashes of their tokens, one token each."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from dataclasses import dataclass

from control_plane.roles import LOCAL, Role
from control_plane.store.table import Row, Table
from protocol.errors import InvalidRequest

_COLUMNS = "hash, name, role, created_ms, expires_ms, used_ms, revoked_ms"
_USED_MS = 60_000
"""When a token was used last is noted this precisely: not every request writes."""


@dataclass(frozen=True, slots=True)
class Person:
    hash: str
    """Digest of the token."""
    name: str
    role: Role
    created_ms: int
    expires_ms: int | None = None
    used_ms: int | None = None
    revoked_ms: int | None = None

    def valid(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


class People(Table):
    def create(
        self, hash: str, name: str, role: Role, now_ms: int, expires_ms: int | None = None
    ) -> Person:
        """Raises `InvalidRequest` OUT-A205 when somebody of this name has a valid token."""
        with self._write():
            if any(each.valid(now_ms) for each in self.named(name)):
                raise InvalidRequest("OUT-A205", f"{name} has one")
            self._do(
                "INSERT INTO person (hash, name, role, created_ms, expires_ms) "
                "VALUES (?, ?, ?, ?, ?)",
                (hash, name, role, now_ms, expires_ms),
            )
            return Person(hash, name, role, now_ms, expires_ms)

    def keep_local(self, hash: str, now_ms: int) -> None:
        """The token in the control plane's folder is this one; any other before it is revoked."""
        with self._write():
            row = self._one("SELECT revoked_ms FROM person WHERE hash = ?", (hash,))
            if row is None:
                self.revoke(LOCAL, now_ms)
                self.create(hash, LOCAL, "admin", now_ms)

    def by_hash(self, hash: str) -> Person | None:
        row = self._one(f"SELECT {_COLUMNS} FROM person WHERE hash = ?", (hash,))
        return _person(row) if row else None

    def named(self, name: str) -> tuple[Person, ...]:
        rows = self._all(
            f"SELECT {_COLUMNS} FROM person WHERE name = ? ORDER BY created_ms", (name,)
        )
        return tuple(map(_person, rows))

    def all(self) -> tuple[Person, ...]:
        """By name; a name's tokens, oldest first."""
        rows = self._all(f"SELECT {_COLUMNS} FROM person ORDER BY name, created_ms, hash")
        return tuple(map(_person, rows))

    def used(self, hash: str, now_ms: int) -> None:
        """Writes at most once a minute, and not at all where the store cannot be written now:
        whoever wants to see what is wrong must still be let in."""
        noted = self._one("SELECT used_ms FROM person WHERE hash = ?", (hash,))
        if noted is not None and (noted[0] is None or noted[0] < now_ms - _USED_MS):
            with suppress(sqlite3.OperationalError):
                self._do("UPDATE person SET used_ms = ? WHERE hash = ?", (now_ms, hash))

    def revoke(self, name: str, now_ms: int) -> int:
        """How many valid tokens it had."""
        return self._do(
            "UPDATE person SET revoked_ms = ? WHERE name = ? AND revoked_ms IS NULL "
            "AND (expires_ms IS NULL OR expires_ms > ?)",
            (now_ms, name, now_ms),
        )


def _person(row: Row) -> Person:
    return Person(*row)

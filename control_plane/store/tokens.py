"""Enrolment tokens: only their hashes, each good for one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.store.table import Table, dump, load
from protocol.device import Pin
from protocol.identifiers import ModelName


@dataclass(frozen=True, slots=True)
class Token:
    hash: str
    expires_ms: int
    labels: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    """Local device name that it enrols; None leaves the choice to the device."""
    used_ms: int | None = None
    pins: dict[ModelName, Pin] = field(default_factory=dict)
    """What the new device is pinned to from its first document on."""


class Tokens(Table):
    def create(
        self,
        hash: str,
        labels: Mapping[str, str],
        name: str | None,
        expires_ms: int,
        pins: Mapping[ModelName, Pin] | None = None,
    ) -> None:
        self._do(
            "INSERT INTO token (hash, labels, name, expires_ms, pins) VALUES (?, ?, ?, ?, ?)",
            (hash, dump(dict(labels)), name, expires_ms, dump(dict(pins or {}))),
        )

    def get(self, hash: str) -> Token | None:
        row = self._one(
            "SELECT hash, expires_ms, labels, name, used_ms, pins FROM token WHERE hash = ?",
            (hash,),
        )
        if row is None:
            return None
        labels, pins = load(row[2], dict[str, str]), load(row[5], dict[ModelName, Pin])
        return Token(row[0], row[1], labels, row[3], row[4], pins)

    def consume(self, hash: str, now_ms: int) -> Token | None:
        """Take the token if it is unused and not expired; of two who try, one gets it.

        None otherwise: `get` tells an expired token from an unknown one.
        """
        with self._write():
            taken = self._do(
                "UPDATE token SET used_ms = ? "
                "WHERE hash = ? AND used_ms IS NULL AND expires_ms > ?",
                (now_ms, hash, now_ms),
            )
            return self.get(hash) if taken else None

    def forget(self, before_ms: int) -> int:
        """Remove tokens that expired before a time."""
        return self._do("DELETE FROM token WHERE expires_ms < ?", (before_ms,))

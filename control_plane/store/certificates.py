"""Certificates of devices: all that were ever issued, and which of them are revoked."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.store.table import Table
from protocol.identifiers import DeviceId, Digest

_COLUMNS = "serial, device, fingerprint, public_key, not_after_ms, issued_ms, revoked_ms, reason"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. Times are Unix ms."""

    serial: str
    """Hexadecimal, lower case."""
    device: DeviceId
    fingerprint: Digest
    public_key: str
    """PEM."""
    not_after_ms: int
    issued_ms: int
    revoked_ms: int | None = None
    reason: str = ""
    """Why it was revoked."""


class Certificates(Table):
    def add(self, certificate: Certificate) -> None:
        marks = ", ".join("?" for _ in _COLUMNS.split(", "))
        self._do(
            f"INSERT INTO certificate ({_COLUMNS}) VALUES ({marks})",
            (
                certificate.serial,
                certificate.device,
                certificate.fingerprint,
                certificate.public_key,
                certificate.not_after_ms,
                certificate.issued_ms,
                certificate.revoked_ms,
                certificate.reason,
            ),
        )

    def of(self, device: DeviceId) -> tuple[Certificate, ...]:
        """All of a device, the newest first."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM certificate WHERE device = ? "
            "ORDER BY issued_ms DESC, serial LIMIT 1000",
            (device,),
        )
        return tuple(Certificate(*row) for row in rows)

    def owners(self, public_key: str) -> tuple[DeviceId, ...]:
        """Devices to whose key (PEM) a certificate was ever issued."""
        rows = self._all(
            "SELECT DISTINCT device FROM certificate WHERE public_key = ? ORDER BY device",
            (public_key,),
        )
        return tuple(row[0] for row in rows)

    def revoke(
        self, device: DeviceId, now_ms: int, reason: str, *, but_keys: tuple[str, ...] = ()
    ) -> int:
        """Revoke what a device has, except for certificates of some keys; how many were.

        What is revoked already keeps its time and reason.
        """
        marks = ", ".join("?" for _ in but_keys)
        return self._do(
            "UPDATE certificate SET revoked_ms = ?, reason = ? "
            f"WHERE device = ? AND revoked_ms IS NULL AND public_key NOT IN ({marks})",
            (now_ms, reason, device, *but_keys),
        )

    def revoked(self, unexpired_at_ms: int) -> tuple[tuple[str, int], ...]:
        """Serial and time of each that is revoked and had not expired at a time, by serial.

        Others need not be on a list: they are refused for their age.
        """
        rows = self._all(
            "SELECT serial, revoked_ms FROM certificate "
            "WHERE revoked_ms IS NOT NULL AND not_after_ms > ? ORDER BY serial",
            (unexpired_at_ms,),
        )
        return tuple((row[0], row[1]) for row in rows)

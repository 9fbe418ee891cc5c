"""What has been encoded for travel: per file, the ways in which a device can obtain it."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.store.table import Connect, Row, Table, Write
from protocol.identifiers import Digest, ModelName
from protocol.payload import HintEntry

_COLUMNS = "model, file, payload, size, frames, features, decode_memory, base, path, encoded_ms"


@dataclass(frozen=True, slots=True)
class EncodedPayload:
    """One encoding of `file`. `path` of the encoded bytes is relative to the home."""

    model: ModelName
    file: Digest
    entry: HintEntry
    path: str
    encoded_ms: int


class Payloads(Table):
    def __init__(self, connect: Connect, write: Write) -> None:
        super().__init__(connect, write)
        self.changes = 0
        """Grows with every change that this process makes: no other process makes any."""

    def put(self, payload: EncodedPayload) -> None:
        entry = payload.entry
        self._do(
            f"INSERT OR REPLACE INTO payload ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                payload.model,
                payload.file,
                entry.payload,
                entry.size,
                entry.frames,
                entry.features,
                entry.decode_memory,
                entry.base,
                payload.path,
                payload.encoded_ms,
            ),
        )
        self.changes += 1

    def of_file(self, model: ModelName, file: Digest) -> tuple[EncodedPayload, ...]:
        """Smallest first: the order of a hint."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM payload WHERE model = ? AND file = ? ORDER BY size, payload",
            (model, file),
        )
        return tuple(_payload(row) for row in rows)

    def find(self, payload: Digest) -> EncodedPayload | None:
        """For a device's `want`, which names a payload only."""
        row = self._one(f"SELECT {_COLUMNS} FROM payload WHERE payload = ?", (payload,))
        return _payload(row) if row else None

    def of_model(self, model: ModelName) -> tuple[EncodedPayload, ...]:
        rows = self._all(
            f"SELECT {_COLUMNS} FROM payload WHERE model = ? ORDER BY file, size, payload", (model,)
        )
        return tuple(_payload(row) for row in rows)

    def remove(self, model: ModelName, file: Digest, payload: Digest) -> int:
        removed = self._do(
            "DELETE FROM payload WHERE model = ? AND file = ? AND payload = ?",
            (model, file, payload),
        )
        self.changes += 1
        return removed


def _payload(row: Row) -> EncodedPayload:
    model, file, payload, size, frames, features, memory, base, path, encoded_ms = row
    entry = HintEntry(payload, size, frames, features, memory, base)
    return EncodedPayload(model, file, entry, path, encoded_ms)

"""The receiving side of telemetry: the real ingest on a database that has records only."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import sqlite_utils

from control_plane.ingest import Ingest
from control_plane.store.migrations import m0004_records
from control_plane.store.records import Records
from protocol.identifiers import DeviceId
from protocol.reported import ReportedState
from protocol.telemetry import Want
from protocol.topics import Topics
from tests.fakes.telemetry import DEVICE

TOPICS = Topics("local")


class RecordsFile:
    """A database with the tables of records only: one connection per thread, as in the store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        db = sqlite_utils.Database(self.connection())
        if "record" not in db.table_names():
            m0004_records.migrate(db)

    def connection(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(
                self.path, isolation_level=None, timeout=30, check_same_thread=False
            )
            db.execute("PRAGMA journal_mode=WAL")
            self._local.db = db
            self._connections.append(db)
        return db

    def close(self) -> None:
        for db in self._connections:
            db.close()
        self._local = threading.local()

    def copy_to(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as copy:
            self.connection().backup(copy)
        copy.close()


class Receiver:
    """A control plane's ingest with its callables recorded."""

    def __init__(
        self, file: RecordsFile, *, seed: int = 1, known: Sequence[DeviceId] = (DEVICE,)
    ) -> None:
        self.file = file
        self.records = Records(file.connection)
        self.known = set(known)
        self.states: dict[DeviceId, ReportedState] = {}
        self.contacts: dict[DeviceId, int] = {}
        self.wants: list[tuple[DeviceId, Want]] = []
        self.now_ms = 1_000
        self.wait: float | None = None
        self.ingest = Ingest(
            TOPICS,
            self.records,
            accepts=self.known.__contains__,
            on_state=self._state,
            on_contact=self.contacts.__setitem__,
            on_want=lambda device, want: self.wants.append((device, want)),
            now_ms=lambda: self.now_ms,
            rng=random.Random(seed),
            spread_s=0.0,
            wait_s=lambda: self.wait,
        )

    def _state(self, device: DeviceId, state: ReportedState) -> None:
        known = self.states.get(device)
        if known is None or known.order < state.order:
            self.states[device] = state

    def receive(self, data: bytes, device: DeviceId = DEVICE) -> list[bytes]:
        """The acks for one upload, which must not be refused."""
        answer = self.ingest.handle(TOPICS.up(device, "records"), data)
        assert answer.problem is None, answer.why
        assert all(ack.topic == TOPICS.ack(device) for ack in answer.acks)
        return [ack.data for ack in answer.acks]

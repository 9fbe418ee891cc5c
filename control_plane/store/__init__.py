"""The control plane's state: SQLite, one object per noun, domain types beside their SQL."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from control_plane.store import migrations
from control_plane.store.alarms import Alarms
from control_plane.store.audit import Audit
from control_plane.store.bets import Bets
from control_plane.store.bundles import Bundles
from control_plane.store.certificates import Certificates
from control_plane.store.connections import Connections
from control_plane.store.deltas import Deltas
from control_plane.store.devices import Devices
from control_plane.store.drift_rows import DriftRows
from control_plane.store.events import Events
from control_plane.store.evidence import EvidenceRows
from control_plane.store.idempotency import Idempotency
from control_plane.store.operations import Operations
from control_plane.store.payloads import Payloads
from control_plane.store.people import People
from control_plane.store.plans import Plans
from control_plane.store.records import Records
from control_plane.store.rollouts import Rollouts
from control_plane.store.shadows import Shadows
from control_plane.store.tokens import Tokens
from control_plane.store.webhooks import Webhooks


class Store:
    """Opens and migrates `path`. May be used from any thread; each has its own connection.

    Several calls that belong together go into one `write()` block.
    """

    def __init__(
        self, path: Path, *, changes: Sequence[migrations.Migration] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connections = Connections(path)
        migrations.apply(
            self._connections.get(), migrations.known() if changes is None else changes
        )
        write = self._connections.write
        get = self._connections.get
        self.devices = Devices(get, write)
        self.tokens = Tokens(get, write)
        self.certificates = Certificates(get, write)
        self.bundles = Bundles(get, write)
        self.payloads = Payloads(get, write)
        self.deltas = Deltas(get, write)
        self.rollouts = Rollouts(get, write)
        self.shadows = Shadows(get, write)
        self.bets = Bets(get, write)
        self.evidence = EvidenceRows(get, write)
        self.plans = Plans(get, write)
        self.events = Events(get, write)
        self.operations = Operations(get, write)
        self.idempotency = Idempotency(get, write)
        self.records = Records(get)
        self.people = People(get, write)
        self.audit = Audit(get, write)
        self.drift = DriftRows(get, write)
        self.alarms = Alarms(get, write)
        self.webhooks = Webhooks(get, write)

    def connection(self) -> sqlite3.Connection:
        return self._connections.get()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction around everything inside; the inner ones of the objects join it."""
        with self._connections.write() as connection:
            yield connection

    def happened(
        self,
        who: str,
        topic: str,
        type: str,
        data: Mapping[str, Any],
        now_ms: int,
        *,
        before: Any = None,
        after: Any = None,
        why: str = "",
        evidence: str = "",
    ) -> None:
        """Note a change: the event for whoever watches, the record for whoever asks later.

        Belongs into the `write()` block of the change itself. `who` is a person's name,
        `device:<id>`, `gate`, `ticker`, `drift watch` or `control plane`; `evidence` the digest
        of what an automatic decision rests on.
        """
        with self.write():
            said = {**data, "why": why} if why else data
            self.events.append(topic, type, said, now_ms)
            self.audit.append(
                who,
                type,
                topic,
                data,
                now_ms,
                before=before,
                after=after,
                why=why,
                evidence=evidence,
            )

    def close(self) -> None:
        self._connections.close()

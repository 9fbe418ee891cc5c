"""The control plane's state: SQLite, one object per noun, domain types beside their SQL."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from control_plane.store import migrations
from control_plane.store.bundles import Bundles
from control_plane.store.connections import Connections
from control_plane.store.devices import Devices
from control_plane.store.events import Events
from control_plane.store.idempotency import Idempotency
from control_plane.store.operations import Operations
from control_plane.store.payloads import Payloads
from control_plane.store.plans import Plans
from control_plane.store.records import Records
from control_plane.store.rollouts import Rollouts
from control_plane.store.tokens import Tokens


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
        self.bundles = Bundles(get, write)
        self.payloads = Payloads(get, write)
        self.rollouts = Rollouts(get, write)
        self.plans = Plans(get, write)
        self.events = Events(get, write)
        self.operations = Operations(get, write)
        self.idempotency = Idempotency(get, write)
        self.records = Records(get)

    def connection(self) -> sqlite3.Connection:
        return self._connections.get()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction around everything inside; the inner ones of the objects join it."""
        with self._connections.write() as connection:
            yield connection

    def close(self) -> None:
        self._connections.close()

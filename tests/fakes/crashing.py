"""A store in which the process seems to end in the middle of a transaction."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from control_plane.store import Store


class Crash(Exception):
    pass


def crashing_at(store: Store, number: int) -> contextlib.ExitStack:
    """The `number`th transaction from now on is undone, as if the process had ended in it."""
    stack, left = contextlib.ExitStack(), [number]
    real = store._connections.write

    @contextlib.contextmanager
    def write() -> Iterator[sqlite3.Connection]:
        outermost = not store.connection().in_transaction
        with real() as connection:
            yield connection
            if outermost:
                left[0] -= 1
                if left[0] == 0:
                    raise Crash

    tables = [store.bets, store.evidence, store.rollouts.members]
    for table in tables:
        stack.callback(setattr, table, "_write", table._write)
        table._write = write
    stack.callback(setattr, store._connections, "write", real)
    store._connections.write = write  # type: ignore[method-assign] # the same
    return stack

"""Work that takes longer than a request: done one after the other in a thread, told as operations.

An operation outlives this process; its work does not. What a killed control plane left
unfinished is marked as failed when the next one starts: repeating a push is safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from control_plane.store import Store
from control_plane.store.operations import Operation
from control_plane.web.problems import body
from protocol.errors import Failed, InvalidRequest, OutriderError

log = logging.getLogger(__name__)

KEPT_MS: Final = 7 * 24 * 3_600_000

Tell = Callable[[int, int, str], None]
"""`(done, total, unit)`."""
Task = Callable[[Tell], Mapping[str, Any]]


class Work:
    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        # One at a time: encoding a bundle may take all memory that one may take.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="work")

    def recover(self) -> int:
        """Close what an earlier process left; how much that was. Before the first `start`."""
        operations = self._store.operations
        operations.forget(self._now_ms() - KEPT_MS)
        left = operations.unfinished()
        for operation in left:
            why = f"{operation.kind} was {operation.state} when it stopped"
            problem = body(InvalidRequest("OUT-S146", why), operation.id)
            operations.fail(operation.id, problem, self._now_ms())
        return len(left)

    def start(self, kind: str, about: Mapping[str, Any], task: Task) -> Operation:
        """Queue `task`; its mapping becomes the operation's result, its error the problem."""
        operation = self._store.operations.create(kind, about, self._now_ms())
        self._pool.submit(self._do, operation.id, task)
        return operation

    def stop(self) -> None:
        """Finish what runs, give up what waits (the next start says so)."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _do(self, name: str, task: Task) -> None:
        operations = self._store.operations

        def tell(done: int, total: int, unit: str) -> None:
            operations.progress(name, done, total, unit, self._now_ms())

        try:
            result = task(tell)
        except OutriderError as error:
            operations.fail(name, body(error, name), self._now_ms())
        except Exception as fault:
            # Top of the thread: told, logged, and on to the next one.
            log.error("%s", name, exc_info=fault)
            operations.fail(name, body(Failed("OUT-S160"), name), self._now_ms())
        else:
            operations.succeed(name, result, self._now_ms())

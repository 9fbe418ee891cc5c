"""One piece of slow work at a time, on a thread of its own; its result is picked up later."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    def __init__(self, on_wake: Callable[[], None]) -> None:
        """`on_wake` is called on the worker's thread when there is something to pick up."""
        self._on_wake = on_wake
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fetch")
        self._work: tuple[Future[Any], Callable[[Any], None]] | None = None
        self._last: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        return self._work is not None

    def begin(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have `work` done; `finish` will give its result to `then`."""
        future = self._pool.submit(work)
        self._work, self._last = (future, then), future
        future.add_done_callback(lambda _: self._on_wake())

    def finish(self) -> None:
        """Hand over the result, if there is one. Raises what the work or `then` raised."""
        if self._work is not None and self._work[0].done():
            (future, then), self._work = self._work, None
            then(future.result())

    def settled(self) -> Callable[[], None]:
        """To be called on any thread: returns when what is under way now is over, also what was
        forgotten."""
        last = self._last

        def wait() -> None:
            if last is not None and not last.cancelled():
                last.exception()

        return wait

    def wait(self, timeout_s: float | None = None) -> None:
        """Until the work is done (its result is still to be picked up)."""
        if self._work is not None:
            self._work[0].exception(timeout_s)

    def forget(self) -> None:
        """Nobody wants the result any more. The work itself runs to its end."""
        self._work = None

    def close(self) -> None:
        self._work = None
        self._pool.shutdown(wait=True, cancel_futures=True)

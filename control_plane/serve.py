"""Runs a control plane until it is told to stop: API, ticker and ingest in one process.

It may be killed at any moment. Everything it has promised is in its store or with the broker, and
the next start goes on from there.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from control_plane.settings import Settings, require_loopback
from control_plane.web.server import ApiServer, listen
from control_plane.wiring import ControlPlane

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(settings: Settings, *, ready: Callable[[ControlPlane], None] = lambda _: None) -> None:
    """Returns after SIGTERM or SIGINT, when what was under way is done. Main thread only.

    `ready` is called once requests are answered. Raises `Unavailable` (OUT-N106: port taken) and
    what opening the store, the keys and the repository raises.
    """
    with asked_to_stop() as stopped, running(settings) as control_plane:
        ready(control_plane)
        stopped.wait()


@contextmanager
def running(
    settings: Settings, *, reload_broker: Callable[[], None] | None = None
) -> Iterator[ControlPlane]:
    """A control plane that serves inside the block.

    `reload_broker` has the broker read its files again; without, the command in `settings` does.

    Raises `InvalidRequest` OUT-A121 for a development one that other machines would reach, and
    what `serve` raises.
    """
    require_loopback(settings.dev, settings.api_host, settings.broker_host)
    # First: nothing is opened, let alone published, by a second one on the same port.
    listener = listen(settings.api_host, settings.api_port)
    try:
        control_plane = ControlPlane(settings, reload_broker)
    except BaseException:
        listener.close()
        raise
    server = ApiServer(
        control_plane.app,
        listener,
        control_plane.authority.certificate("api"),
        control_plane.authority.key("api"),
    )
    control_plane.api_alive = lambda: server.alive
    control_plane.reload_api = server.renew
    try:
        control_plane.start()
        server.start()
        yield control_plane
    finally:
        server.stop()
        control_plane.stop()


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set inside the block."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

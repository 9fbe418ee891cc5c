"""The API on uvicorn, in a thread of its own: the process's main thread waits for signals."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from protocol.errors import Failed, Unavailable

START_S: Final = 15.0
STOP_S: Final = 10
"""For requests under way when the control plane is asked to stop."""
LOOK_S: Final = 0.1


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a taken port is told before anything has started.

    Raises `Unavailable` (OUT-N106).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise Unavailable("OUT-N106", f"{host}:{port}: {error.strerror}") from error
    return listener


class ApiServer:
    """Serves `app` over TLS on a socket from `listen`."""

    def __init__(self, app: FastAPI, listener: socket.socket, certificate: Path, key: Path) -> None:
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
            )
        )
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)
        self._ended = threading.Event()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self._server.started

    def start(self) -> None:
        """Returns once requests are answered. Raises `Failed` if that does not happen."""
        self._thread.start()
        waited = 0.0
        while not self._server.started:
            if self._ended.wait(0.02) or (waited := waited + 0.02) > START_S:
                raise Failed("OUT-S160", "the API did not start; the log says why")

    def stop(self) -> None:
        """Answers what is under way, at most `STOP_S`."""
        self._server.should_exit = True
        deadline = time.monotonic() + STOP_S + 5
        idle = False
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(LOOK_S)
            # A client that only keeps its connection is not waited for: over TLS its goodbye may
            # never come. Twice without a request: the last answer has left by then.
            before, idle = idle, not self._server.server_state.tasks
            self._server.force_exit = before and idle
        self._listener.close()

    def _run(self) -> None:
        try:
            # Not the main thread: uvicorn leaves signals alone here.
            self._server.run([self._listener])
        finally:
            self._ended.set()

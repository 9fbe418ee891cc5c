"""The API on uvicorn, in a thread of its own: the process's main thread waits for signals."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from control_plane.web.impatient import Impatient, Loop
from control_plane.web.listener import listen
from protocol.errors import Failed

__all__ = ["ApiServer", "listen"]

START_S: Final = 15.0
STOP_S: Final = 10
"""For requests under way when the control plane is asked to stop."""
LOOK_S: Final = 0.1
MAX_HEAD: Final = 16 * 1024
"""Bytes of a first line and headers that are waited for; what comes in one piece may be longer."""
KEEP_ALIVE_S: Final = 5
"""Between two requests on one connection."""


class ApiServer:
    """Serves `app` over TLS 1.2 or later, and nothing else, on a socket from `listen`."""

    def __init__(self, app: FastAPI, listener: socket.socket, certificate: Path, key: Path) -> None:
        self._listener = listener
        self._certificate, self._key = certificate, key
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        self.renew()
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                ssl_context_factory=lambda *_: self._tls,
                http=Impatient,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                # Whoever could choose their address could also choose whom wrong tokens lock out.
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEAD,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_S,
            )
        )
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)
        self._ended = threading.Event()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self._server.started

    def renew(self) -> None:
        """Show the certificate that is in the file now to whoever connects from now on."""
        self._tls.load_cert_chain(self._certificate, self._key)

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
            with asyncio.Runner(loop_factory=Loop) as runner:
                runner.run(self._server.serve([self._listener]))
        finally:
            self._ended.set()

"""The local door: a Unix socket on which the running agent answers a technician's commands.

Only the user that runs the agent (and root) can open it. One JSON line in, one JSON line out; the
supervisor's thread is never waited for: `status` is answered from the last turn's snapshot.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.technician.status import Status
from protocol.codec import decode, encode
from protocol.errors import Unavailable

MAX_ANSWER: Final = 1024 * 1024
_TIMEOUT_S: Final = 5.0


class Door:
    """Serves `status` until closed."""

    def __init__(self, path: Path, status: Callable[[], Status]) -> None:
        path.unlink(missing_ok=True)

        class Visitor(socketserver.StreamRequestHandler):
            timeout = _TIMEOUT_S

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    if self.rfile.readline(64).strip() == b"status":
                        self.wfile.write(encode(status()) + b"\n")

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Visitor)
        self._server.daemon_threads = True
        path.chmod(0o600)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="technician", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def ask(path: Path) -> Status:
    """The running agent's status. Raises `Unavailable` (OUT-D401) when none answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(_TIMEOUT_S)
            door.connect(str(path))
            door.sendall(b"status\n")
            with door.makefile("rb") as answer:
                line = answer.readline(MAX_ANSWER)
    except OSError as error:
        raise Unavailable("OUT-D401", f"nobody answers at {path}") from error
    if not line:
        raise Unavailable("OUT-D401", "the agent closed the connection")
    return decode(line, Status, limit=MAX_ANSWER)

"""The other end of a webhook: takes notices over TLS and answers as it is told."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.fakes.certificates import Authority

TRUST: Final = "SSL_CERT_FILE"
"""Variable by which a process is made to trust the receiver's authority."""


@dataclass(frozen=True, slots=True)
class Took:
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass
class Receiver:
    """`answers`: statuses in turn, the last one for ever; 0: no answer at all."""

    folder: Path
    answers: Sequence[int] = (204,)
    location: str = ""
    """Where a redirect leads."""
    took: list[Took] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        authority = Authority.create(self.folder, "hooks")
        certificate, key = authority.issue("hooks", server=True)
        self.authority = authority.ca
        receiver = self

        class Take(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
        self._server.daemon_threads = True
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/notices"

    def _take(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers["content-length"]))
        headers = {name.lower(): value for name, value in asked.headers.items()}
        status = self.answers[min(len(self.took), len(self.answers) - 1)]
        self.took.append(Took(asked.path, headers, body))
        if not status:
            self.end.wait(60)
            return
        asked.send_response(status)
        if self.location:
            asked.send_header("location", self.location)
        asked.send_header("content-length", "0")
        asked.end_headers()

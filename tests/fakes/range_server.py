"""A web server that serves ranges of a few files, or does what a script says instead."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PIECE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Act:
    """What becomes of one request. Without anything it is answered as it should be."""

    body: int | None = None
    """After so many bytes of the body the connection ends."""
    stalls: bool = False
    """It does not end then, but says nothing more."""
    trickles: bool = False
    """One byte at a time, for ever."""
    whole: bool = False
    """The range is ignored."""
    status: int | None = None
    headers: tuple[str, ...] = ()
    """Instead of Content-Range and Content-Length."""
    spoils: bool = False
    """Every byte is another one."""


@dataclass(frozen=True, slots=True)
class Asked:
    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


class RangeServer:
    def __init__(
        self,
        files: Mapping[str, bytes],
        acts: Sequence[Act] = (),
        context: ssl.SSLContext | None = None,
        always: Act = Act(),
    ) -> None:
        """`files` by path. Acts are taken in turn, one per request; then `always` counts."""
        self.files = dict(files)
        self.acts = list(acts)
        self.always = always
        self.asked: list[Asked] = []
        self.connections = 0
        self._context = context
        self._end = threading.Event()
        self._lines: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._serve)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._lines:
            with suppress(OSError):
                socket.socket.shutdown(line, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while not self._end.is_set():
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._talk, line)

    def _talk(self, line: socket.socket) -> None:
        with suppress(OSError):
            if self._context is not None:
                line = self._context.wrap_socket(line, server_side=True)
            self._lines.append(line)
            with line, line.makefile("rb") as reader:
                while (asked := _read(reader)) is not None:
                    self.asked.append(asked)
                    act = self.acts.pop(0) if self.acts else self.always
                    if not self._answer(line, asked, act):
                        return

    def _answer(self, line: socket.socket, asked: Asked, act: Act) -> bool:
        """Whether the connection can go on."""
        data = self.files.get(asked.path)
        if data is None:
            line.sendall(b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n")
            return True
        status, said, body = 200, [f"Content-Length: {len(data)}"], data
        if asked.range and not act.whole:
            first, last = (int(each) for each in asked.range.removeprefix("bytes=").split("-"))
            status, body = 206, data[first : last + 1]
            said = [
                f"Content-Range: bytes {first}-{first + len(body) - 1}/{len(data)}",
                f"Content-Length: {len(body)}",
            ]
        if act.spoils:
            body = bytes(each ^ 1 for each in body)
        head = [f"HTTP/1.1 {act.status or status} as asked", *(act.headers or said)]
        line.sendall("\r\n".join([*head, "", ""]).encode())
        if act.trickles:
            while not self._end.wait(0.02):
                line.sendall(b"x")
            return False
        for at in range(0, len(body[: act.body]), PIECE):
            line.sendall(body[: act.body][at : at + PIECE])
        if act.stalls:
            self._end.wait(30)
        return act.body is None and not act.stalls


def _read(reader: object) -> Asked | None:
    first = reader.readline()  # type: ignore[attr-defined]  # a binary file
    if not first:
        return None
    headers = {}
    while (line := reader.readline().strip()) != b"":  # type: ignore[attr-defined]  # as above
        name, _, value = line.partition(b":")
        headers[name.decode().lower()] = value.decode().strip()
    return Asked(first.split()[1].decode(), headers)

"""HTTP/1.1 on a kept connection, over a Unix socket or loopback TCP, with one retry.

A connection may end under a request: its runner has been replaced, the agent restarts, it was idle
too long. That is worth one more try, on a new connection, if the server has not begun to answer.
Whatever it has answered stands: half an answer, an error and a slow answer are never asked again.
An inference changes nothing but counts, so that it may be asked twice, and so does feedback.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from protocol.errors import Failed, OutriderError, Unavailable

Ending = Literal["refused", "closed", "slow", "broken"]
"""How an exchange failed: nobody listens; the connection ended before the first byte of an answer;
no answer in time; the answer ended or made no sense after it had begun."""

REFUSED_PAUSE_S: Final = 0.25
"""Longest pause, before jitter, until a server that starts again is asked for the second time."""


class Ended(Exception):
    """An exchange that failed, and how."""

    def __init__(self, ending: Ending, why: str) -> None:
        super().__init__(why)
        self.ending: Ending = ending


def worth_another(ending: Ending, tries: int) -> bool:
    """Whether to ask again after so many tries."""
    return tries == 1 and ending in ("refused", "closed")


def problem(ended: Ended, address: str) -> OutriderError:
    if ended.ending == "broken":
        return Failed("OUT-I121", f"{address}: {ended}")
    return Unavailable("OUT-I120", f"{address}: {ended}")


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    json_bytes: str | None
    """`Inference-Header-Content-Length`."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Connection:
    """One connection for each thread that asks, opened when it first does. A child process that was
    forked opens its own."""

    def __init__(
        self, address: Path | tuple[str, int], timeout_s: float, headers: Mapping[str, str]
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._headers = dict(headers)
        self._mine = threading.local()
        self._all: set[http.client.HTTPConnection] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        where = self._address
        return str(where) if isinstance(where, Path) else f"{where[0]}:{where[1]}"

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Raises `Unavailable` OUT-I120, `Failed` OUT-I121."""
        tries = 0
        while True:
            tries += 1
            try:
                return self._exchange(method, path, body, {**self._headers, **(headers or {})})
            except Ended as ended:
                self._drop()
                if not worth_another(ended.ending, tries):
                    raise problem(ended, self.address) from ended
                if ended.ending == "refused":
                    time.sleep(random.uniform(0.2, 1) * REFUSED_PAUSE_S)

    def close(self) -> None:
        """Close the connections of all threads; a later request opens a new one."""
        for connection in list(self._all):
            connection.close()
        self._all.clear()

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        connection = self._connected()
        try:
            connection.request(method, path, body, headers)
            # http.client does not tell an end before the first byte from one after it.
            begun = connection.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError as error:
            raise Ended("slow", f"no answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise Ended("closed", str(error) or type(error).__name__) from error
        if not begun:
            raise Ended("closed", "the connection was closed before an answer")
        try:
            response = connection.getresponse()
            data = response.read()
        except TimeoutError as error:
            raise Ended("slow", f"no whole answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise Ended("broken", f"the answer broke off: {error!r}") from error
        if response.will_close:
            self._drop()
        return Reply(response.status, data, response.getheader("Inference-Header-Content-Length"))

    def _connected(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if found is not None and self._mine.pid == os.getpid() and found.sock is not None:
            return found
        address = self._address
        fresh = (
            _Unix(address, self._timeout_s)
            if isinstance(address, Path)
            else http.client.HTTPConnection(*address, timeout=self._timeout_s)
        )
        try:
            fresh.connect()
        except TimeoutError as error:
            fresh.close()
            raise Ended("slow", f"no connection within {self._timeout_s:g} s") from error
        except OSError as error:
            fresh.close()
            raise Ended("refused", error.strerror or str(error)) from error
        self._mine.connection, self._mine.pid = fresh, os.getpid()
        self._all.add(fresh)
        return fresh

    def _drop(self) -> None:
        found: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if found is not None:
            self._all.discard(found)
            found.close()
            self._mine.connection = None

"""Bringing one notice: to a webhook over TLS at an address that was looked at, or to a command."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control_plane.addresses import Target, allowed, target
from control_plane.drift.notices import (
    MAX_BODY,
    SECRET_BYTES,
    headers,
    read_secret,
    shown_secret,
)
from protocol.errors import InvalidRequest, Unavailable

WHOLE_S: Final = 10.0
"""One try, from the first packet to the answer's status."""
RESOLVED_S: Final = 5.0
"""A name, to its addresses."""
COMMAND_S: Final = 30.0
MAX_ANSWER: Final = 4096
"""Bytes that are read of an answer's body."""
GONE: Final = 410
_GOOD: Final = range(200, 300)

Resolve = Callable[[str, int], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Tried:
    """How a try ended. `why` is empty exactly when it went well."""

    why: str = ""
    gone: bool = False
    """It said that nothing shall be sent any more."""


class Secrets:
    """One file per webhook below `folder`, readable by nobody else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, webhook: str) -> str:
        """A new secret, as its webhook's owner is shown it once."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shown = shown_secret(secrets.token_bytes(SECRET_BYTES))
        path = self._folder / webhook
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(shown)
            file.flush()
            os.fsync(file.fileno())
        return shown

    def read(self, webhook: str) -> bytes:
        """Raises `Unavailable` OUT-N302 where it is not there."""
        try:
            return read_secret((self._folder / webhook).read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            raise Unavailable("OUT-N302", f"its secret cannot be read: {webhook}") from error

    def remove(self, webhook: str) -> None:
        (self._folder / webhook).unlink(missing_ok=True)


def resolve(host: str, port: int, within_s: float = RESOLVED_S) -> list[str]:
    """Every address of a name. Raises `OSError`, also if there is no answer in time."""
    found: list[str] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(str(address[0]) for *_, address in known)
        except OSError as error:
            failed.append(error)

    # The resolver of the system takes no deadline: what it answers later is heard by nobody.
    asking = threading.Thread(target=ask, name="resolve", daemon=True)
    asking.start()
    asking.join(within_s)
    if failed:
        raise failed[0]
    if asking.is_alive():
        raise TimeoutError(f"no answer within {within_s:g} s")
    return found


def check(url: str, *, private: bool, resolve: Resolve = resolve) -> Target:
    """That notices may go there, as it stands now. Raises `InvalidRequest` OUT-N301."""
    where = target(url)
    try:
        allowed(where.host, resolve(where.host, where.port), private=private)
    except OSError as error:
        raise InvalidRequest("OUT-N301", f"{where.host} has no address: {_said(error)}") from error
    return where


class Sender:
    """Brings notices to webhooks. `private` allows addresses that are not public."""

    def __init__(
        self, secrets: Secrets, *, private: bool = False, resolve: Resolve = resolve
    ) -> None:
        self._secrets = secrets
        self._private = private
        self._resolve = resolve

    def send(self, webhook: str, url: str, body: bytes, now_ms: int) -> Tried:
        """One POST: the name is resolved once and one of its addresses called; no redirects, no
        proxies. Raises nothing that is the other side's fault."""
        if len(body) > MAX_BODY:
            return Tried(f"it has {len(body):,} bytes")
        try:
            where = target(url)
            found = self._resolve(where.host, where.port)
            addresses = allowed(where.host, found, private=self._private)
            secret = self._secrets.read(webhook)
        except (InvalidRequest, Unavailable) as error:
            return Tried(error.why)
        except OSError as error:
            return Tried(f"its name has no address: {_said(error)}")
        id = str(json.loads(body)["id"])
        return self._post(where, addresses[0], body, headers(secret, id, now_ms, body))

    def _post(self, where: Target, address: str, body: bytes, said: dict[str, str]) -> Tried:
        connection = _To(where, address)
        # Timeouts of a socket are per packet; somebody who sends byte by byte must not hold us.
        ended = threading.Timer(WHOLE_S, connection.abandon)
        ended.daemon = True
        ended.start()
        try:
            connection.request("POST", where.path, body, {"host": where.named, **said})
            answer = connection.getresponse()
            status = answer.status
            with suppress(OSError, http.client.HTTPException, ValueError):
                # Only so that the other side can finish its sentence.
                answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Tried("no answer in time" if connection.abandoned else _said(error))
        finally:
            ended.cancel()
            connection.close()
        if status in _GOOD:
            return Tried()
        return Tried(f"it answered {status}", gone=status == GONE)


class _To(http.client.HTTPSConnection):
    """A connection for one name to one address, which is not looked up again."""

    def __init__(self, where: Target, address: str) -> None:
        self._context_of_trust = ssl.create_default_context()
        super().__init__(where.host, where.port, timeout=WHOLE_S, context=self._context_of_trust)
        self._address = address
        self.abandoned = False

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        # Kept before the handshake, so that it can be abandoned in the middle of it.
        self.sock = self._context_of_trust.wrap_socket(
            plain, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock.do_handshake()

    def abandon(self) -> None:
        """From another thread: whatever waits for the other side fails now."""
        self.abandoned = True
        if self.sock is not None:
            with suppress(OSError, ValueError):
                # Not the TLS object's own way: its other thread is still inside of it.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def run(command: Sequence[str], body: bytes, *, limit_s: float = COMMAND_S) -> Tried:
    """The command with the notice on its standard input, and little else; 0 means taken."""
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return Tried(f"it cannot be started: {_said(error)}")
    try:
        process.communicate(body, limit_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Tried(f"it did not end within {limit_s:g} s")
    return Tried() if process.returncode == 0 else Tried(f"it ended with {process.returncode}")


def _said(error: Exception) -> str:
    """Short, and without what the other side sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__)[:120]
    return "its answer is not HTTP"

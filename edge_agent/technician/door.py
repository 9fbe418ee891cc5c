"""The local door: a Unix socket on which the running agent answers a technician's commands.

Only the user that runs the agent (and root) can open it, and the kernel says who that is: commands
that leave a trace note the name as option `who`. One line in; `status` is answered with
one line of JSON, from the last turn's snapshot, so that nobody waits. Other commands are one
object, `{"command": …, "options": {…}}`, and are answered with lines as they come; a command that
fails ends with a line `problem`. What takes long is done on the visitor's thread, never on the
supervisor's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_agent.technician.status import Status
from protocol.codec import decode, encode
from protocol.errors import Failed, InvalidRequest, OutriderError, PeerError, Unavailable
from protocol.problems import CATALOGUE
from protocol.telling import document

log = logging.getLogger(__name__)

MAX_REQUEST: Final = 16 * 1024
MAX_ANSWER: Final = 1024 * 1024
PROBLEM: Final = "problem"
WHO: Final = "who"
"""Option of every command: who asks. Only root may speak for somebody else (sudo)."""
_STATUS: Final = "status"
_TIMEOUT_S: Final = 5.0
_PATIENCE_S: Final = 60.0
"""Between two lines of a command that takes long: it says something every second."""


@dataclass(frozen=True, slots=True)
class Request:
    command: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """Of an answer: what it is about, and what it says."""

    what: str
    data: dict[str, Any] = field(default_factory=dict)


Tell = Callable[[Line], None]
Command = Callable[[Mapping[str, str], Tell], None]
"""Gets the options; tells lines. Raises `OutriderError`."""


class Door:
    """Serves `status` and these commands until closed."""

    def __init__(
        self,
        path: Path,
        status: Callable[[], Status],
        commands: Mapping[str, Command] | None = None,
    ) -> None:
        path.unlink(missing_ok=True)
        known = commands or {}

        class Visitor(socketserver.StreamRequestHandler):
            timeout = _TIMEOUT_S

            def handle(self) -> None:
                with contextlib.suppress(OSError, PeerError):
                    asked = _request(self.rfile.readline(MAX_REQUEST))
                    if asked.command == _STATUS:
                        self.wfile.write(encode(status()) + b"\n")
                    elif asked.command in known:
                        _, user = peer(self.connection)
                        _carry_out(known[asked.command], asked, user, self._tell)

            def _tell(self, line: Line) -> None:
                # Whoever asked may have gone; what was begun is done all the same.
                with contextlib.suppress(OSError, ValueError):
                    self.wfile.write(encode(line) + b"\n")

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
    with _opened(path, _TIMEOUT_S) as door:
        line = _said(door, f"{_STATUS}\n".encode())
        return decode(next(line), Status, limit=MAX_ANSWER)


def command(path: Path, name: str, options: Mapping[str, str]) -> Iterator[Line]:
    """Have the running agent carry out a command; its lines as they come.

    Raises `Unavailable` (OUT-D401) when no agent answers or it ends on the way, and the problem
    that the command ends with.
    """
    with _opened(path, _PATIENCE_S) as door:
        for each in _said(door, encode(Request(name, dict(options))) + b"\n"):
            line = decode(each, Line, limit=MAX_ANSWER)
            if line.what == PROBLEM:
                raise _problem(line.data)
            yield line
            if line.what == "end":
                return
    raise Unavailable("OUT-D401", "the agent ended before it was done")


def _request(line: bytes) -> Request:
    word = line.strip()
    if word == _STATUS.encode():
        return Request(_STATUS)
    return decode(word, Request, limit=MAX_REQUEST)


def peer(line: socket.socket) -> tuple[int, int]:
    """(process id, user id) of the other end, by the kernel."""
    from edge_agent.runner.control import peer as of  # a technician's command needs none of it

    return of(line)


def speaker(user: int, agent: int, claimed: str, name_of: Callable[[int], str]) -> str:
    """Who gives an order, by the user id of the other end. Raises `InvalidRequest` OUT-D410 unless
    that is root or the agent's own user."""
    if user not in (0, agent):
        raise InvalidRequest("OUT-D410", f"{name_of(user)} is neither")
    return claimed if user == 0 and claimed else name_of(user)


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _carry_out(what: Command, asked: Request, user: int, tell: Tell) -> None:
    try:
        who = speaker(user, os.geteuid(), asked.options.get(WHO, ""), _name_of)
        what({**asked.options, WHO: who}, tell)
    except OutriderError as error:
        tell(Line(PROBLEM, document(error)))
    except Exception as error:
        # Top of the visitor's thread: it is said to who asked, and the agent goes on.
        log.exception("%s", asked.command)
        tell(Line(PROBLEM, document(Failed("OUT-S160", f"{type(error).__name__}: {error}"))))


@contextlib.contextmanager
def _opened(path: Path, timeout_s: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(timeout_s)
        try:
            door.connect(str(path))
        except PermissionError as error:
            raise InvalidRequest("OUT-D405", f"{path} is open to root and its owner") from error
        except OSError as error:
            raise Unavailable("OUT-D401", f"nobody answers at {path}") from error
        yield door


def _said(door: socket.socket, asked: bytes) -> Iterator[bytes]:
    """Lines of the answer; at least one. Raises `Unavailable` (OUT-D401)."""
    try:
        door.sendall(asked)
        with door.makefile("rb") as answer:
            line = answer.readline(MAX_ANSWER)
            if not line:
                raise Unavailable("OUT-D401", "the agent closed the connection")
            while line:
                yield line
                line = answer.readline(MAX_ANSWER)
    except OSError as error:
        raise Unavailable("OUT-D401", "the agent stopped answering") from error


def _problem(said: Mapping[str, Any]) -> OutriderError:
    code, detail = str(said.get("code", "")), str(said.get("detail", ""))
    if code not in CATALOGUE:
        return Failed("OUT-S160", f"{code} {detail}".strip())
    return OutriderError(code, detail, do=str(said.get("help", "")))

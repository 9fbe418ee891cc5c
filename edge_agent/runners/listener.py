"""The listening sockets that outlive every process that serves on them."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path
from stat import S_ISSOCK
from typing import Final

from edge_agent.runner.views import Door
from protocol.errors import Unavailable

BACKLOG: Final = 256
GROUP_MAY: Final = 0o660


def bind_all(
    loopback: tuple[str, int], path: Path, network: tuple[str, int] | None, *, shared: bool
) -> dict[Door, socket.socket]:
    """Every door, or none: raises `Unavailable` OUT-N106 where one of them is somebody else's."""
    doors: dict[Door, socket.socket] = {}
    try:
        doors["loopback"] = bind(*loopback, shared=shared)
        doors["socket"] = bind_path(path, shared=shared)
        if network is not None:
            doors["network"] = bind(*network, shared=shared)
    except BaseException:
        for listener in doors.values():
            listener.close()
        raise
    return doors


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket, not blocking and not inherited by accident.

    It is always open for SO_REUSEPORT, so that a hung runner that cannot be killed at once never
    keeps its successor from serving. But only `shared` may bind beside another: otherwise two
    agents with the same port would silently share their callers.

    Raises `Unavailable` OUT-N106 where the port is in use.
    """
    try:
        if not shared and port:
            with _fresh(host) as trial:
                trial.bind((host, port))
                trial.listen(1)
        listener = _fresh(host)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            why = f"{host}:{port}: {error.strerror or error}"
            raise Unavailable("OUT-N106", why) from error
        raise
    return listener


def bind_path(path: Path, *, shared: bool = False) -> socket.socket:
    """A listening Unix socket at `path`, for this user and group, not blocking.

    A file that a power cut or `kill -9` left behind is replaced, in one step. One that somebody
    listens on is not, unless it is `shared` like a port. Raises `Unavailable` OUT-N106.
    """
    if not shared:
        _require_free(path)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(beside))
        # Before it has its name: nobody can have connected with other rights.
        beside.chmod(GROUP_MAY)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        beside.replace(path)
    except BaseException:
        listener.close()
        raise
    return listener


def _require_free(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not S_ISSOCK(mode):
        raise Unavailable("OUT-N106", f"{path} is there, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial, suppress(OSError):
        trial.settimeout(1)
        try:
            trial.connect(str(path))
        except TimeoutError:
            pass
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
        raise Unavailable("OUT-N106", f"{path}: somebody listens on it")


def _fresh(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    fresh = socket.socket(family, socket.SOCK_STREAM)
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return fresh

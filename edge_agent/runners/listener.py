"""The listening socket that outlives every process that serves on it."""

from __future__ import annotations

import errno
import socket
from typing import Final

from protocol.errors import Unavailable

BACKLOG: Final = 256


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


def _fresh(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    fresh = socket.socket(family, socket.SOCK_STREAM)
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return fresh

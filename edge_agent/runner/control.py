"""What supervisor and runner say to each other: length-prefixed JSON over a Unix socket.

One request, one answer; the listening sockets travel beside an answer as SCM_RIGHTS. Both ends
are the same software of the same user: a message that cannot be read is a fault, not an attack,
but lengths are bounded all the same.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge_agent.runner.sample import Sample
from edge_agent.runner.views import Door, Load, ModelWindows, Role
from protocol.codec import decode, encode
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import Count, Digest
from protocol.reported import Answering, Shadow
from protocol.telemetry import InferenceWindow

MAX_MESSAGE: Final = 32 * 1024 * 1024
MAX_SOCKET_PATH: Final = 107
MAX_DESCRIPTORS: Final = 3

_LENGTH = struct.Struct("<I")
_PEER = struct.Struct("3i")
_BLOCK: Final = 64 * 1024

Command = Literal[
    "hello", "load", "probe", "promote", "park", "drain", "getfd", "peek", "take",
    "sample", "unsample", "shadow",
]  # fmt: skip
"""`sample` asks a runner that serves to keep copies of some requests, and for those it has kept;
`shadow` gives them to a standby, which runs them for nobody, and asks what came of it."""


@dataclass(frozen=True, slots=True)
class LoadEntry:
    """A `Load` as it travels."""

    model: str
    digest: Digest
    manifest: Digest
    path: str
    answering: Answering = "model"

    @classmethod
    def of(cls, load: Load) -> LoadEntry:
        return cls(load.model, load.digest, load.manifest, str(load.path), load.answering)

    def load(self) -> Load:
        path = Path(self.path)
        return Load(self.model, self.digest, self.manifest, path, answering=self.answering)


@dataclass(frozen=True, slots=True)
class Request:
    do: Command
    model: str = ""
    ack: Count = 0
    loads: tuple[LoadEntry, ...] = ()
    """Of `shadow`: what is in use, whose contract says what its answers mean."""
    every_ms: Count = 0
    """Of `sample`: at most one request in so much time."""
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    code: str
    why: str
    model: str | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Only the fields that belong to the request are set."""

    refusal: Refusal | None = None
    id: str = ""
    role: Role = "standby"
    loads: tuple[LoadEntry, ...] = ()
    peek: tuple[tuple[str, InferenceWindow], ...] = ()
    seq: Count = 0
    windows: tuple[ModelWindows, ...] = ()
    final: bool = False
    doors: tuple[Door, ...] = ("loopback",)
    """Of the listening sockets beside a `getfd`, in their order."""
    samples: tuple[Sample, ...] = ()
    shadow: Shadow | None = None
    hungry: bool = False
    """Of `shadow`: whether more samples are welcome."""


def send(line: socket.socket, message: Request | Reply, descriptors: Sequence[int] = ()) -> None:
    """Raises `OSError`, also when the other end does not read for the socket's timeout."""
    body = encode(message)
    data = _LENGTH.pack(len(body)) + body
    if not descriptors:
        line.sendall(data)
        return
    sent = socket.send_fds(line, [data], list(descriptors))
    line.sendall(data[sent:])


def receive_request(line: socket.socket) -> Request | None:
    """None once the other end has closed. Raises `OSError`, `PeerError`."""
    body, descriptors = _receive(line)
    _close(descriptors)
    return None if body is None else decode(body, Request, limit=MAX_MESSAGE)


def receive_reply(line: socket.socket) -> tuple[Reply, tuple[int, ...]]:
    """The answer and the descriptors that came with it, which are then the caller's to close.

    Raises `EOFError` where the other end closed instead, `OSError`, `PeerError`.
    """
    body, descriptors = _receive(line)
    if body is None:
        _close(descriptors)
        raise EOFError("the runner has gone")
    try:
        reply = decode(body, Reply, limit=MAX_MESSAGE)
    except PeerError:
        _close(descriptors)
        raise
    return reply, tuple(descriptors)


def peer(line: socket.socket) -> tuple[int, int]:
    """(process id, user id) of whoever called `listen` or `connect` at the other end."""
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(raw)
    return pid, uid


def socket_path(run: Path, runner: str) -> Path:
    """Raises `InvalidRequest` where the system's limit for socket paths is exceeded."""
    path = run / f"r-{runner}.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise InvalidRequest(
            "OUT-S120",
            f"the run folder {run} is too long: {path.name} in it must have at most "
            f"{MAX_SOCKET_PATH} bytes with its path",
            do="choose a run folder with a shorter path, for instance below /run",
        )
    return path


def blame_path(run: Path, runner: str) -> Path:
    return run / f"blame-{runner}"


def _receive(line: socket.socket) -> tuple[bytes | None, list[int]]:
    data = bytearray()
    descriptors: list[int] = []
    length: int | None = None
    try:
        while length is None or len(data) < length:
            missing = (_LENGTH.size if length is None else length) - len(data)
            # Descriptors arrive with CLOEXEC, or a runner started later would inherit them.
            block, received, _, _ = socket.recv_fds(
                line, min(missing, _BLOCK), MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
            descriptors += received
            if not block:
                return None, descriptors
            data += block
            if length is None and len(data) == _LENGTH.size:
                (length,) = _LENGTH.unpack(data)
                if length > MAX_MESSAGE:
                    raise PeerError("OUT-N211", f"a control message of {length:,} bytes")
                data.clear()
    except BaseException:
        _close(descriptors)
        raise
    return bytes(data), descriptors


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""The local HTTP interface: Open Inference Protocol v2 as a bare ASGI application.

Models run in the event loop's own thread: only one runs at a time anyway, so the note of what a
runner is busy with is exact, and a thread hop would cost more than most models.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec

from edge_agent.runner.oip import MAX_BODY, encode_error
from protocol.errors import Failed, InvalidRequest, OutriderError

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_DISCARDED: Final = 256 * 1024 * 1024
"""So much of a body that is too large is read and dropped, so that the caller sees the answer."""

_JSON = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")


class Model(Protocol):
    version: str
    metadata: bytes

    def infer(self, body: bytes) -> bytes: ...
    def count_refused(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class WrongMethod(InvalidRequest):
    def __init__(self, allowed: str) -> None:
        super().__init__("OUT-I111", f"this path takes {allowed} only")
        self.allowed = allowed


class Application:
    """Bare ASGI callable. `draining` makes every further answer the last of its connection."""

    def __init__(self, models: Mapping[str, Model], agent_version: str) -> None:
        self._models = models
        self._server_metadata = msgspec.json.encode(
            {"name": "outrider", "version": agent_version, "extensions": []}
        )
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except _Gone:
            return
        except OutriderError as error:
            answer = _error(error)
        except Exception as error:
            # The top of a request: whatever it is must reach the caller as JSON, or stock clients
            # report a parse error instead of it.
            log.exception("a request failed")
            answer = _error(Failed("OUT-S160", type(error).__name__))
        headers = [
            _JSON,
            (b"content-length", str(len(answer.body)).encode()),
            *answer.headers,
        ]
        if self.draining and _CLOSE not in headers:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        # The body is always read to its end before anything is answered: closing a connection
        # with unread bytes resets it, and the caller may never see the answer.
        body = await _read(receive)
        _check_origin(scope["headers"])
        method = scope["method"]
        match str(scope["path"]).strip("/").split("/"):
            case ["v2"]:
                _only(method, "GET")
                return Answer(200, self._server_metadata)
            case ["v2", "health", "live"]:
                _only(method, "GET")
                return Answer(200, b'{"live":true}')
            case ["v2", "health", "ready"]:
                _only(method, "GET")
                ready = bool(self._models)
                return Answer(200 if ready else 503, b'{"ready":%s}' % _json(ready))
            case ["v2", "models", name, *rest]:
                return self._model(name, rest, scope, body)
        raise InvalidRequest("OUT-I111", "no such path")

    def _model(self, name: str, rest: list[str], scope: Scope, body: bytes | None) -> Answer:
        model = self._models.get(name)
        if model is None:
            raise InvalidRequest("OUT-I107", f"no model is called {repr(name[:80])[1:-1]}")
        if rest[:1] == ["versions"] and len(rest) > 1:
            if rest[1] != model.version:
                raise InvalidRequest(
                    "OUT-I107",
                    f"{name}/{repr(rest[1][:80])[1:-1]} does not run here, {model.version} does",
                )
            rest = rest[2:]
        method = scope["method"]
        match rest:
            case []:
                _only(method, "GET")
                return Answer(200, model.metadata)
            case ["ready"]:
                _only(method, "GET")
                return Answer(200, b'{"name":%s,"ready":true}' % msgspec.json.encode(name))
            case ["infer"]:
                _only(method, "POST")
                if body is None:
                    model.count_refused()
                    raise InvalidRequest("OUT-I105", f"a request has at most {MAX_BODY:,} bytes")
                if _header(scope["headers"], b"inference-header-content-length") is not None:
                    model.count_refused()
                    raise InvalidRequest("OUT-I106", "send tensors as JSON, not as binary data")
                return Answer(200, model.infer(body))
        raise InvalidRequest("OUT-I111", "no such path")


class _Gone(Exception):
    """The caller has closed its connection."""


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None if it is larger than `MAX_BODY`. Never holds more than that."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            parts.clear()
        else:
            parts.append(part)
        if not message.get("more_body") or size > MAX_DISCARDED:
            return None if size > MAX_BODY else b"".join(parts)


def _check_origin(headers: list[tuple[bytes, bytes]]) -> None:
    """A web page elsewhere must not reach a local model: neither by a cross-origin request, nor
    by a name of its own that it points to 127.0.0.1."""
    host = _header(headers, b"host")
    if host is not None and not _is_loopback(f"//{host}"):
        raise InvalidRequest("OUT-I109", f"Host {host[:80]!a} is not this machine")
    origin = _header(headers, b"origin")
    if origin is not None and not _is_loopback(origin):
        raise InvalidRequest("OUT-I109", f"Origin {origin[:80]!a} is not this machine")


def _is_loopback(url: str) -> bool:
    try:
        name = urlsplit(url).hostname
        if name is None or name == "localhost":
            return name is not None
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _header(headers: list[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def _only(method: str, allowed: str) -> None:
    if method != allowed:
        raise WrongMethod(allowed)


def _error(error: OutriderError) -> Answer:
    if isinstance(error, WrongMethod):
        return Answer(405, encode_error(error), ((b"allow", error.allowed.encode()),))
    # What was not read to its end cannot be followed by another request.
    last = (_CLOSE,) if error.code == "OUT-I105" else ()
    return Answer(error.problem.status, encode_error(error), last)


def _json(value: bool) -> bytes:
    return b"true" if value else b"false"

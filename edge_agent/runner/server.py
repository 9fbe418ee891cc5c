"""The local HTTP interface: Open Inference Protocol v2, from a request to its answer.

Models run in the event loop's own thread: only one runs at a time anyway, so the note of what a
runner is busy with is exact, and a thread hop would cost more than most models.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from edge_agent.runner.bearer import Bearer
from edge_agent.runner.http11 import MAX_BODY, Request
from edge_agent.runner.oip import EXTENSIONS, Encoded, encode_error
from edge_agent.runner.origin import check_origin
from edge_agent.runner.unpack import unpack
from edge_agent.runner.views import Door
from protocol.errors import Failed, InvalidRequest, OutriderError
from protocol.reported import Answering

log = logging.getLogger(__name__)

_JSON: Final = b"application/json"
_BINARY: Final = b"application/octet-stream"


class Model(Protocol):
    version: str
    metadata: bytes
    answering: Answering

    def infer(self, body: bytes | bytearray, header: str | None) -> Encoded: ...
    def feedback(self, body: bytes | bytearray) -> int: ...
    def count_refused(self) -> None: ...


class Answer(Struct):
    """Not frozen, because one is made for every request."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    fields: tuple[tuple[bytes, bytes], ...] = ()
    last: bool = False
    """Nothing can follow on this connection."""


class WrongMethod(InvalidRequest):
    def __init__(self, allowed: str) -> None:
        super().__init__("OUT-I111", f"this path takes {allowed} only")
        self.allowed = allowed


class Application:
    """Any thread may set `draining`, which makes every further answer the last of its connection;
    everything else belongs to the event loop."""

    def __init__(
        self, models: Mapping[str, Model], agent_version: str, bearer: Bearer | None = None
    ) -> None:
        """Without a `bearer`, nobody gets in through the network door."""
        self._models = models
        self._bearer = bearer
        self._server_metadata = msgspec.json.encode(
            {"name": "outrider", "version": agent_version, "extensions": EXTENSIONS}
        )
        # What nearly all requests are for, found without taking their path apart.
        self._infer = {f"/v2/models/{quote(name)}/infer": model for name, model in models.items()}
        self.draining = False

    def answer(self, request: Request, door: Door) -> Answer:
        """Never raises: whatever it is must reach the caller as JSON, or stock clients report a
        parse error instead of it."""
        try:
            self.admit(request, door)
            return self._answer(request)
        except OutriderError as error:
            return refusal(error)
        except Exception as error:
            log.exception("a request failed")
            return refusal(Failed("OUT-S160", type(error).__name__))

    def admit(self, request: Request, door: Door) -> None:
        """Judges by the head alone whether this caller may ask anything at all.

        Raises `InvalidRequest` OUT-I109 for a page elsewhere, OUT-I112 without the token.
        """
        fields = request.fields
        if door == "loopback":
            check_origin(fields.get(b"host"), fields.get(b"origin"))
        elif door == "network":
            if self._bearer is None:
                raise InvalidRequest("OUT-I112", "there is no token yet")
            self._bearer.check(fields.get(b"authorization"))

    def _answer(self, request: Request) -> Answer:
        target = request.target
        if request.method == "POST" and (model := self._infer.get(target)) is not None:
            return _infer(model, request)
        if not target.startswith("/"):
            raise InvalidRequest("OUT-I106", "ask for a path, not for a whole address")
        path = target.partition("?")[0].strip("/").split("/")
        match [unquote(part, errors="replace") for part in path]:
            case ["v2"]:
                _reads(request)
                return Answer(200, self._server_metadata)
            case ["v2", "health", "live"]:
                _reads(request)
                return Answer(200, b'{"live":true}')
            case ["v2", "health", "ready"]:
                _reads(request)
                ready = any(model.answering != "refuses" for model in self._models.values())
                return Answer(200 if ready else 503, b'{"ready":%s}' % _json(ready))
            case ["v2", "models", name, *rest]:
                return self._model(name, rest, request)
        raise InvalidRequest("OUT-I111", "no such path")

    def _model(self, name: str, rest: list[str], request: Request) -> Answer:
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
        match rest:
            case []:
                _reads(request)
                return Answer(200, model.metadata)
            case ["ready"]:
                _reads(request)
                return _ready(name, model)
            case ["infer"]:
                return _infer(model, request)
            case ["feedback"]:
                return _feedback(name, model, request)
        raise InvalidRequest("OUT-I111", "no such path")


def refusal(error: OutriderError) -> Answer:
    """`{"error": ...}` with the status of the error's problem."""
    body = encode_error(error)
    if isinstance(error, WrongMethod):
        return Answer(405, body, fields=((b"allow", error.allowed.encode()),))
    fields: tuple[tuple[bytes, bytes], ...] = ()
    match error.code:
        case "OUT-I112":
            fields = ((b"www-authenticate", b"Bearer"),)
        case "OUT-I114":
            fields = ((b"retry-after", b"1"),)
        case "OUT-I116":
            fields = ((b"accept-encoding", b"gzip, deflate"),)
    return Answer(error.problem.status, body, fields=fields)


def _ready(name: str, model: Model) -> Answer:
    if model.answering == "refuses":
        return Answer(503, msgspec.json.encode({"name": name, "ready": False}))
    said = {} if model.answering == "model" else {"parameters": {"answered_by": "rules"}}
    return Answer(200, msgspec.json.encode({"name": name, "ready": True, **said}))


def _infer(model: Model, request: Request) -> Answer:
    if request.method != "POST":
        raise WrongMethod("POST")
    try:
        body = _body(request)
    except InvalidRequest:
        model.count_refused()
        raise
    encoded = model.infer(body, request.fields.get(b"inference-header-content-length"))
    if encoded.json_bytes is None:
        return Answer(200, encoded.body)
    header = (b"inference-header-content-length", b"%d" % encoded.json_bytes)
    return Answer(200, encoded.body, _BINARY, (header,))


def _feedback(name: str, model: Model, request: Request) -> Answer:
    if request.method != "POST":
        raise WrongMethod("POST")
    counted = model.feedback(_body(request))
    said = {"model_name": name, "model_version": model.version, "counted": counted}
    return Answer(200, msgspec.json.encode(said))


def _body(request: Request) -> bytes | bytearray:
    """Unpacked. Raises `InvalidRequest` for one that is too long or packed in another way."""
    if request.body is None:
        raise InvalidRequest("OUT-I105", f"a request has at most {MAX_BODY:,} bytes")
    return unpack(request.body, request.fields.get(b"content-encoding"))


def _reads(request: Request) -> None:
    if request.method not in ("GET", "HEAD"):
        raise WrongMethod("GET, HEAD")


def _json(value: bool) -> bytes:
    return b"true" if value else b"false"

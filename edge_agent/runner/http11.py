"""HTTP/1.1 requests out of the bytes of one connection, parsed by httptools (llhttp, in C).

None of llhttp's leniencies is on: what may be read in two ways is refused, so that nothing in front
of a runner can be made to read it differently (RFC 9112). What llhttp leaves open is decided here,
and every length is bounded before anything is kept for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from protocol.errors import InvalidRequest

PIECE: Final = 1024
"""The parser cannot be stopped between two requests: it gets so many bytes at once, and whatever
requests it finds in them wait."""
MAX_HEAD: Final = 16 * 1024
"""Of a head, and of what is between the chunks of a body and after them. Up to two `PIECE` more may
pass, as it happens to be cut."""
MAX_BODY: Final = 16 * 1024 * 1024
MAX_DISCARDED: Final = 256 * 1024 * 1024
"""So much of a body that is too large is read and dropped, so that the caller sees the answer."""

_KNOWN: Final = frozenset(
    (
        *(b"authorization", b"connection", b"content-encoding", b"content-length", b"expect"),
        *(b"host", b"inference-header-content-length", b"origin", b"transfer-encoding"),
    )
)
"""Header fields that mean something here. Each may come once; others are not even kept."""
MAX_KNOWN: Final = 64
"""Heads that are known again, each of at most `PIECE` bytes."""
_END: Final = b"\r\n\r\n"
_NOTHING: Final = memoryview(b"")
"""Unlike the empty end of what arrived, it keeps nothing of that alive."""


class Request(Struct):
    """A whole request; not frozen, because one is made for every answer."""

    method: str
    target: str
    """As sent: a path and perhaps a query, percent-encoded."""
    fields: dict[bytes, str]
    """Not to be changed: requests with the same head share them."""
    keep_alive: bool
    body: bytes | bytearray | None = b""
    """None if it was larger than `MAX_BODY`."""


class Known(Struct, frozen=True):
    """What a head said that was parsed before."""

    method: str
    target: str
    fields: dict[bytes, str]
    body_bytes: int


class Reader:
    """Feed it what arrives, then ask for `next` until there is none; `close` it at the end.

    After `InvalidRequest` nothing can follow on this connection: where the next request begins is
    not known. Methods `on_...` are for the parser.
    """

    def __init__(self, known: dict[bytes, Known] | None = None) -> None:
        """`known` are heads that were parsed; readers may share them."""
        self._known = {} if known is None else known
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._data = _NOTHING
        """What the parser has not seen."""
        self._ready: deque[Request] = deque()
        self._error: InvalidRequest | None = None
        """To be raised after those that are ready."""
        self._begun = False
        self._over = False
        """Nothing can follow on this connection."""
        self._target = b""
        self._fields: dict[bytes, str] = {}
        self.coming: Request | None = None
        """The request whose head is here and whose body is not, or not all of it."""
        self._length: int | None = None
        """What was announced for that body; None if it comes in chunks."""
        self._body = bytearray()
        self.received = 0
        """Bytes of that body that have come, whether they are kept or not."""
        self._silent = 0
        """Bytes since a head, a request or a part of a body was here."""
        self.wants_continue = False
        """The caller waits for `100 Continue` before it sends its body."""

    @property
    def state(self) -> Literal["idle", "head", "body"]:
        """What is being waited for: nothing in particular, the rest of a head, or of a body. What
        was not looked at yet counts as a head."""
        if self._ready or self._data or self._error is not None:
            return "head"
        if self.coming is not None:
            return "body"
        return "head" if self._begun else "idle"

    @property
    def held(self) -> int:
        """Bytes that are kept, without those of a head that is being read."""
        return len(self._data) + len(self._body)

    def whole(self, data: bytes) -> Request | None:
        """Instead of `feed`: the request in `data`, if it is just one, whole, with a head that was
        parsed before. None: `feed` has to take it.

        Callers send the same head again and again, and parsing it costs as much as a small model.
        Between two requests the parser has no state that could make it read the same bytes in
        another way.
        """
        end = data.find(_END) + 4
        known = self._known.get(data[:end])
        if known is None or len(data) - end != known.body_bytes:
            return None
        if self._begun or self._over or self._data or self._ready or self._error is not None:
            return None
        self._silent = 0
        return Request(known.method, known.target, known.fields, True, data[end:])

    def feed(self, data: bytes) -> None:
        self._data = memoryview(bytes(self._data) + data if self._data else data)

    def next(self) -> Request | None:
        """The next whole request, None if more has to come first.

        Raises `InvalidRequest` OUT-I106 for what is not HTTP/1.1 or ambiguous, OUT-I105 for what is
        larger than is read at all.
        """
        while not self._ready:
            if self._error is not None:
                raise self._error
            if not self._data or self._parser is None:
                return None
            try:
                self._parse(self._parser)
            except InvalidRequest as error:
                self._error = error
        return self._ready.popleft()

    def close(self) -> None:
        """Let go of everything. Parser and reader refer to each other: half a body would wait for
        the garbage collector."""
        self._parser = self.coming = self._error = None
        self._data, self._body = _NOTHING, bytearray()
        self._ready.clear()
        self._begun = False
        self._over = True

    def _parse(self, parser: HttpRequestParser) -> None:
        left = (self._length or 0) - self.received if self.coming is not None else 0
        between = self.coming is None and not self._begun
        piece = self._data[: max(PIECE, left)]
        self._data = self._data[len(piece) :] or _NOTHING
        self._silent += len(piece)
        try:
            parser.feed_data(piece)
        except HttpParserUpgrade as upgrade:
            # We stay with HTTP/1.1, as a server may: what follows is parsed as ever.
            self._data = memoryview(bytes(piece[upgrade.args[0] :]) + self._data)
            if self.coming is not None:
                # llhttp leaves a body after such a head alone: another head is put before it.
                chunked, sized = b"Transfer-Encoding: chunked", b"Content-Length: %d"
                framing = chunked if self._length is None else sized % self._length
                self._parser = HttpRequestParser(self)
                self._parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n\r\n" % framing)
        except HttpParserError as error:
            # What is raised in `on_...` arrives like this.
            cause = error.__context__
            if isinstance(cause, InvalidRequest):
                raise cause from None
            raise InvalidRequest("OUT-I106", f"this is not HTTP/1.1: {error}") from None
        else:
            if between and len(self._ready) == 1 and not (self._begun or self._data):
                self._learn(bytes(piece), self._ready[0])
        if self._silent > MAX_HEAD:
            what = "head" if self.coming is None else "framing"
            raise InvalidRequest("OUT-I105", f"a request's {what} has at most {MAX_HEAD:,} bytes")

    def _learn(self, data: bytes, request: Request) -> None:
        """Know the head of `request` again, if `data` were just this one, with a plain body."""
        end = data.find(_END) + len(_END)
        body_bytes = len(data) - end
        if not request.keep_alive or self._length != body_bytes:
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[data[:end]] = Known(request.method, request.target, request.fields, body_bytes)

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, part: bytes) -> None:
        if self.coming is None:
            self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # Trailers, which come when there is a request already, are not even looked at.
        if self.coming is None and name in _KNOWN:
            if name in self._fields:
                raise InvalidRequest("OUT-I106", f"{name.decode()} comes more than once")
            self._fields[name] = value.strip(b" \t").decode("latin-1")

    def on_headers_complete(self) -> None:
        parser, fields = self._parser, self._fields
        if self.coming is not None or parser is None:
            return
        method, version = parser.get_method().decode(), parser.get_http_version()
        self._length = _length(method, version, fields)
        keep_alive = version == "1.1" and parser.should_keep_alive()
        self.coming = Request(method, self._target.decode("ascii"), fields, keep_alive)
        self._target, self._fields = b"", {}
        self.received = self._silent = 0
        if b"expect" not in fields:
            return
        if fields[b"expect"].lower() != "100-continue":
            raise InvalidRequest("OUT-I106", "only 100-continue can be expected")
        if self._length is not None and self._length > MAX_BODY:
            # It has not been sent yet, and need not be.
            raise _too_large()
        self.wants_continue = self._length != 0

    def on_chunk_header(self) -> None:
        self.wants_continue = False

    def on_body(self, part: bytes) -> None:
        self.wants_continue = False
        self._silent = 0
        self.received += len(part)
        if self.received <= MAX_BODY:
            self._body += part
            return
        self._body.clear()
        if self.received > MAX_DISCARDED:
            raise _too_large()

    def on_message_complete(self) -> None:
        request, parser = self.coming, self._parser
        if request is None or parser is None or (parser.should_upgrade() and self._length != 0):
            return  # In the last case its body is still to come: see `_parse`.
        request.body = self._body if self.received <= MAX_BODY else None
        self._ready.append(request)
        self._over = not request.keep_alive
        # A new one: the request keeps the old one, arrays look into it.
        self._body = bytearray()
        self.coming = None
        self._begun = self.wants_continue = False
        self._silent = 0


def _length(method: str, version: str, fields: dict[bytes, str]) -> int | None:
    """Bytes of the body that follows such a head, None if it comes in chunks.

    Refuses what llhttp leaves to its user; two lengths, or a length and chunks, it refuses itself.
    """
    if version not in ("1.1", "1.0"):
        raise InvalidRequest("OUT-I106", "the first line is not that of an HTTP/1.1 request")
    if method == "CONNECT":
        raise InvalidRequest("OUT-I106", "ask for a path: this is no proxy")
    if version == "1.1" and b"host" not in fields:
        raise InvalidRequest("OUT-I106", "an HTTP/1.1 request says which Host it is for")
    encoding = fields.get(b"transfer-encoding")
    if encoding is None:
        return int(fields.get(b"content-length", "0"))
    if encoding.lower() != "chunked" or version != "1.1":
        raise InvalidRequest("OUT-I106", "the only transfer-encoding is chunked, in HTTP/1.1")
    return None


def _too_large() -> InvalidRequest:
    return InvalidRequest("OUT-I105", f"a request has at most {MAX_BODY:,} bytes")

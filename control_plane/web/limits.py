"""How large a request may be, checked before it is read and while it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.web.problems import answer
from control_plane.web.requests import request_id
from protocol.errors import InvalidRequest

Limit = Callable[[str, str], int]
"""`(method, path) -> bytes`."""


class Limited:
    """Answers 413 OUT-N211; the framework's own limit answers in a form that is not ours."""

    def __init__(self, app: ASGIApp, limit: Limit) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["method"], scope["path"])
        claimed = 0
        with suppress(ValueError):
            claimed = int(dict(scope["headers"]).get(b"content-length", b"0"))
        if claimed > limit:
            why = f"{claimed:,} bytes, at most {limit:,}"
            refusal = answer(InvalidRequest("OUT-N211", why), request_id(scope))
            await refusal(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_limited, send)

"""One request from outside: its id, and the last line of defence against a fault of ours."""

from __future__ import annotations

import base64
import logging
import secrets
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.web.problems import answer
from protocol.errors import Failed

log = logging.getLogger(__name__)

HEADER: Final = b"x-request-id"
PROBLEM: Final = "problem"
"""Where a request's state has the code of the problem that it was answered with."""


def request_id(scope: Scope) -> str:
    """The id that `Traced` gave the request."""
    found: str = scope.get("state", {}).get("request_id", "")
    return found


class Traced:
    """Outermost: gives each request an id, and answers OUT-S160 where something broke.

    The answer says nothing of the fault; the log has it under the same id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = "req-" + base64.b32encode(secrets.token_bytes(5)).decode().lower()
        scope.setdefault("state", {})["request_id"] = name
        started = False

        async def send_traced(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (HEADER, name.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        except Exception as fault:
            # Top of every request: answered and logged.
            log.error("%s %s %.120r", name, scope["method"], scope["path"], exc_info=fault)
            if not started:
                failure = answer(Failed("OUT-S160", f"look for {name} in the log"), name)
                await failure(scope, receive, send_traced)

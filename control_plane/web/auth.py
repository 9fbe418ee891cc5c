"""Who may call the API: whoever holds the operator token of this control plane.

Enforced in front of all routes, so a new route is closed until it is listed as public. Enrolment
carries its own one-time token.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.web.problems import answer
from control_plane.web.requests import request_id
from protocol.errors import InvalidRequest

PUBLIC: Final = ("/v1/enrol", "/v1/health", "/openapi.json")
PUBLIC_BELOW: Final = "/problems/"

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="operator token",
    description="The text of `operator.token` in the control plane's folder.",
)
"""For the description only: `RequireToken` decides."""


class RequireToken:
    """Answers 401 OUT-A101 unless a request has the token or its path is public."""

    def __init__(self, app: ASGIApp, token: Callable[[], str]) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._public(scope["path"]):
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, given = sent.partition(b" ")
        if scheme.lower() == b"bearer" and self._is_token(given.strip()):
            await self._app(scope, receive, send)
            return
        why = "no token was sent" if not sent else "it is not the token of this control plane"
        refusal = answer(InvalidRequest("OUT-A101", why), request_id(scope))
        await refusal(scope, receive, send)

    def _is_token(self, given: bytes) -> bool:
        expected = self._token().encode()
        # An empty token would let everybody in who sends an empty one.
        return bool(expected) and secrets.compare_digest(given, expected)

    @staticmethod
    def _public(path: str) -> bool:
        return path in PUBLIC or path.startswith(PUBLIC_BELOW)

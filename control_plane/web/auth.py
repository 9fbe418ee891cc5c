"""Who calls the API: whoever holds a token that is known, not expired and not revoked.

Enforced in front of all routes, so a new route is closed until it is listed as public. Enrolment
and renewal carry their own proof, and so does a device that reads a payload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.roles import Principal
from control_plane.store.people import People
from control_plane.web.permissions import STATE
from control_plane.web.problems import answer
from control_plane.web.requests import request_id
from protocol.enrolment import PATH as ENROL
from protocol.enrolment import RENEW
from protocol.errors import InvalidRequest, OutriderError
from protocol.identifiers import digest_of
from protocol.payload import PAYLOAD_PATH
from protocol.wording import duration

PUBLIC: Final = (ENROL, RENEW, "/v1/health", "/openapi.json")
PUBLIC_BELOW: Final = ("/problems/", PAYLOAD_PATH)
MAX_TOKEN: Final = 256

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="From `outrider auth create`, or `operator.token` in the control plane's folder.",
)
"""For the description only: `RequireToken` decides."""


def identify(people: People, token: bytes, now_ms: int) -> Principal:
    """Whose token it is. Raises `InvalidRequest`: OUT-A101, OUT-A102."""
    found = people.by_hash(digest_of(token)) if 0 < len(token) <= MAX_TOKEN else None
    if found is None:
        raise InvalidRequest("OUT-A101", "it is not a token of this control plane")
    if found.revoked_ms is not None:
        raise InvalidRequest("OUT-A102", f"the token of {found.name} was revoked")
    if found.expires_ms is not None and now_ms >= found.expires_ms:
        ago = duration((now_ms - found.expires_ms) / 1000)
        raise InvalidRequest("OUT-A102", f"the token of {found.name} expired {ago} ago")
    people.used(found.hash, now_ms)
    return Principal(found.name, found.role)


class RequireToken:
    """Answers 401 unless a request has a valid token or its path is public."""

    def __init__(self, app: ASGIApp, identify: Callable[[bytes], Principal]) -> None:
        self._app = app
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._public(scope["path"]):
            try:
                found = await run_in_threadpool(self._identify, _token(scope))
            except OutriderError as refused:
                refusal = answer(refused, request_id(scope))
                await refusal(scope, receive, send)
                return
            scope.setdefault("state", {})[STATE] = found
        await self._app(scope, receive, send)

    @staticmethod
    def _public(path: str) -> bool:
        return path in PUBLIC or path.startswith(PUBLIC_BELOW)


def _token(scope: Scope) -> bytes:
    sent = dict(scope["headers"]).get(b"authorization", b"")
    scheme, _, given = sent.partition(b" ")
    if not sent or scheme.lower() != b"bearer":
        raise InvalidRequest("OUT-A101", "no token was sent")
    token: bytes = given.strip()
    return token

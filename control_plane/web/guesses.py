"""In front of everything that a secret opens: who keeps bringing wrong ones must wait."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.web.attempts import Attempts, address_of
from control_plane.web.auth import PUBLIC, PUBLIC_BELOW
from control_plane.web.problems import answer
from control_plane.web.requests import PROBLEM, request_id
from protocol.enrolment import PATH as ENROL
from protocol.enrolment import RENEW
from protocol.errors import InvalidRequest
from protocol.payload import PAYLOAD_PATH
from protocol.wording import duration

log = logging.getLogger(__name__)

OWN_SECRET: Final = (ENROL, RENEW)
"""Public paths whose body carries a secret or a proof."""
OWN_SECRET_BELOW: Final = PAYLOAD_PATH
"""Here a header does."""
WRONG: Final = frozenset({"OUT-A201", "OUT-A202", "OUT-A211"})
"""What they answer to a wrong one. Other refusals are for those who brought the right one."""


class LimitGuesses:
    """Answers 429 OUT-A103 for as long as `Attempts` says; counts and logs what went wrong.

    A request without any token is no guess: it is refused behind this, and not counted. Requests
    that arrive together are let in together, so a burst may try as often as it has connections.
    """

    def __init__(
        self, app: ASGIApp, attempts: Attempts, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._attempts = attempts
        self._now_s = now_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_guess(scope):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        address = address_of(client[0] if client else None)
        wait_s = self._attempts.wait_s(address, self._now_s())
        if wait_s > 0:
            self._attempts.refused()
            refusal = answer(_early(wait_s), request_id(scope), headers=_retry_after(wait_s))
            await refusal(scope, receive, send)
            return

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start" and _went_wrong(scope, message["status"]):
                self._count(address, scope)
            await send(message)

        await self._app(scope, receive, send_counted)

    def _count(self, address: str, scope: Scope) -> None:
        """The path in quotes: whoever sends it chooses its letters."""
        now_s = self._now_s()
        self._attempts.failed(address, now_s)
        wait_s = self._attempts.wait_s(address, now_s)
        log.warning(
            "%s failed attempt from %s: %s %.120r%s",
            request_id(scope),
            address,
            scope["method"],
            scope["path"],
            f"; it waits for {math.ceil(wait_s)} s now" if wait_s else "",
        )


def _is_guess(scope: Scope) -> bool:
    path = scope["path"]
    if _has_own_secret(path):
        return True
    public = path in PUBLIC or path.startswith(PUBLIC_BELOW)
    return not public and any(name == b"authorization" for name, _ in scope["headers"])


def _has_own_secret(path: str) -> bool:
    return path in OWN_SECRET or path.startswith(OWN_SECRET_BELOW)


def _went_wrong(scope: Scope, status: int) -> bool:
    if _has_own_secret(scope["path"]):
        return scope.get("state", {}).get(PROBLEM) in WRONG
    return status == 401


def _early(wait_s: float) -> InvalidRequest:
    left = duration(math.ceil(wait_s))
    return InvalidRequest(
        "OUT-A103",
        "many wrong tokens came from this address",
        do=f"wait {left}, then use the right token",
    )


def _retry_after(wait_s: float) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(wait_s))}

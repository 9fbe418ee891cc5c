"""Requests that may be sent again: a POST with the same `Idempotency-Key` is done once.

Kept for 24 hours. A request that failed left nothing behind, so its key is free again: whoever
repeats it wants to know how it stands now. The keys of requests that died with an earlier process
are freed at start; what they may have done shows up as the conflict that it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from control_plane.roles import Principal
from control_plane.store.idempotency import Answer, Idempotency
from control_plane.web.parts import parts_of
from control_plane.web.permissions import STATE
from control_plane.web.problems import FieldError, InvalidFields

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
KEPT_MS: Final = 24 * 3_600_000
MAX_KEY: Final = 128

_KEPT_HEADERS: Final = ("content-type", "location", "etag")


class Repeatable(APIRoute):
    """A route whose POST heeds the key. Not for answers that hold a secret: answers are kept."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            key = request.headers.get(HEADER)
            if request.method != "POST" or key is None:
                return await handle(request)
            named = fingerprint(request, hashlib.sha256(await request.body()).hexdigest())
            parts = parts_of(request)
            kept = parts.store.idempotency
            before = await run_in_threadpool(begin, kept, key, named, parts.now_ms())
            if before is not None:
                return replayed(before)
            try:
                response = await handle(request)
            except BaseException:
                await run_in_threadpool(kept.release, key)
                raise
            await run_in_threadpool(finish, kept, key, response)
            return response

        return once


def begin(kept: Idempotency, key: str, request: str, now_ms: int) -> Answer | None:
    """None: do it. An answer: it was done. Raises `InvalidRequest` OUT-S140, OUT-S141."""
    if not 0 < len(key) <= MAX_KEY:
        raise InvalidFields([FieldError(f"?{HEADER}", f"has 1 to {MAX_KEY} characters")])
    kept.forget(now_ms - KEPT_MS)
    return kept.begin(key, request, now_ms)


def finish(kept: Idempotency, key: str, response: Response) -> None:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    kept.finish(key, Answer(response.status_code, headers, bytes(response.body)))


def replayed(before: Answer) -> Response:
    return Response(before.body, before.status, {**before.headers, REPLAYED: "true"})


def fingerprint(request: Request, body: str) -> str:
    """What makes two requests the same: who asks, method, path, query and the body's digest."""
    who = getattr(request.state, STATE, None)
    name = who.name if isinstance(who, Principal) else ""
    said = "\n".join((name, request.method, request.url.path, request.url.query, body))
    return hashlib.sha256(said.encode()).hexdigest()

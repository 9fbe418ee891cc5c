"""Payloads for devices over HTTP: whole or from a byte on, and the lists that check their frames.

The two names are those of the folder `payloads`, so a mirror is a copy of it. A mirror needs no
permission, since what a payload decodes to is checked on the device; here a device proves who it
is before anything is looked for, and one that was retired reads nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from control_plane.fleet.reading import require_reader
from control_plane.web.parts import Here, Parts
from control_plane.web.problems import answer
from control_plane.web.requests import request_id
from control_plane.web.serving import Serving
from control_plane.web.unknown import unknown
from protocol.errors import InvalidRequest, Unavailable
from protocol.identifiers import Digest
from protocol.payload import LISTS_SUFFIX, PAYLOAD_PATH

log = logging.getLogger(__name__)

public = APIRouter(tags=["devices"])

SCHEME: Final = "Outrider-Device"
"""`Authorization: Outrider-Device DEVICE:SIGNATURE`, the signature in base64."""
STALLED_S: Final = 120.0
"""For 64 KiB: as long as devices themselves wait for a frame."""
MAX_PROOF: Final = 512
"""Characters of the header."""
_AGAIN_S: Final = (5, 30)
_ONE_RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{1,15})-(?P<last>[0-9]{0,15})")
_SAID: Final[Mapping[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}},
    206: {"description": "The range that was asked for"},
}


@public.get(
    PAYLOAD_PATH + "{name}",
    summary="A payload or its frame lists, for a device",
    response_class=Response,
    responses=dict(_SAID),
)
def read_payload(name: str, request: Request, parts: Here) -> Response:
    """`name` is a payload's digest, or that and `.lists`: the digests of all its frames, 32 bytes
    each. Authorised by `Authorization: Outrider-Device DEVICE:SIGNATURE`, the device's signature
    over the payload's name, which is good for the lists as well. One range is answered with 206.
    """
    if not parts.settings.serve_payloads:
        raise InvalidRequest("OUT-S111", "payloads are not served here")
    payload = name.removesuffix(LISTS_SUFFIX)
    _require_device(parts, payload, request.headers.get("authorization"))
    path, found = _file(parts, payload, name)
    _require_range(request.headers.get("range"), found.st_size)
    return _Answer(path, found, name, payload, parts.serving)


public.head(PAYLOAD_PATH + "{name}", include_in_schema=False)(read_payload)


def _require_device(parts: Parts, payload: str, said: str | None) -> None:
    """Raises `InvalidRequest`: OUT-A101 without a proof, OUT-A211 for a wrong one, OUT-A212 for
    one of a device that was retired."""
    scheme, _, proof = (said or "").partition(" ")
    device, colon, signature = proof.strip().partition(":")
    if not said or scheme.lower() != SCHEME.lower():
        raise InvalidRequest("OUT-A101", "devices prove here who they are, and none did")
    if not colon or len(said) > MAX_PROOF:
        raise InvalidRequest("OUT-A211", f"{SCHEME} is followed by DEVICE:SIGNATURE")
    require_reader(parts.store, device, payload, signature)


def _file(parts: Parts, payload: Digest, name: str) -> tuple[Path, os.stat_result]:
    """Raises `InvalidRequest` OUT-S110 if it is not here, or not any more."""
    kept = parts.store.payloads.find(payload)
    if kept is not None:
        path = parts.settings.home / kept.path
        path = path.with_name(f"{path.name}{name.removeprefix(payload)}")
        try:
            return path, path.stat()
        except FileNotFoundError:
            pass  # it is made again when it is missed
    raise unknown("payload", payload, [])


def _require_range(header: str | None, size: int) -> None:
    """Raises `HTTPException` 416 for all but one range from a byte on: devices ask for no other."""
    if header is None:
        return
    asked = _ONE_RANGE.fullmatch(header.strip())
    if asked is not None and int(asked["first"]) <= min(int(asked["last"] or size), size - 1):
        return
    why = f"one range of {size:,} bytes can be asked for"
    there = {"Content-Range": f"bytes */{size}"}
    raise HTTPException(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, why, there)


class _Answer(FileResponse):
    """Sends the file if there is a place for one more, and counts what it sends."""

    def __init__(
        self, path: Path, found: os.stat_result, name: str, payload: Digest, serving: Serving
    ) -> None:
        # A name is good for ever: under it there is never another content.
        headers = {
            "Cache-Control": "private, max-age=31536000, immutable",
            "ETag": f'"{name}"',
        }
        super().__init__(path, 200, headers, "application/octet-stream", stat_result=found)
        self._payload = payload
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._serving.enter():
            busy = Unavailable("OUT-F107", f"{self._serving.most} devices read at the moment")
            least, most = _AGAIN_S
            again = {"Retry-After": str(least + secrets.randbelow(most - least + 1))}
            await answer(busy, request_id(scope), headers=again)(scope, receive, send)
            return

        async def send_counted(message: Message) -> None:
            async with asyncio.timeout(STALLED_S):
                await send(message)
            self._serving.sent(self._payload, len(message.get("body", b"")))

        try:
            await super().__call__(scope, receive, send_counted)
        except TimeoutError:
            # The server closes what was not answered to its end.
            log.info("%s nothing of %.120s is taken any more", request_id(scope), scope["path"])
        finally:
            self._serving.leave()

"""Upload of a bundle: streamed to disk, verified, then taken into the catalogue by an operation."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import FileResponse
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from control_plane.catalog.archive import MEDIA_TYPE, Unpacker
from control_plane.catalog.layout import Layout
from control_plane.deltas import travelling
from control_plane.push import Catalogue, check_free, push
from control_plane.roles import Principal
from control_plane.web import idempotency
from control_plane.web.operations import Operation, shown
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.unknown import unknown
from control_plane.web.work import Tell
from protocol.errors import InvalidRequest

router = APIRouter(tags=["models"])

_BLOCK: Final = 1024 * 1024
_OPERATION: Final = TypeAdapter(Operation)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def incoming(home: Path) -> Path:
    """Where uploads lie until they are in the catalogue; what is there at start is left over."""
    return home / "incoming"


@router.post(
    "/bundles",
    summary="Push a bundle",
    status_code=202,
    response_model=Operation,
    openapi_extra=_BODY,
    dependencies=[needs("operate")],
)
async def push_bundle(
    request: Request,
    parts: Here,
    who: Who,
    key: Annotated[str | None, Header(alias=idempotency.HEADER)] = None,
) -> Response:
    """The body is the bundle as a tar. Follow the operation; its result names the version.

    The same bundle again is no error: nothing changes.
    """
    unpacker = Unpacker(incoming(parts.settings.home) / secrets.token_hex(8))
    try:
        body = await _receive(request, unpacker)
        layout = await run_in_threadpool(unpacker.finish)
        named = idempotency.fingerprint(request, body)
        response, taken = await run_in_threadpool(_once, parts, who, key, named, layout, unpacker)
    except BaseException:
        unpacker.discard()
        raise
    if not taken:
        await run_in_threadpool(unpacker.discard)
    return response


@router.get(
    "/blobs/{digest}",
    summary="A file of a bundle, by digest",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
    dependencies=[needs("read")],
)
def get_blob(digest: str, parts: Here) -> Response:
    """Index, manifest or member: an approver fetches it here and checks the digest."""
    try:
        found = parts.blobs.path(digest)
    except (KeyError, ValueError):
        raise unknown("blob", digest, []) from None
    return FileResponse(found, media_type="application/octet-stream")


async def _receive(request: Request, unpacker: Unpacker) -> str:
    """Digest of the body, which has gone into `unpacker`."""
    whole = hashlib.sha256()
    waiting = bytearray()
    try:
        async for chunk in request.stream():
            whole.update(chunk)
            waiting += chunk
            if len(waiting) >= _BLOCK:
                await run_in_threadpool(unpacker.feed, bytes(waiting))
                waiting.clear()
    except ClientDisconnect as error:
        raise InvalidRequest("OUT-B120", "the upload broke off") from error
    await run_in_threadpool(unpacker.feed, bytes(waiting))
    return whole.hexdigest()


def _once(
    parts: Parts, who: Principal, key: str | None, named: str, layout: Layout, unpacker: Unpacker
) -> tuple[Response, bool]:
    """The answer, and whether the upload was taken over by an operation."""
    kept = parts.store.idempotency
    if key is not None:
        before = idempotency.begin(kept, key, named, parts.now_ms())
        if before is not None:
            return idempotency.replayed(before), False
    try:
        response = _start(parts, who, layout, unpacker)
    except BaseException:
        if key is not None:
            kept.release(key)
        raise
    if key is not None:
        idempotency.finish(kept, key, response)
    return response, True


def _start(parts: Parts, who: Principal, layout: Layout, unpacker: Unpacker) -> Response:
    # Told at once rather than by the operation; the operation looks again.
    check_free(layout, parts.store)

    def task(tell: Tell) -> Mapping[str, Any]:
        to = Catalogue(parts.settings, parts.store, parts.blobs, parts.repository, parts.deltas)
        try:
            bundle = push(layout, to, parts.now_ms(), tell, who=who.name)
        finally:
            unpacker.discard()
        parts.wake()
        return {
            "model": bundle.model,
            "version": bundle.version,
            "reference": bundle.reference,
            "digest": bundle.digest,
            "size_bytes": bundle.size_bytes,
            "state": bundle.state,
            "payload_bytes": _payload_bytes(parts, layout),
            "payloads": travelling(parts.store, parts.blobs.read, bundle.digest),
        }

    index = layout.index
    about = {"model": index.model, "version": index.version, "digest": layout.digest}
    operation = parts.work.start("push", about, task)
    place = f"/v1/fleets/{parts.settings.fleet}/operations/{operation.id}"
    body = _OPERATION.dump_json(shown(operation))
    return Response(body, 202, {"Location": place}, "application/json")


def _payload_bytes(parts: Parts, layout: Layout) -> int:
    """What a device without anything receives for the whole bundle, encoded."""
    found = (
        parts.store.payloads.of_file(layout.index.model, digest)
        for digest in {member.digest for member in layout.members()}
    )
    full = ([each.entry.size for each in payloads if each.entry.base is None] for payloads in found)
    return sum(min(sizes) for sizes in full if sizes)

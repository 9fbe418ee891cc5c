"""Records that were carried here on a stick."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from control_plane.carried import Imported, take
from control_plane.web.parts import Here
from control_plane.web.permissions import Who, needs

router = APIRouter(tags=["telemetry"])
"""No idempotency keys: a file that comes twice brings nothing new."""

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/records",
    summary="Import records from a stick",
    openapi_extra=_BODY,
    dependencies=[needs("service")],
)
async def import_records(request: Request, parts: Here, who: Who) -> Imported:
    """The body is one file that `outrider-agent export` wrote. The device that signed it learns
    what is stored when it asks the next time."""
    data = await request.body()
    imported = await run_in_threadpool(
        take, parts.store, parts.enrolment.authority, data, parts.now_ms(), who.name
    )
    parts.wake()
    return imported

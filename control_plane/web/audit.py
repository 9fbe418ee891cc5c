"""The audit trail: who did what, newest first; and the whole of it, to be verified elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from control_plane.audit import exported
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.parts import Here
from control_plane.web.permissions import needs
from protocol.wording import rfc3339

router = APIRouter(tags=["audit"])

MEDIA_TYPE = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """`number` counts from 1. `evidence`: digest of what an automatic decision rests on."""

    number: int
    time: str
    who: str
    what: str
    about: str
    data: dict[str, Any]
    before: Any
    after: Any
    why: str
    evidence: str


@router.get("/audit", summary="Changes, newest first", dependencies=[needs("read")])
def list_audit(
    parts: Here,
    who: Annotated[str | None, Query(examples=["ana"])] = None,
    about: Annotated[str | None, Query(examples=["rollouts/digits-7"])] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[AuditRecord]:
    """`about` also stands for everything below it. `count` is of the whole trail."""
    start = after(cursor, "audit", who, about)
    found = parts.store.audit.page(start, limit, who=who, about=about)
    items = [
        AuditRecord(
            each.number,
            rfc3339(each.time_ms),
            each.who,
            each.what,
            each.about,
            each.data,
            each.before,
            each.after,
            each.why,
            each.evidence,
        )
        for each in found.items
    ]
    return Page(items, _behind(found.after, who, about), parts.store.audit.count())


@router.get(
    "/audit/export",
    summary="The whole trail as JSON lines",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {}}}},
    dependencies=[needs("read")],
)
def export_audit(
    parts: Here,
    since: Annotated[int, Query(ge=0, description="Records behind this number.")] = 0,
) -> StreamingResponse:
    """A line is `{"hash": …, "record": {…}}`; the hash is SHA-256 of the record's very bytes.

    `outrider audit verify --file` checks it. What is written meanwhile is not in it.
    """
    last = parts.store.audit.count()

    def blocks() -> Iterator[bytes]:
        for line in parts.store.audit.lines(since, last):
            yield exported(line)

    return StreamingResponse(blocks(), media_type=MEDIA_TYPE)


def _behind(key: tuple[str | int, ...] | None, who: str | None, about: str | None) -> str | None:
    return cursor(key, "audit", who, about) if key else None

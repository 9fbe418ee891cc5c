"""What verdicts rest on: the chain of records, and any verdict computed again from its record."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from control_plane.rollout import picture
from control_plane.rollout.explaining import explain, gate_rows
from control_plane.rollout.gate import GATE
from control_plane.rollout.phase import Counts, funnel
from control_plane.store.evidence import PREVIOUS, RecordRow
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import rollout_of
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import needs
from control_plane.web.rollout_view import EvidenceRecord, VerdictExplained
from protocol.errors import InvalidRequest
from protocol.wording import rfc3339

router = APIRouter(tags=["rollouts"], route_class=Repeatable)

SVG: Final = "image/svg+xml"
_LISTED: Final = "evidence"


@router.get(
    "/rollouts/{rollout}/evidence",
    summary="Evidence records of a rollout",
    response_model=Page[EvidenceRecord],
    dependencies=[needs("read")],
)
def list_evidence(
    rollout: str,
    parts: Here,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Any:
    """In the order of their verdicts. Each names the digest of the one before it."""
    row = rollout_of(parts, rollout)
    start = after(cursor, _LISTED, row.id)
    rows = parts.store.evidence
    found = rows.list_records(row.id, int(start[0]) if start else 0, limit + 1)
    kept = found[:limit]
    return {
        "items": [_short(each, json.loads(each.body)) for each in kept],
        "next_cursor": _behind(row.id, kept[-1].number) if len(found) > limit else None,
        "count": rows.count_records(row.id),
    }


@router.get(
    "/rollouts/{rollout}/explanation",
    summary="A verdict, computed again from its record",
    response_model=VerdictExplained,
    dependencies=[needs("read")],
)
def explain_verdict(
    rollout: str,
    parts: Here,
    evidence: Annotated[
        str | None, Query(description="Digest of a record; the newest without it.")
    ] = None,
) -> Any:
    """Nothing but the record is used: neither devices nor what has come since."""
    kept = record_of(parts, rollout, evidence)
    body = json.loads(kept.body)
    explained = explain(body)
    now = explained.recomputed
    counts = now.asked.evidence.counts.get(int(body["wave"])) if now.asked is not None else None
    return {
        "record": _short(kept, body),
        "counts": funnel(counts or Counts()),
        "gates": gate_rows(now),
        "inputs": body["inputs"],
        "replayed": {
            "same": explained.same,
            "said": explained.sentence,
            "verdict": now.verdict,
            "id": now.id,
            "sentence": now.sentence,
            "rules": GATE,
            "recorded_rules": explained.gate,
            "code": version("outrider"),
        },
    }


@router.get(
    "/rollouts/{rollout}/evidence/{digest}/picture.svg",
    summary="An evidence record as a picture",
    response_class=Response,
    responses={
        200: {
            "description": "Slots of new and old devices per score, and how evidence grew",
            "content": {SVG: {"schema": {"type": "string"}}},
        }
    },
    dependencies=[needs("read")],
)
def draw_evidence(rollout: str, digest: str, parts: Here) -> Response:
    kept = record_of(parts, rollout, digest)
    return Response(picture.svg(json.loads(kept.body)), media_type=SVG)


def record_of(parts: Parts, rollout: str, evidence: str | None) -> RecordRow:
    """Raises `InvalidRequest` OUT-S110 for a rollout, or a record of it, that is not known."""
    row = rollout_of(parts, rollout)
    digest = evidence or parts.store.evidence.last_record(row.id)
    if digest is None:
        raise InvalidRequest("OUT-S110", f"{row.id} has no verdict yet", do="wait for its ticker")
    found = parts.store.evidence.get_record(digest)
    if found is None or found.rollout != row.id:
        raise InvalidRequest(
            "OUT-S110",
            f"{row.id} has no evidence {digest[:20]}",
            do=f"GET rollouts/{row.id}/evidence lists what there is",
        )
    return found


def _short(kept: RecordRow, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "digest": kept.digest,
        "number": kept.number,
        "at": rfc3339(kept.at_ms),
        "wave": body["wave"],
        "verdict": body["verdict"],
        "id": body["id"],
        "sentence": body["sentence"],
        "previous": body.get(PREVIOUS) or None,
    }


def _behind(rollout: str, number: int) -> str:
    return cursor((number,), _LISTED, rollout)

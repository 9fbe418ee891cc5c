"""How far long-running work is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter

from control_plane.store import operations as stored
from control_plane.web.parts import Here
from control_plane.web.permissions import needs
from control_plane.web.unknown import unknown
from protocol.wording import rfc3339

router = APIRouter(tags=["control plane"])


@dataclass(frozen=True, slots=True)
class Operation:
    """`done` of `total` `unit`s; kept for 7 days after its end."""

    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "failed"]
    done: int
    total: int
    """0 while it is not known."""
    unit: str
    result: dict[str, Any] | None
    problem: dict[str, Any] | None
    """Problem details once it has failed."""
    created: str
    changed: str


@router.get(
    "/operations/{operation}", summary="How far an operation is", dependencies=[needs("read")]
)
def get_operation(operation: str, parts: Here) -> Operation:
    found = parts.store.operations.get(operation)
    if found is None:
        raise unknown("operation", operation, [])
    return shown(found)


def shown(row: stored.Operation) -> Operation:
    return Operation(
        row.id,
        row.kind,
        row.state,
        row.done,
        row.total,
        row.unit,
        row.result,
        row.problem,
        rfc3339(row.created_ms),
        rfc3339(row.changed_ms),
    )

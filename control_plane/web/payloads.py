"""How files travel: their encodings, and what publishing them has cost."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from control_plane.web.lookup import known_model
from control_plane.web.parts import Here
from control_plane.web.permissions import needs
from protocol.identifiers import Digest

router = APIRouter(tags=["models"])


@dataclass(frozen=True, slots=True)
class Payload:
    """One encoding of one file. `published_bytes` have left the control plane since it started:
    frames and their lists, whatever the number of devices that fetch them."""

    model: str
    file: Digest
    payload: Digest
    base: Digest | None
    frames: int
    size_bytes: int
    published_bytes: int


@dataclass(frozen=True, slots=True)
class Payloads:
    items: list[Payload]


@router.get(
    "/models/{model}/payloads",
    summary="Payloads of a model, and bytes published",
    dependencies=[needs("read")],
)
def list_payloads(model: str, parts: Here) -> Payloads:
    known_model(parts, model)
    published = parts.origin_bytes()
    return Payloads(
        [
            Payload(
                each.model,
                each.file,
                each.entry.payload,
                each.entry.base,
                each.entry.frames,
                each.entry.size,
                published.get(each.entry.payload, 0),
            )
            for each in parts.store.payloads.of_model(model)
        ]
    )

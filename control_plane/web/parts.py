"""What routes work on: handed over once, looked up by FastAPI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request

from control_plane.blobs import Blobs
from control_plane.deltas import Deltas
from control_plane.fleet.enrolment import Enrolment
from control_plane.settings import Settings
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.web.attempts import Attempts
from control_plane.web.serving import Serving
from control_plane.web.unknown import unknown
from control_plane.web.work import Work
from protocol.identifiers import Digest


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything is safe to use from many threads at once."""

    settings: Settings
    store: Store
    blobs: Blobs
    repository: Repository
    enrolment: Enrolment
    work: Work
    deltas: Deltas
    now_ms: Callable[[], int]
    wake: Callable[[], None]
    """Have the ticker look at once: something has changed."""
    health: Callable[[], Mapping[str, PartHealth]]
    origin_bytes: Callable[[], Mapping[Digest, int]] = dict
    """Per payload, what has left this process since it started."""
    revoked: Callable[[], None] = lambda: None
    """Have a revocation list issued at once: certificates were revoked."""
    attempts: Attempts = field(default_factory=Attempts)
    """Of those who brought wrong tokens. The API's loop owns it; others only read its counts."""
    serving: Serving = field(default_factory=Serving)
    """Of payloads to devices, over HTTP. Likewise."""


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One part of the control plane. `detail` says what is wrong or worth knowing."""

    ok: bool
    detail: str = ""


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Here = Annotated[Parts, Depends(parts_of)]


def own_fleet(fleet: Annotated[str, Path(examples=["local"])], parts: Here) -> str:
    """One control plane, one fleet: any other is not found. Raises `InvalidRequest`."""
    if fleet != parts.settings.fleet:
        raise unknown("fleet", fleet, [parts.settings.fleet])
    return fleet

"""What happened, in order: a client keeps the last id it saw and asks for what is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query

from control_plane.web.parts import Here
from control_plane.web.permissions import needs
from protocol.wording import rfc3339

router = APIRouter(tags=["telemetry"])


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    time: str
    topic: str
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Events:
    """`reset`: events behind the asked id are no longer kept, so some may be missing."""

    items: list[Event]
    last_id: int
    """To ask with next time."""
    reset: bool


@router.get("/events", summary="Events behind an id", dependencies=[needs("read")])
def list_events(
    parts: Here,
    since: Annotated[int, Query(ge=0, description="Id of the last event seen.")] = 0,
    topic: Annotated[
        str | None, Query(description="Topics, separated by commas: rollouts/digits-7,devices")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
) -> Events:
    """A topic stands for everything below it."""
    topics = [each.strip() for each in (topic or "").split(",") if each.strip()]
    oldest, _ = parts.store.events.span()
    found = parts.store.events.after(since, topics, limit)
    return Events(
        [Event(e.id, rfc3339(e.time_ms), e.topic, e.type, e.data) for e in found],
        found[-1].id if found else since,
        reset=since > 0 and since + 1 < oldest,
    )

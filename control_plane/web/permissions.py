"""What a route asks of whoever calls it: declared at the route, enforced for all of them.

    @router.post("/rollouts", dependencies=[needs("operate")])
    def start_rollout(spec: Spec, parts: Here, who: Who) -> Any: ...

A fleet's route that declares nothing stops the application from starting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

from control_plane.roles import Permission, Principal
from control_plane.web.parts import parts_of
from protocol.errors import InvalidRequest

STATE = "principal"
"""Where authentication leaves who it found, in the request's state."""


class Needs:
    """A dependency: raises `InvalidRequest` OUT-A204 unless the caller's role has the right."""

    def __init__(self, permission: Permission) -> None:
        self.permission: Permission = permission

    def __call__(self, request: Request) -> None:
        who, fleet = principal(request), parts_of(request).settings.fleet
        who.require(self.permission, fleet, _doing(request))


def needs(permission: Permission) -> Any:
    return Depends(Needs(permission))


def _doing(request: Request) -> str:
    """The summary of a route as what somebody does: "abort a rollout", "see: the audit trail"."""
    route = request.scope.get("route")
    summary = (route.summary or route.name) if isinstance(route, APIRoute) else "do this"
    said = summary[:1].lower() + summary[1:]
    return f"see: {said}" if request.method == "GET" else said


def principal(request: Request) -> Principal:
    """Raises `InvalidRequest` OUT-A101 where nobody was authenticated."""
    found = getattr(request.state, STATE, None)
    if not isinstance(found, Principal):
        raise InvalidRequest("OUT-A101", "no token was sent")
    return found


Who = Annotated[Principal, Depends(principal)]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path with its methods, and what it needs; None where that is not said once."""

    path: str
    methods: tuple[str, ...]
    permission: Permission | None
    endpoint: Callable[..., Any]


def endpoints(routes: Sequence[BaseRoute], below: str = "") -> tuple[Endpoint, ...]:
    """Every endpoint below a path, those of included routers as well.

    FastAPI keeps included routers as they are: `app.routes` alone has none of their routes.
    """
    return tuple(
        Endpoint(
            route.path or "",
            tuple(sorted(route.methods or ())),
            _declared(route.dependant),
            route.endpoint,
        )
        for route in iter_route_contexts(routes)
        if isinstance(route.original_route, APIRoute)
        and route.endpoint is not None
        and (route.path or "").startswith(below)
    )


def require_declared(routes: Sequence[BaseRoute], below: str) -> None:
    """Raises `ValueError` for a route below a path that does not declare one permission, and
    where there is no route at all: then nothing was looked at."""
    found = endpoints(routes, below)
    if not found:
        raise ValueError(f"there is nothing below {below}")
    for each in found:
        if each.permission is None:
            raise ValueError(f"{each.methods} {each.path} does not say who may call it")


def _declared(dependant: Dependant) -> Permission | None:
    found = [
        each.call.permission for each in dependant.dependencies if isinstance(each.call, Needs)
    ]
    return found[0] if len(found) == 1 else None

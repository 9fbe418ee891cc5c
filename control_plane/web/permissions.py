"""What a route asks of whoever calls it: declared at the route, enforced for all of them.

    @router.post("/rollouts", dependencies=[needs("operate")])
    def start_rollout(spec: Spec, parts: Here, who: Who) -> Any: ...

A fleet's route that declares nothing stops the application from starting.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
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
        principal(request).require(self.permission, parts_of(request).settings.fleet)


def needs(permission: Permission) -> Any:
    return Depends(Needs(permission))


def principal(request: Request) -> Principal:
    """Raises `InvalidRequest` OUT-A101 where nobody was authenticated."""
    found = getattr(request.state, STATE, None)
    if not isinstance(found, Principal):
        raise InvalidRequest("OUT-A101", "no token was sent")
    return found


Who = Annotated[Principal, Depends(principal)]


def permission_of(route: APIRoute) -> Permission | None:
    """What a route declares."""
    found = list(_declared(route.dependant))
    return found[0] if len(found) == 1 else None


def require_declared(routes: Iterable[BaseRoute], below: str) -> None:
    """Raises `ValueError` for a route below a path that does not declare one permission."""
    for route in routes:
        if not isinstance(route, APIRoute) or not route.path.startswith(below):
            continue
        if permission_of(route) is None:
            raise ValueError(f"{route.name} at {route.path} does not say who may call it")


def _declared(dependant: Dependant) -> Iterable[Permission]:
    for each in dependant.dependencies:
        if isinstance(each.call, Needs):
            yield each.call.permission

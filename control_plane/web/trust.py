"""Signed metadata as it is published, for whoever wants to verify it with their own TUF client."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastapi import APIRouter, Response
from pydantic import ConfigDict

from control_plane import new_trust
from control_plane.signing.ceremony import powers
from control_plane.signing.installing import Install
from control_plane.web.idempotency import Repeatable
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.unknown import unknown

router = APIRouter(tags=["trust"], route_class=Repeatable)

_ROOT = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


@dataclass(frozen=True, slots=True)
class Metadata:
    """One consistent set. Values are the files' text, whose bytes are what was signed."""

    roots: dict[int, str]
    roles: dict[str, str]
    """By role, timestamp last; empty before anything was published."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished ceremony: whole files, as text. Null: that one stays as it is."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    root: str | None = None
    targets: str | None = None
    models: str | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    changed: bool
    """False: all of it was in force already."""
    root: int
    targets: int
    models: int


@router.get("/tuf", summary="All signed metadata in force", dependencies=[needs("read")])
def get_metadata(parts: Here) -> Metadata:
    return Metadata(
        {number: data.decode() for number, data in parts.repository.roots().items()},
        {role: data.decode() for role, data in parts.repository.metadata().items()},
    )


@router.post("/tuf", summary="Put a finished ceremony in force", dependencies=[needs("administer")])
def install_metadata(finished: Finished, parts: Here, who: Who) -> Versions:
    """All of it or nothing. The holders' signatures decide; the server only checks them, and that
    it has the online keys that they name."""
    texts = (finished.root, finished.targets, finished.models)
    root, targets, models = (text.encode() if text is not None else None for text in texts)
    changed = new_trust.install(
        parts.repository,
        parts.store,
        Install(root, targets, models),
        who.name,
        parts.now_ms(),
    )
    if changed:
        parts.wake()
    return Versions(changed, **powers(parts.repository.in_force()).versions)


@router.get(
    "/tuf/{name}",
    summary="One metadata file, by its TUF name",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}}},
    dependencies=[needs("read")],
)
def get_metadata_file(name: str, parts: Here) -> Response:
    """`1.root.json`, `timestamp.json`, `models.json`: what python-tuf's `Updater` asks for."""
    data = _file(name, parts)
    if data is None:
        known = [f"{role}.json" for role in parts.repository.metadata()]
        raise unknown("metadata file", name, known)
    return Response(data, media_type="application/json")


def _file(name: str, parts: Parts) -> bytes | None:
    root = _ROOT.fullmatch(name)
    if root:
        return parts.repository.roots().get(int(root[1]))
    return parts.repository.metadata().get(name.removesuffix(".json"))

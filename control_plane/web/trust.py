"""Signed metadata as it is published, for whoever wants to verify it with their own TUF client."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastapi import APIRouter, Response

from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import needs
from control_plane.web.unknown import unknown

router = APIRouter(tags=["trust"])

_ROOT = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


@dataclass(frozen=True, slots=True)
class Metadata:
    """One consistent set. Values are the files' text, whose bytes are what was signed."""

    roots: dict[int, str]
    roles: dict[str, str]
    """By role, timestamp last; empty before anything was published."""


@router.get("/tuf", summary="All signed metadata in force", dependencies=[needs("read")])
def get_metadata(parts: Here) -> Metadata:
    return Metadata(
        {number: data.decode() for number, data in parts.repository.roots().items()},
        {role: data.decode() for role, data in parts.repository.metadata().items()},
    )


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

"""ETag and If-Match: nobody changes what has changed since they looked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Response

from control_plane.store.devices import Device
from protocol.errors import InvalidRequest

IfMatch = Annotated[
    str | None, Header(description="ETag of the answer that the change is based on.")
]


def etag(device: Device) -> str:
    """A device's document version stands for everything that can be changed about it."""
    return f'"{device.version}"'


def check(if_match: str | None, device: Device) -> None:
    """Raises `InvalidRequest` OUT-S145 for a stale tag; none, or `*`, matches whatever is there."""
    if if_match is None or if_match.strip() == "*":
        return
    tags = [tag.strip().removeprefix("W/") for tag in if_match.split(",")]
    if etag(device) not in tags:
        raise InvalidRequest("OUT-S145", f"{device.local} is at {etag(device)} now")


def tag(response: Response, device: Device) -> None:
    response.headers["ETag"] = etag(device)

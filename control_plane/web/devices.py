"""Devices: lists by selector, one in full, labels, pins, and lifting what a device holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, ConfigDict

from control_plane.roles import Principal
from control_plane.store.devices import Device
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.device_changes import allowed, configured, pinned, relabelled, unpinned
from control_plane.web.device_view import DeviceDetails, ShownDevice, details, shown
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import bundle_of, device_of, known_model, member_of, references
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.preconditions import IfMatch, check, tag
from control_plane.web.selectors import chooser
from protocol.device import Settings

router = APIRouter(tags=["devices"], route_class=Repeatable)


@dataclass(frozen=True, slots=True)
class Pinning:
    """Hold a model at a version, until a moment or until it is unpinned."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    version: str
    until: AwareDatetime | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Allowing:
    """Let a device try a version again that it gave up: model "digits", version "v3"."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    model: str
    version: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Relabelling:
    """Labels to set; null removes one; those not named stay."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    labels: dict[str, str | None]


@router.get("/devices", summary="Devices, by selector", dependencies=[needs("read")])
def list_devices(
    parts: Here,
    selector: Annotated[str | None, Query(examples=["site = leeds and line = 3"])] = None,
    sort: Literal["id"] = "id",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
    retired: bool = False,
) -> Page[ShownDevice]:
    """`count` is of all that match. `retired`: those that have left the fleet, instead of it."""
    chosen = chooser(parts, selector)
    kind = "retired devices" if retired else "devices"
    behind = after(cursor, kind, selector, sort)
    found = parts.store.devices.page(chosen, behind, limit, retired=retired)
    named = references(parts)
    return Page(
        [shown(device, named) for device in found.items],
        _behind(found.after, kind, selector, sort),
        parts.store.devices.count(chosen, retired=retired),
    )


@router.get("/devices/{device}", summary="One device in full", dependencies=[needs("read")])
def get_device(device: str, parts: Here, response: Response) -> DeviceDetails:
    """Its document, and the whole state that it last reported."""
    row = device_of(parts, device)
    tag(response, row)
    return details(row, references(parts))


@router.patch("/devices/{device}", summary="Change labels", dependencies=[needs("operate")])
def patch_device(
    device: str,
    change: Relabelling,
    parts: Here,
    who: Who,
    response: Response,
    if_match: IfMatch = None,
) -> ShownDevice:
    """Devices whose labels change while a rollout runs join it only when everyone does."""
    with parts.store.write():
        row = member_of(parts, device)
        check(if_match, row)
        changed = _save(parts, who, row, relabelled(row, change.labels), "device.relabelled")
    return _done(parts, changed, response)


@router.put(
    "/devices/{device}/settings",
    summary="Set what a device may do",
    dependencies=[needs("operate")],
)
def put_settings(
    device: str,
    settings: Settings,
    parts: Here,
    who: Who,
    response: Response,
    if_match: IfMatch = None,
) -> ShownDevice:
    """All of them at once: what is left out is as the device is configured."""
    with parts.store.write():
        row = member_of(parts, device)
        check(if_match, row)
        changed = _save(parts, who, row, configured(row, settings), "device.configured")
    return _done(parts, changed, response)


@router.put(
    "/devices/{device}/pins/{model}",
    summary="Pin a model to a version",
    dependencies=[needs("operate")],
)
def put_pin(
    device: str,
    model: str,
    pin: Pinning,
    parts: Here,
    who: Who,
    response: Response,
    if_match: IfMatch = None,
) -> ShownDevice:
    """A pin wins over rollouts. It does not override what the device itself has denied."""
    with parts.store.write():
        row = member_of(parts, device)
        check(if_match, row)
        bundle = bundle_of(parts, f"{model}/{pin.version}", "#/version")
        until_ms = int(pin.until.timestamp() * 1000) if pin.until else None
        new = pinned(row, bundle, until_ms, parts.now_ms())
        about = {"model": model, "version": bundle.version}
        changed = _save(parts, who, row, new, "device.pinned", pin.why, **about)
    return _done(parts, changed, response)


@router.delete(
    "/devices/{device}/pins/{model}", summary="Unpin a model", dependencies=[needs("operate")]
)
def delete_pin(
    device: str,
    model: str,
    parts: Here,
    who: Who,
    response: Response,
    if_match: IfMatch = None,
) -> ShownDevice:
    """Nothing changes if it is not pinned."""
    with parts.store.write():
        row = member_of(parts, device)
        check(if_match, row)
        known_model(parts, model)
        changed = _save(parts, who, row, unpinned(row, model), "device.unpinned", model=model)
    return _done(parts, changed, response)


@router.post(
    "/devices/{device}/allow",
    summary="Let a device try a version again",
    dependencies=[needs("service")],
)
def allow_version(
    device: str, allowing: Allowing, parts: Here, who: Who, response: Response
) -> ShownDevice:
    """Lifts what the device itself holds against the version."""
    with parts.store.write():
        row = member_of(parts, device)
        bundle = bundle_of(parts, f"{allowing.model}/{allowing.version}", "#/version")
        about = {"model": bundle.model, "version": bundle.version}
        new = allowed(row, bundle)
        changed = _save(parts, who, row, new, "device.allowed", allowing.why, **about)
    return _done(parts, changed, response)


def _save(
    parts: Parts,
    who: Principal,
    before: Device,
    new: Device,
    event: str,
    why: str = "",
    **about: str,
) -> Device:
    """Store a changed document and note it. Inside a transaction."""
    changed = parts.store.devices.change(new, parts.now_ms())
    if changed.version != before.version:
        data = {**about, "document": changed.version}
        parts.store.happened(
            who.name,
            f"devices/{before.local}",
            event,
            data,
            parts.now_ms(),
            before=_documented(before),
            after=_documented(changed),
            why=why,
        )
    return changed


def _documented(device: Device) -> dict[str, Any]:
    """What people may change of it."""
    return {
        "labels": device.labels,
        "pins": device.pins,
        "allow": device.allow,
        "settings": device.settings,
    }


def _done(parts: Parts, device: Device, response: Response) -> ShownDevice:
    parts.wake()
    tag(response, device)
    return shown(device, references(parts))


def _behind(
    key: tuple[str | int, ...] | None, kind: str, selector: str | None, sort: str
) -> str | None:
    return cursor(key, kind, selector, sort) if key else None

"""Devices that leave, that are replaced, and that have no network to ask for certificates."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import APIRouter, Response
from pydantic import ConfigDict

from control_plane.fleet.leaving import inherited, next_name, retire
from control_plane.web.device_view import ShownDevice, shown
from control_plane.web.lookup import device_of, references
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from protocol.device import Pin
from protocol.enrolment import (
    RENEW,
    TOKEN_LIFE_MS,
    OfflineAnswer,
    OfflineRequest,
    RenewAnswer,
    RenewRequest,
)
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, digest_of, split_device_id
from protocol.wording import rfc3339

public = APIRouter(tags=["devices"])
router = APIRouter(tags=["devices"])
"""No idempotency keys: retiring twice is retiring once, and answers with tokens are not kept."""


@dataclass(frozen=True, slots=True)
class Retiring:
    """Why it leaves: lost, stolen, scrapped."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    why: str

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise ValueError("a reason belongs to it")


@dataclass(frozen=True, slots=True)
class Replacing:
    """`name` of the new device; without, the old one's with a number behind it."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Replacement:
    """`token` enrols one device under `name`, with labels and pins of the one it replaces."""

    token: str
    name: str
    replaces: str
    labels: dict[str, str]
    pins: dict[str, Pin]
    expires: str


@dataclass(frozen=True, slots=True)
class Brought:
    """A request file of a device without network, and labels if it is new."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    request: OfflineRequest
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer file is `enrolment` or `renewal`, whichever there is.

    `root_digest` is not for the file: a person tells it to whoever uses the file.
    """

    device: str
    name: str
    root_digest: Digest
    enrolment: OfflineAnswer | None = None
    renewal: RenewAnswer | None = None


@router.post(
    "/devices/{device}/retire",
    summary="Take a device out for good",
    dependencies=[needs("operate")],
)
def retire_device(device: str, retiring: Retiring, parts: Here, who: Who) -> ShownDevice:
    """Its certificates are revoked, its document is withdrawn, and nothing it says is taken.
    Its records stay, and nobody gets its name. Nothing changes if it was retired before."""
    with parts.store.write():
        row = device_of(parts, device)
        left = retire(parts.store, row, parts.now_ms(), who=who.name, why=retiring.why)
    if left:
        parts.wake()
        parts.revoked()
    return shown(device_of(parts, row.id), references(parts))


@router.post(
    "/devices/{device}/replace",
    summary="Retire a device and let another take its place",
    status_code=201,
    dependencies=[needs("operate")],
)
def replace_device(
    device: str, replacing: Replacing, parts: Here, who: Who, response: Response
) -> Replacement:
    """For one that is retired already it makes another token: tokens live for 24 hours."""
    now_ms = parts.now_ms()
    with parts.store.write():
        row = device_of(parts, device)
        name = replacing.name or next_name(parts.store, row)
        labels = inherited(row)
        token = parts.enrolment.create_token(now_ms, labels=labels, name=name, pins=row.pins)
        why = replacing.why or f"replaced by {name}"
        left = retire(parts.store, row, now_ms, who=who.name, why=why)
        about = {"labels": labels, "name": name, "replaces": row.id}
        parts.store.happened(who.name, "tokens", "device.token_created", about, now_ms, why=why)
    if left:
        parts.wake()
        parts.revoked()
    response.headers["Cache-Control"] = "no-store"
    expires = rfc3339(now_ms + TOKEN_LIFE_MS)
    return Replacement(token, name, row.local, labels, row.pins, expires)


@router.post(
    "/enrolments",
    summary="Answer the request of a device without network",
    status_code=201,
    dependencies=[needs("service")],
)
def answer_request(brought: Brought, parts: Here, who: Who, response: Response) -> Answered:
    """Enrols the device whose request was brought, or renews its certificate if it says so.

    A request for enrolment is answered once.
    """
    now_ms = parts.now_ms()
    response.headers["Cache-Control"] = "no-store"
    digest = digest_of(parts.enrolment.root())
    renewal = brought.request.renewal
    if renewal is not None:
        if brought.labels:
            raise InvalidRequest("OUT-S120", "labels are for new devices", do="leave them out")
        name = split_device_id(renewal.device)[1]
        return Answered(
            renewal.device, name, digest, renewal=_renewed(parts, renewal, now_ms, who.name)
        )
    with parts.store.write():
        answer = parts.enrolment.enrol_offline(brought.request, brought.labels, now_ms)
        name = split_device_id(answer.device)[1]
        about = {"device": answer.device, "labels": answer.labels, "offline": True}
        parts.store.happened(who.name, f"devices/{name}", "device.enrolled", about, now_ms)
    parts.wake()
    return Answered(answer.device, name, digest, enrolment=answer)


@public.post(RENEW, summary="Renew a device's certificate", status_code=201)
def renew_certificate(request: RenewRequest, parts: Here, response: Response) -> RenewAnswer:
    """Authorised by a proof that the device holds the key of its present certificate, which may
    have expired. The request may be for a new key."""
    response.headers["Cache-Control"] = "no-store"
    return _renewed(parts, request, parts.now_ms(), f"device:{request.device}")


def _renewed(parts: Parts, request: RenewRequest, now_ms: int, who: str) -> RenewAnswer:
    with parts.store.write():
        answer = parts.enrolment.renew(request, now_ms)
        row = device_of(parts, request.device)
        about = {"device": row.id, "certificate": row.certificate}
        parts.store.happened(who, f"devices/{row.local}", "device.renewed", about, now_ms)
    parts.wake()
    parts.revoked()
    return answer

"""How devices join: operators make tokens, devices bring them back for a certificate."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import APIRouter, Response
from pydantic import ConfigDict

from control_plane.web.parts import Here
from control_plane.web.permissions import Who, needs
from protocol.enrolment import PATH, TOKEN_LIFE_MS, EnrolAnswer, EnrolRequest
from protocol.wording import rfc3339

public = APIRouter(tags=["devices"])
router = APIRouter(tags=["devices"])
"""No idempotency keys: answers are secrets, which are not kept. Unused tokens just expire."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Labels that the new device gets; a name, unless the device shall choose."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    labels: dict[str, str] = field(default_factory=dict)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """`token` is text for people to carry; it enrols one device."""

    token: str
    labels: dict[str, str]
    name: str | None
    expires: str


@router.post(
    "/tokens", summary="Make an enrolment token", status_code=201, dependencies=[needs("service")]
)
def create_token(asked: TokenRequest, parts: Here, who: Who, response: Response) -> EnrolmentToken:
    now_ms = parts.now_ms()
    with parts.store.write():
        text = parts.enrolment.create_token(now_ms, labels=asked.labels, name=asked.name)
        about = {"labels": asked.labels, "name": asked.name}
        parts.store.happened(who.name, "tokens", "device.token_created", about, now_ms)
    response.headers["Cache-Control"] = "no-store"
    return EnrolmentToken(text, asked.labels, asked.name, rfc3339(now_ms + TOKEN_LIFE_MS))


@public.post(PATH, summary="Enrol a device", status_code=201)
def enrol_device(request: EnrolRequest, parts: Here, response: Response) -> EnrolAnswer:
    """Authorised by the one-time token in the body. A refusal does not use the token up."""
    now_ms = parts.now_ms()
    with parts.store.write():
        answer = parts.enrolment.enrol(request, now_ms)
        about = {"device": answer.device, "labels": answer.labels}
        local = answer.device.partition("-")[2]
        by = f"device:{answer.device}"
        parts.store.happened(by, f"devices/{local}", "device.enrolled", about, now_ms)
    parts.wake()
    response.headers["Cache-Control"] = "no-store"
    return answer

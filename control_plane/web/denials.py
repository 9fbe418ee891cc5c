"""Denials: operators take a version away at once. They only subtract, and never stop a device.

Signed with the online key, so devices follow within seconds: no new start, and whoever runs it
falls back. Only approvers can revoke for good.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter
from pydantic import ConfigDict

from control_plane.store.bundles import BundleRow
from control_plane.web.drafts import Reason
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import bundle_of
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from protocol.codec import MAX_DENY_LIST, encode
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest
from protocol.plan import Denied, DenyList

router = APIRouter(tags=["approval"], route_class=Repeatable)


@dataclass(frozen=True, slots=True)
class Asked:
    __pydantic_config__ = ConfigDict(extra="forbid")
    why: Reason = ""


@dataclass(frozen=True, slots=True)
class Denial:
    """`devices` run it now, as far as they have reported."""

    model: str
    version: str
    digest: Digest
    why: str
    devices: int


@dataclass(frozen=True, slots=True)
class Denials:
    items: list[Denial]


@router.get("/denials", summary="Versions that operators deny", dependencies=[needs("read")])
def list_denials(parts: Here) -> Denials:
    rows = ((parts.store.bundles.get(each.digest), each) for each in parts.store.plans.denied())
    return Denials([_shown(parts, row, each.why) for row, each in rows if row is not None])


@router.put(
    "/models/{model}/versions/{version}/denial",
    summary="Deny a version",
    dependencies=[needs("operate")],
)
def deny_version(model: str, version: str, parts: Here, who: Who, asked: Asked = Asked()) -> Denial:
    """Rollouts of it abort; devices that run it go back to what is next in their order."""
    row = bundle_of(parts, f"{model}/{version}")
    denied = Denied(row.model, row.digest, asked.why)
    with parts.store.write():
        before = _denied(parts, row.digest)
        if before != denied:
            parts.store.plans.deny(denied)
            _require_room(parts)
            _happened(parts, row, who.name, before, denied)
    parts.wake()
    return _shown(parts, row, asked.why)


@router.delete(
    "/models/{model}/versions/{version}/denial",
    summary="Lift a denial",
    dependencies=[needs("operate")],
)
def undeny_version(model: str, version: str, parts: Here, who: Who) -> Denial:
    """Devices may run it again where plans say so."""
    row = bundle_of(parts, f"{model}/{version}")
    with parts.store.write():
        before = _denied(parts, row.digest)
        if before is None:
            raise InvalidRequest(
                "OUT-S110",
                f"{row.reference} is not denied",
                do=f"outrider model show {row.reference}",
            )
        parts.store.plans.undeny(row.digest)
        _happened(parts, row, who.name, before, None)
    parts.wake()
    return _shown(parts, row, before.why)


def _denied(parts: Parts, digest: Digest) -> Denied | None:
    return next((each for each in parts.store.plans.denied() if each.digest == digest), None)


def _require_room(parts: Parts) -> None:
    """A list that devices refuse as too long would deny nothing. Raises `InvalidRequest`."""
    size = len(encode(DenyList(parts.settings.fleet, 2**53, parts.store.plans.denied())))
    if size > MAX_DENY_LIST:
        raise InvalidRequest(
            "OUT-N211",
            f"the deny list would have {size:,} bytes, at most {MAX_DENY_LIST:,}",
            do="lift denials of versions that approvers have revoked: outrider model undeny",
        )


def _happened(
    parts: Parts, row: BundleRow, who: str, before: Denied | None, after: Denied | None
) -> None:
    parts.store.happened(
        who,
        f"models/{row.model}",
        "model.denied" if after else "model.undenied",
        {"version": row.version, "digest": row.digest},
        parts.now_ms(),
        before="denied" if before else None,
        after="denied" if after else None,
        why=after.why if after else "",
    )


def _shown(parts: Parts, row: BundleRow, why: str) -> Denial:
    devices = parts.store.devices.running(row.model).get(row.digest, 0)
    return Denial(row.model, row.version, row.digest, why, devices)

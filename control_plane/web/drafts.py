"""Drafts: the one way in which approvers change what may run, whatever the change is.

What they sign is `metadata`, byte for byte. Everything else that is said of a draft here helps to
find it; approvers compare the bytes with what is in force themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from control_plane.signing.drafts import Draft as Drafted
from control_plane.signing.drafts import DraftKind, SignatureStatus, kind
from control_plane.signing.review import OnDevice, Purpose
from control_plane.web import approval
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import bundle_of
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.problems import FieldError, InvalidFields
from control_plane.web.unknown import unknown

router = APIRouter(tags=["approval"], route_class=Repeatable)

Reason = Annotated[str, Field(max_length=500)]


@dataclass(frozen=True, slots=True)
class Signatures:
    """Of approvers: "1 of 1" is signed of needed. `missing` names who has not signed."""

    signed: int
    needed: int
    by: list[str]
    missing: list[str]


@dataclass(frozen=True, slots=True)
class OpenDraft:
    """`by` asked for it, `why`: neither is signed. `on_device` is of a revocation."""

    draft: int
    """Version of role models that it would be."""
    id: str
    kind: DraftKind
    versions: list[str]
    on_device: OnDevice | None
    by: str
    why: str
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class Draft(OpenDraft):
    metadata: str
    """The text of the whole list as it would be published; its bytes are signed."""


@dataclass(frozen=True, slots=True)
class OpenDrafts:
    items: list[OpenDraft]


@dataclass(frozen=True, slots=True)
class Proposal:
    """`approve` is for the first time, or again after a revocation; `renew` has no version."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: Purpose
    version: str = ""
    """`model/version`."""
    on_device: OnDevice = "fallback"
    """What devices that run it do once it is revoked."""
    why: Reason = ""


@dataclass(frozen=True, slots=True)
class Signature:
    __pydantic_config__ = ConfigDict(extra="forbid")
    keyid: str
    sig: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Signing:
    """An approver's signature over the draft of this version number."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    draft: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class Signed:
    signed: int
    needed: int
    by: list[str]
    missing: list[str]
    complete: bool
    """Now in force: it reaches devices with the next publication."""
    restarted: list[str]
    """Versions whose drafts lost their signatures by that: nobody signed *this* list."""


@dataclass(frozen=True, slots=True)
class Rejection:
    __pydantic_config__ = ConfigDict(extra="forbid")
    why: Reason = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    draft: int
    versions: list[str]
    discarded: int
    """Signatures that it had."""


@router.get("/drafts", summary="Open drafts", dependencies=[needs("read")])
def list_drafts(parts: Here, version: str | None = None) -> OpenDrafts:
    """`version`: only those about this `model/version`."""
    found = approval.open_drafts(parts)
    return OpenDrafts(
        [opened(parts, each) for each in found if version is None or version in each.references]
    )


@router.post("/drafts", summary="Draft a change", status_code=201, dependencies=[needs("approve")])
def make_draft(proposal: Proposal, parts: Here, who: Who) -> Draft:
    """The same proposal again gives the same draft, with the signatures that it has."""
    if (proposal.kind == "renew") != (not proposal.version):
        raise InvalidFields([FieldError("#/version", "every kind but renew is about a version")])
    if proposal.kind == "renew":
        return shown(parts, approval.renewal(parts, who.name, proposal.why))
    bundle = bundle_of(parts, proposal.version, "#/version")
    if proposal.kind == "approve":
        return shown(parts, approval.draft_of(parts, bundle, who.name, proposal.why))
    on_device, why = proposal.on_device, proposal.why
    return shown(parts, approval.revocation_of(parts, bundle, on_device, who.name, why))


@router.get("/drafts/{draft}", summary="What approvers would sign", dependencies=[needs("read")])
def get_draft(draft: str, parts: Here) -> Draft:
    """Verify it with your own TUF client before you sign."""
    return shown(parts, _named(parts, draft))


@router.post(
    "/drafts/{draft}/signatures",
    summary="Add an approver's signature to a draft",
    status_code=201,
    dependencies=[needs("approve")],
)
def sign_draft(draft: str, signing: Signing, parts: Here, who: Who) -> Signed:
    """At the threshold it is in force. The server cannot make a signature itself."""
    return signed(parts, _named(parts, draft), signing, who.name)


@router.post("/drafts/{draft}/reject", summary="Close a draft", dependencies=[needs("approve")])
def reject_draft(draft: str, parts: Here, who: Who, asked: Rejection = Rejection()) -> Rejected:
    """Its signatures are discarded. A version that was to be approved is rejected."""
    found = _named(parts, draft)
    discarded = approval.reject(parts, found, asked.why, who.name)
    return Rejected(found.version, list(found.references), discarded)


def shown(parts: Parts, draft: Drafted) -> Draft:
    head = opened(parts, draft)
    return Draft(
        head.draft,
        head.id,
        head.kind,
        head.versions,
        head.on_device,
        head.by,
        head.why,
        head.signatures,
        draft.data.decode(),
    )


def opened(parts: Parts, draft: Drafted) -> OpenDraft:
    terms = [each.terms for each in draft.changes if each.terms is not None]
    revokes = [each.on_device for each in terms if each.state == "revoked"]
    return OpenDraft(
        draft.version,
        draft.id,
        kind(draft.changes, parts.repository.approvals()),
        list(draft.references),
        revokes[0] if revokes else None,
        draft.by,
        draft.why,
        signatures(parts.repository.status(draft)),
    )


def signed(parts: Parts, draft: Drafted, signing: Signing, who: str) -> Signed:
    given = approval.Signature(signing.draft, signing.signature.keyid, signing.signature.sig)
    outcome = approval.sign(parts, draft, given, who)
    status = outcome.status
    return Signed(
        status.signed,
        status.needed,
        list(status.by),
        list(status.missing),
        status.complete,
        list(outcome.restarted),
    )


def signatures(status: SignatureStatus) -> Signatures:
    return Signatures(status.signed, status.needed, list(status.by), list(status.missing))


def _named(parts: Parts, id: str) -> Drafted:
    found = {each.id: each for each in approval.open_drafts(parts)}
    if id not in found:
        raise unknown("open draft", id, found)
    return found[id]

"""From a version to what approvers sign of it, and from their signatures to its state.

The repository has what is signed, the store what people did. A signature is in force when the
repository has it; what the store should say of it is written right after, and by the next tick if
a crash comes between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from tuf.api.metadata import Metadata, Targets

from control_plane.signing import keys
from control_plane.signing.drafts import Change, Draft, SignatureStatus, approval, is_moot, kind
from control_plane.signing.review import OnDevice
from control_plane.store.bundles import CLOSED, BundleRow
from control_plane.web.parts import Parts
from protocol.approval import Approved
from protocol.bundle import decode_index
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, digest_of


@dataclass(frozen=True, slots=True)
class Signature:
    """Of an approver, in hexadecimal, over the draft of this version number."""

    version: int
    keyid: str
    sig: str


# --- drafts ---------------------------------------------------------------------------------------


def draft_of(parts: Parts, bundle: BundleRow, by: str = "", why: str = "") -> Draft:
    """The list in force with this version approved: for the first time, or again.

    Raises `InvalidRequest` (OUT-T111) if it is approved already, was rejected or withdrawn.
    """
    if bundle.state in CLOSED:
        because = f": {bundle.why}" if bundle.why else ""
        raise InvalidRequest(
            "OUT-T111",
            f"{bundle.reference} was {bundle.state}{because}",
            do="an operator may push it again: outrider model push",
        )
    there = parts.repository.approvals().get(bundle.digest)
    if there is not None and not there.revoked:
        raise InvalidRequest(
            "OUT-T111",
            f"{bundle.reference} is on the list already",
            do=f"outrider model show {bundle.reference}",
        )
    index = parts.blobs.read(bundle.digest)
    change = approval(decode_index(index), bundle.digest, len(index))
    if there is not None:
        # What approvers granted beside it is theirs to change, not a revocation's.
        change = dataclasses.replace(change, terms=_terms(there.terms, "approved", "fallback"))
    return parts.repository.draft(
        (change,), parts.now_ms(), parts.store.audit.head(), by=by, why=why
    )


def revocation_of(
    parts: Parts, bundle: BundleRow, on_device: OnDevice, by: str = "", why: str = ""
) -> Draft:
    """Raises `InvalidRequest`: OUT-T104 for what was never approved, OUT-T111 if it is revoked
    like that already, or another revocation of it collects signatures."""
    there = parts.repository.approvals().get(bundle.digest)
    if there is None:
        raise InvalidRequest(
            "OUT-T104",
            f"{bundle.reference} is {bundle.state}: there is nothing to revoke",
            do=f"outrider model reject {bundle.reference}",
        )
    length = parts.blobs.path(bundle.digest).stat().st_size
    terms = _terms(there.terms, "revoked", on_device)
    change = Change(bundle.model, bundle.version, bundle.digest, length, terms)
    if is_moot((change,), {bundle.digest: there}):
        raise InvalidRequest(
            "OUT-T111",
            f"{bundle.reference} is revoked already",
            do=f"outrider model show {bundle.reference}",
        )
    _refuse_other_revocation(parts, bundle, change)
    return parts.repository.draft(
        (change,), parts.now_ms(), parts.store.audit.head(), by=by, why=why
    )


def renewal(parts: Parts, by: str = "", why: str = "") -> Draft:
    """The list in force as it is, for as long as a new one is valid."""
    return parts.repository.draft((), parts.now_ms(), by=by, why=why)


def open_drafts(parts: Parts) -> tuple[Draft, ...]:
    """All drafts, up to date with the list in force. What it says already is closed."""
    listed = parts.repository.approvals()
    found = []
    for draft in parts.repository.drafts():
        if is_moot(draft.changes, listed) or _is_closed(parts, draft):
            parts.repository.close_draft(draft.id)
        else:
            head = parts.store.audit.head()
            found.append(parts.repository.draft(draft.changes, parts.now_ms(), head))
    return tuple(found)


def pending(parts: Parts) -> dict[Digest, Draft]:
    """Open drafts that would change what is in force, by the bundle they are about."""
    listed = parts.repository.approvals()
    return {
        draft.changes[0].digest: draft
        for draft in open_drafts(parts)
        if len(draft.changes) == 1 and draft.changes[0].digest in listed
    }


def approval_of(parts: Parts, bundle: BundleRow) -> SignatureStatus | None:
    """Signatures that a version has and needs; None while its list is approved, not published,
    and for one that nobody may sign."""
    if bundle.digest not in parts.repository.approvals():
        if bundle.state in CLOSED:
            return None
        return parts.repository.status(draft_of(parts, bundle))
    published = parts.repository.metadata()
    if "targets" not in published:
        return None
    targets = Metadata[Targets].from_bytes(published["targets"]).signed
    models = Metadata[Targets].from_bytes(published["models"])
    result = targets.get_verification_result("models", models.signed_bytes, models.signatures)
    return SignatureStatus(
        len(result.signed),
        result.threshold,
        keys.holders(result.signed.values()),
        keys.holders(result.unsigned.values()),
    )


# --- what approvers do ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """`restarted`: versions whose drafts lost their signatures, since this one is in force."""

    status: SignatureStatus
    restarted: tuple[str, ...] = ()


def sign(parts: Parts, draft: Draft, signature: Signature, who: str) -> Outcome:
    """Raises `InvalidRequest` OUT-T111, OUT-T112."""
    before = parts.repository.status(draft)
    others = [each for each in parts.repository.drafts() if each.id != draft.id]
    signed = [each for each in others if parts.repository.status(each).signed]
    was = {each.digest: parts.store.bundles.get(each.digest) for each in draft.changes}
    what = kind(draft.changes, parts.repository.approvals())
    status = parts.repository.add_signature(
        draft.id, signature.version, signature.keyid, signature.sig
    )
    restarted = tuple(sorted({name for each in signed for name in each.references}))
    new = sorted(set(status.by) - set(before.by))
    now_ms = parts.now_ms()
    with parts.store.write():
        if new:
            about = {
                "draft": draft.version,
                "kind": what,
                "versions": list(draft.references),
                "keys": new,
                "signed": status.signed,
                "needed": status.needed,
            }
            parts.store.happened(who, _topic(draft), "draft.signed", about, now_ms)
        if status.complete:
            _in_force(parts, draft, status, was, who, now_ms)
    if status.complete:
        parts.wake()
    return Outcome(status, restarted if status.complete else ())


def reject(parts: Parts, draft: Draft, why: str, who: str) -> int:
    """Close a draft; how many signatures are discarded."""
    discarded = parts.repository.status(draft).signed
    what = kind(draft.changes, parts.repository.approvals())
    with parts.store.write():
        if what == "approve":
            for change in draft.changes:
                parts.store.bundles.set_state(change.digest, "rejected", why)
        about = {
            "draft": draft.version,
            "kind": what,
            "versions": list(draft.references),
            "discarded": discarded,
        }
        parts.store.happened(who, _topic(draft), "draft.rejected", about, parts.now_ms(), why=why)
    parts.repository.close_draft(draft.id)
    return discarded


def withdraw(parts: Parts, bundle: BundleRow, why: str, who: str) -> None:
    """Raises `InvalidRequest` OUT-T111 for a version that is approved, or was."""
    if bundle.state == "withdrawn":
        return
    if bundle.digest in parts.repository.approvals():
        raise InvalidRequest(
            "OUT-T111",
            f"{bundle.reference} is on the list already",
            do=f"approvers revoke it: outrider model revoke {bundle.reference}",
        )
    drafts = [
        each
        for each in parts.repository.drafts()
        if any(change.digest == bundle.digest for change in each.changes)
    ]
    with parts.store.write():
        parts.store.bundles.set_state(bundle.digest, "withdrawn", why)
        about = {"version": bundle.version, "digest": bundle.digest}
        parts.store.happened(
            who,
            f"models/{bundle.model}",
            "model.withdrawn",
            about,
            parts.now_ms(),
            before=bundle.state,
            after="withdrawn",
            why=why,
        )
    for each in drafts:
        parts.repository.close_draft(each.id)


def _in_force(
    parts: Parts,
    draft: Draft,
    status: SignatureStatus,
    was: Mapping[Digest, BundleRow | None],
    who: str,
    now_ms: int,
) -> None:
    """Write down what the list says from now on. A draft without changes renewed it."""
    evidence = digest_of(draft.metadata().signed_bytes)
    if not draft.changes:
        about = {"draft": draft.version, "by": list(status.by)}
        parts.store.happened(
            who, "trust/models", "models.renewed", about, now_ms, why=draft.why, evidence=evidence
        )
    for change in draft.changes:
        if change.terms is None:
            continue
        before, state = was[change.digest], change.terms.state
        parts.store.bundles.set_state(change.digest, state, draft.why)
        about = {"version": change.version, "digest": change.digest, "by": list(status.by)}
        if state == "revoked":
            about["on_device"] = change.terms.on_device
        parts.store.happened(
            who,
            f"models/{change.model}",
            f"model.{state}",
            about,
            now_ms,
            before=before.state if before else None,
            after=state,
            why=draft.why,
            evidence=evidence,
        )


def _topic(draft: Draft) -> str:
    models = {each.model for each in draft.changes}
    return f"models/{models.pop()}" if len(models) == 1 else "trust/models"


def _is_closed(parts: Parts, draft: Draft) -> bool:
    rows = [parts.store.bundles.get(each.digest) for each in draft.changes]
    return any(row is not None and row.state in CLOSED for row in rows)


def _refuse_other_revocation(parts: Parts, bundle: BundleRow, change: Change) -> None:
    for draft in open_drafts(parts):
        for other in draft.changes:
            if (
                other.digest == bundle.digest
                and other != change
                and other.terms is not None
                and other.terms.state == "revoked"
                and parts.repository.status(draft).signed
            ):
                raise InvalidRequest(
                    "OUT-T111",
                    f"another revocation of {bundle.reference} is being signed:"
                    f" --on-device {other.terms.on_device}",
                    do=f"sign that one, or: outrider model reject {bundle.reference}",
                )


def _terms(terms: Approved, state: str, on_device: OnDevice) -> Approved:
    return dataclasses.replace(
        terms,
        state="revoked" if state == "revoked" else "approved",
        on_device=on_device,
        audit_head="",
    )

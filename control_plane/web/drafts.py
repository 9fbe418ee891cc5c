"""How far the approval of a version is, and its draft."""

from __future__ import annotations

from tuf.api.metadata import Metadata, Targets

from control_plane.signing import keys
from control_plane.signing.drafts import Change, Draft, SignatureStatus
from control_plane.store.bundles import BundleRow
from control_plane.web.parts import Parts
from protocol.errors import InvalidRequest


def draft_of(parts: Parts, bundle: BundleRow) -> Draft:
    """The list of approved versions with this one added, as approvers are asked to sign it.

    Raises `InvalidRequest` (OUT-T111) if it is on the list already.
    """
    if bundle.digest in parts.repository.approvals():
        raise InvalidRequest(
            "OUT-T111",
            f"{bundle.reference} is on the list already",
            do=f"outrider model show {bundle.reference}",
        )
    length = parts.blobs.path(bundle.digest).stat().st_size
    change = Change(bundle.model, bundle.version, bundle.digest, length)
    return parts.repository.draft((change,), parts.now_ms())


def approval_of(parts: Parts, bundle: BundleRow) -> SignatureStatus | None:
    """Signatures that a version has and needs; None while its list is approved, not published."""
    if bundle.digest not in parts.repository.approvals():
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

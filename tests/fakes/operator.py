"""What an operator and an approver bring to the API: a packed bundle, a signature."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from control_plane.catalog import archive, layout
from control_plane.settings import Settings
from control_plane.signing import create, keys
from control_plane.signing.approve import Approver
from protocol.identifiers import Digest
from tests.fakes.bundles import BundleOnDisk


def packed(bundle: BundleOnDisk, folder: Path) -> bytes:
    """The tar that an operator pushes."""
    blobs: dict[Digest, bytes | Path] = {
        member.digest: bundle.path / member.path for member in bundle.variant.members
    }
    blobs[bundle.manifest] = (bundle.path / "manifest.json").read_bytes()
    index = (bundle.path / "index.json").read_bytes()
    place = folder / f"{bundle.model}-{bundle.version}.bundle"
    layout.write(place, index, blobs)
    return b"".join(archive.pack(place))


def signature(
    trust: Mapping[str, Any],
    draft: Mapping[str, Any],
    settings: Settings,
    folder: Path,
    now_ms: int,
    key: str = create.APPROVER_KEY,
) -> dict[str, Any]:
    """The body of POST signatures, after a review of what GET tuf and GET draft answered.

    `key` is a file among the development keys.
    """
    roots = {int(number): text.encode() for number, text in trust["roots"].items()}
    roles = {role: text.encode() for role, text in trust["roles"].items()}
    approver = Approver(folder / "approver", roots[1])
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    review = approver.review(roots, roles, draft["metadata"].encode(), now)
    keyid, made = approver.sign(review, keys.load(settings.keys / key))
    return {"draft": draft["draft"], "signature": {"keyid": keyid, "sig": made}}

"""What an approver does: look with their own eyes, then sign with a key that stays here."""

from __future__ import annotations

import hashlib
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from control_plane.cli import asking, screen, showing
from control_plane.client import Client, segment
from control_plane.settings import Settings
from control_plane.signing import keys
from control_plane.signing.approve import Approver, Difference, Review
from protocol.errors import InvalidRequest, TrustError
from protocol.identifiers import digest_from_hex, model_version, short

DEV_KEY = "approver-dev.pem"


def review_and_sign(
    client: Client,
    settings: Settings,
    reference: str,
    key: Path | None,
    *,
    ask: bool,
    show: bool = False,
) -> Any:
    """Verify the draft, show what it changes, sign it. The API's answer.

    Raises `TrustError` when the draft is not what it should be, `InvalidRequest` when the answer
    is no, or no key is given outside development.
    """
    try:
        model, version = model_version(reference)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error
    signer = keys.load(_key(settings, key))
    path = f"models/{segment(model)}/versions/{segment(version)}"
    draft = client.get(f"{path}/draft")
    metadata = client.get("tuf")
    approver = Approver(settings.home / "approver", _root(settings))
    review = approver.review(
        {int(number): text.encode() for number, text in metadata["roots"].items()},
        {role: text.encode() for role, text in metadata["roles"].items()},
        draft["metadata"].encode(),
        datetime.fromtimestamp(showing.now_ms() / 1000, UTC),
    )
    _require_only(review, reference)
    for difference in review.differences:
        _fetch(client, difference)
    if show or ask:
        _show(review)
    if ask:
        _confirm(review)
    keyid, signature = approver.sign(review, signer)
    body = {"draft": draft["draft"], "signature": {"keyid": keyid, "sig": signature}}
    return client.post(f"{path}/signatures", body)


def _key(settings: Settings, key: Path | None) -> Path:
    if key is not None:
        return key
    if settings.dev:
        return settings.keys / DEV_KEY
    raise InvalidRequest("OUT-T112", "no key was given", do="name yours: --key FILE")


def _root(settings: Settings) -> bytes:
    """The first root: an approver starts from their own copy, here the one beside their key."""
    return (settings.tuf / "root" / "1.json").read_bytes()


def _require_only(review: Review, reference: str) -> None:
    paths = [difference.path for difference in review.differences]
    if paths != [f"models/{reference}"]:
        raise TrustError("OUT-T114", f"it changes {', '.join(paths) or 'nothing'}")


def _fetch(client: Client, difference: Difference) -> None:
    """The index itself, fetched and hashed here: the digest is not taken from anybody's word."""
    if difference.after is None:
        return
    data = client.bytes(f"blobs/{difference.after.digest}")
    found = digest_from_hex(hashlib.sha256(data).hexdigest())
    if found != difference.after.digest or len(data) != difference.length:
        raise TrustError("OUT-T103", f"{difference.path} is {found}")


def _show(review: Review) -> None:
    screen.hint(f"refreshed  own TUF client: root {review.root}, models {review.trusted}")
    screen.hint(f"draft      models {review.version} differs from {review.trusted} in exactly:")
    for difference in review.differences:
        name = difference.path.removeprefix("models/")
        after = difference.after
        found = f"   sha256-{short(after.digest)}, fetched here, digest matches" if after else ""
        sign = "+" if difference.kind == "approved" else difference.kind
        screen.hint(f"  {sign} {name}{found}")
    if all(difference.kind == "approved" for difference in review.differences):
        screen.hint("  nothing revoked, removed or re-pointed")


def _confirm(review: Review) -> None:
    """Raises `InvalidRequest` OUT-S152 unless a person says yes."""
    where = sorted({arch for each in review.differences for arch in _architectures(each)})
    on = f" on {' and '.join(where)}" if where else ""
    question = f"Your signature lets operators run it{on} until it is revoked."
    if not sys.stdin.isatty():
        raise InvalidRequest("OUT-S152", question)
    if not asking.said_yes(f"{textwrap.fill(question + ' Sign? [y/N]', screen.WIDTH)} "):
        raise InvalidRequest("OUT-S152", "not signed", do="sign when you have looked at it")


def _architectures(difference: Difference) -> tuple[str, ...]:
    return difference.after.terms.needs.arch if difference.after else ()

"""What an approver does: look with their own eyes, then sign with a key that stays here.

draft ─▶ own TUF client ─▶ is it what I asked for? ─▶ fetch, hash ─▶ audit ─▶ show, ask ─▶ sign
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner

from control_plane.audit import Line, imported
from control_plane.cli import asking, passphrases, screen, showing
from control_plane.cli.bar import Bar
from control_plane.cli.own_trust import own_client, published
from control_plane.cli.reviewing import Looked, architectures, changes, printable
from control_plane.client import Client, segment
from control_plane.settings import Settings
from control_plane.signing import keys
from control_plane.signing.approve import Approver, Review, audit, lost_heads
from control_plane.signing.create import dev_approver_keys
from control_plane.signing.evidence import Evidence, fetch
from control_plane.signing.review import Asked, Difference, OnDevice, beyond, predecessor
from protocol.errors import InvalidRequest, PeerError, TrustError
from protocol.identifiers import model_version
from protocol.wording import date, size_of

MAX_LINE: Final = 512 * 1024
"""Bytes of a line of the audit trail, read from a server that nobody has to believe."""


@dataclass(frozen=True, slots=True)
class How:
    """How a person signs. Without a key: the development keys, one after the other."""

    key: Path | None = None
    passphrase_file: Path | None = None
    ask: bool = True
    show: bool = True
    audit_lost: bool = False
    """Go on although heads that approvers signed are gone from the audit trail, and remember."""


def review_and_sign(
    client: Client,
    settings: Settings,
    reference: str,
    key: Path | None,
    *,
    ask: bool,
    show: bool = False,
) -> Any:
    """Approve a version: verify its draft, show what it changes, sign it. The API's answer.

    Raises `TrustError` when the draft is not what it should be, `InvalidRequest` when the answer
    is no, or no key is given outside development.
    """
    return approve(client, settings, reference, How(key, ask=ask, show=show))


def approve(client: Client, settings: Settings, reference: str, how: How) -> Any:
    """Also for a version that was revoked: it may run again then."""
    asked = Asked("approve", _path(reference))
    model, version = reference.split("/")
    where = f"models/{segment(model)}/versions/{segment(version)}/draft"
    return _sign(client, settings, client.get(where), asked, how)


def revoke(
    client: Client, settings: Settings, reference: str, on_device: OnDevice, why: str, how: How
) -> Any:
    """The first who asks for it drafts it; the same again adds a signature."""
    asked = Asked("revoke", _path(reference), on_device)
    body = {"kind": "revoke", "version": reference, "on_device": on_device, "why": why}
    return _sign(client, settings, client.post("drafts", body), asked, how)


def renew(client: Client, settings: Settings, how: How) -> Any:
    """The same list again, for another 90 days."""
    draft = client.post("drafts", {"kind": "renew"})
    return _sign(client, settings, draft, Asked("renew"), how)


def _sign(client: Client, settings: Settings, draft: Any, asked: Asked, how: How) -> Any:
    if how.key is not None:
        keys.encrypted(how.key)  # A file that is not there is told before anybody reads on.
    approver = own_client(settings.home)
    review = approver.review(
        *published(client),
        draft["metadata"].encode(),
        datetime.fromtimestamp(showing.now_ms() / 1000, UTC),
    )
    wrong = beyond(asked, review.differences)
    if wrong:
        raise TrustError("OUT-T114", wrong)
    tell = screen.hint if how.show or how.ask else _say_nothing
    tell(f"refreshed  own TUF client: root {review.root}, models {review.trusted}")
    looked = [_look(client, review, each) for each in review.differences]
    _tell_changes(review, looked, draft, tell)
    lost = _audit(client, approver, review, how, tell)
    if how.ask:
        _confirm(review, looked, asked)
    keyid, signature = approver.sign(review, _signer(settings, review, how))
    if lost:
        approver.note_lost(lost)
    body = {"draft": draft["draft"], "signature": {"keyid": keyid, "sig": signature}}
    return client.post(f"drafts/{segment(draft['id'])}/signatures", body)


def _path(reference: str) -> str:
    try:
        model_version(reference)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error
    return f"models/{reference}"


def _signer(settings: Settings, review: Review, how: How) -> CryptoSigner:
    if how.key is not None:
        return passphrases.signer(how.key, how.passphrase_file)
    if not settings.dev:
        raise InvalidRequest("OUT-T112", "no key was given", do="name yours: --key FILE")
    for path in dev_approver_keys(settings.keys):
        key = passphrases.signer(path, how.passphrase_file)
        keyid = key.public_key.keyid
        if keyid in review.holders and keyid not in review.signed:
            return key
    raise InvalidRequest("OUT-T112", f"no key in {settings.keys} is left that has not signed")


# --- what is looked at ----------------------------------------------------------------------------


def _look(client: Client, review: Review, difference: Difference) -> Looked:
    """Everything that would be allowed is fetched here; what is taken away need not be there."""
    after = difference.after
    if after is None or after.revoked:
        return Looked(difference)
    with Bar("fetch", size_of) as bar:
        found = fetch(
            lambda digest: client.blocks(f"blobs/{digest}"),
            difference.path,
            after.digest,
            difference.length,
            progress=bar,
        )
    entries = review.entries.values()
    before = predecessor(entries, difference)
    measure: Evidence | None = None
    if before is not None:
        path = f"models/{before.bundle.model}/{before.bundle.version}"
        measure = fetch(
            lambda digest: client.blocks(f"blobs/{digest}"),
            path,
            before.bundle.digest,
            before.length,
            whole=False,
        )
    names = {
        each.bundle.digest: f"{each.bundle.model}/{each.bundle.version}"
        for each in entries
        if not each.bundle.revoked
    }
    return Looked(difference, found, before, measure, names)


def _audit(
    client: Client, approver: Approver, review: Review, how: How, tell: Callable[[str], None]
) -> frozenset[str]:
    """Heads that were found to be lost just now. Raises `TrustError` OUT-S170."""
    known = approver.lost()
    lost: frozenset[str] = frozenset()
    if how.audit_lost:
        lost = lost_heads(review, _trail(client)) - known
    found = audit(review, _trail(client), known | lost)
    for head in sorted(lost):
        tell(f"audit      LOST: record {head[:24]}, which approvers have signed for")
    anchors = f"; yours anchors {review.audit_head[:24]}" if review.audit_head else ""
    tell(f"audit      whole: {showing.plural(found.records, 'record')}{anchors}")
    return lost


def _trail(client: Client) -> Iterator[Line]:
    """Line by line as it comes. What is no line of a trail counts as one that was edited."""
    waiting = bytearray()
    for block in client.blocks("audit/export"):
        waiting += block
        *lines, rest = waiting.split(b"\n")
        if len(rest) > MAX_LINE:
            raise TrustError("OUT-S170", f"a record has more than {MAX_LINE:,} bytes")
        yield from map(_line, lines)
        waiting = bytearray(rest)
    if waiting:
        yield _line(waiting)


def _line(data: bytearray) -> Line:
    try:
        return imported(bytes(data))
    except PeerError:
        return Line(bytes(data[:200]).decode(errors="replace"), "")


# --- what is said ---------------------------------------------------------------------------------


def _tell_changes(
    review: Review, looked: list[Looked], draft: Any, tell: Callable[[str], None]
) -> None:
    if not looked:
        until = date(int(review.expires.timestamp() * 1000), showing.now_ms())
        entries = showing.plural(len(review.entries), "version")
        tell(f"draft      models {review.version} differs from {review.trusted} in nothing:")
        tell(f"  the same {entries}, valid until {until}")
        return
    tell(f"draft      models {review.version} differs from {review.trusted} in exactly:")
    for line in changes(looked):
        tell(line)
    if draft.get("why"):
        said = f"{draft['why']} ({draft.get('by') or 'nobody'} says so; it is not signed)"
        for number, part in enumerate(textwrap.wrap(printable(said), screen.WIDTH - 11)):
            tell(f"{'' if number else 'why':<11}{part}")


def _say_nothing(text: str) -> None:
    """For scripts."""


def _confirm(review: Review, looked: list[Looked], asked: Asked) -> None:
    """Raises `InvalidRequest` OUT-S152 unless a person says yes."""
    question = _question(review, looked, asked)
    if not sys.stdin.isatty():
        raise InvalidRequest("OUT-S152", question)
    if not asking.said_yes(f"{textwrap.fill(question + ' Sign? [y/N]', screen.WIDTH)} "):
        raise InvalidRequest("OUT-S152", "not signed", do="sign when you have looked at it")


def _question(review: Review, looked: list[Looked], asked: Asked) -> str:
    reference = asked.path.removeprefix("models/")
    if asked.purpose == "renew":
        until = date(int(review.expires.timestamp() * 1000), showing.now_ms())
        return f"Your signature keeps all of this in force until {until}."
    if asked.purpose == "revoke":
        return f"Your signature takes {reference} away from every device, for good."
    where = architectures(looked)
    on = f" on {' and '.join(where)}" if where else ""
    restored = any(each.kind == "restored" for each in review.differences)
    it = f"{reference} AGAIN" if restored else "it"
    return f"Your signature lets operators run {it}{on} until it is revoked."

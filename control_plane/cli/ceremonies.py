"""What a person at a ceremony sees, is asked and does; the commands are in `trust`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from control_plane.cli import asking, passphrases, screen, showing
from control_plane.signing import ceremony, ceremony_folder, ceremony_rules, keys, own_copy
from control_plane.signing.ceremony import Need, Proposal, powers
from control_plane.signing.ceremony_words import Line, describe, signs
from control_plane.signing.own_copy import OwnCopy
from protocol.errors import InvalidRequest, TrustError
from protocol.identifiers import digest_of, short

_WHAT = {
    "init": "its first root of trust",
    "rotate": "who may sign what changes",
    "renew": "the same people, valid for longer",
}


def now() -> datetime:
    return datetime.fromtimestamp(showing.now_ms() / 1000, UTC)


def sign(directory: Path, key: Path, passphrase_file: Path | None, *, ask: bool) -> Proposal:
    """Check, compare with the signer's own copy, say it in words, ask, sign.

    Raises `TrustError` (OUT-T124) for what must not be signed, `InvalidRequest` when the answer
    is no or the key may sign nothing of it.
    """
    proposal = ceremony_folder.read(directory)
    ceremony_rules.check(proposal, now())
    signer, keyid = _who(key, passphrase_file)
    roles = ceremony.require_signable(proposal, keyid)
    place = own_copy.path_of(key, proposal.fleet)
    own = own_copy.read(place)
    _compare(proposal, own, place)
    _show(proposal, own, place)
    versions = powers(proposal.result()).versions
    contents = {f"{role} {versions[role]}": ceremony.content(proposal, role) for role in roles}
    for name in own.other(contents):
        screen.complaint(f"careful    you have signed another {name} before: publish only one")
    if ask:
        _confirm(f"{key.name} signs {signs(roles, proposal)}. Sign? [y/N] ")
    signed = ceremony.sign(proposal, signer or passphrases.signer(key, passphrase_file))
    ceremony_folder.write_signatures(directory, signed)
    # Only what was verified: a first root is nobody's but the signer's own so far.
    own_copy.write(place, own.after(proposal, contents))
    return signed


def sign_all(directory: Path, found: list[Path], passphrase_file: Path | None) -> Proposal:
    """Everybody is at this machine: with each key what it may sign, without questions."""
    proposal = ceremony_folder.read(directory)
    for key in found:
        proposal = sign(directory, key, passphrase_file, ask=False)
    return proposal


def tell(proposal: Proposal) -> None:
    """How far the signatures are."""
    for need in ceremony.needs(proposal):
        showing.line("signed" if need.complete else "missing", f"{need.file}: {_said(need)}")


def said(lines: tuple[Line, ...]) -> list[str]:
    return [f"{label:<10} {text}".rstrip() for label, text in lines]


def document(proposal: Proposal) -> dict[str, object]:
    """As JSON."""
    base = powers(proposal.base) if proposal.base is not None else None
    found = ceremony.needs(proposal)
    return {
        "fleet": proposal.fleet,
        "what": proposal.what,
        "versions": dict(powers(proposal.result()).versions),
        "changes": [" ".join(each.split()) for each in said(describe(proposal, base))],
        "signatures": [
            {
                "file": need.file,
                "by": need.by,
                "signed": list(need.signed),
                "missing": [] if need.complete else list(need.missing),
                "needed": need.needed,
            }
            for need in found
        ],
        "complete": all(need.complete for need in found),
    }


def show(proposal: Proposal) -> None:
    """On stdout, against what it was made from."""
    base = powers(proposal.base) if proposal.base is not None else None
    showing.line("fleet", f"{proposal.fleet}: {_WHAT[proposal.what]}", width=11)
    for each in said(describe(proposal, base)):
        screen.result(each)


def require_made_here(proposal: Proposal, fleet: str, state: ceremony.InForce | None) -> None:
    """Raises `TrustError` (OUT-T124): for another fleet, or not made from what is in force."""
    if proposal.fleet != fleet:
        raise TrustError("OUT-T124", f"it is for fleet {proposal.fleet}, this is {fleet}")
    if state is None or proposal.base is None:
        return
    ours, theirs = state.roots, proposal.base.roots
    if any(ours[number] != theirs[number] for number in set(ours) & set(theirs)):
        raise TrustError("OUT-T124", "it was made from another root than this fleet has")


def fingerprint(data: bytes) -> str:
    return f"sha256-{short(digest_of(data))}"


def _said(need: Need) -> str:
    return f"{need.said} ({need.by})"


def _who(key: Path, passphrase_file: Path | None) -> tuple[CryptoSigner | None, str]:
    """The id of a key, from the .pub beside it: the passphrase is asked for after the question."""
    public = keys.public_path(key)
    if public != key and public.exists() and key.exists():
        return None, keys.load_public(public).keyid
    signer = passphrases.signer(key, passphrase_file)
    return signer, signer.public_key.keyid


def _compare(proposal: Proposal, own: OwnCopy, place: Path) -> None:
    state = own.state
    if state is None:
        return
    base = proposal.base
    if base is not None:
        ceremony.require_continues(state, base)
    elif not ceremony.same_content(state.root, proposal.result().root):
        raise TrustError(
            "OUT-T124",
            f"your own copy has another first root of fleet {proposal.fleet}",
            do=f"if that ceremony was thrown away, remove {place.name}",
        )


def _show(proposal: Proposal, own: OwnCopy, place: Path) -> None:
    state = own.state
    compared = powers(state) if state is not None else None
    screen.complaint(f"fleet      {proposal.fleet}: {_WHAT[proposal.what]}")
    if compared is not None and proposal.base is not None:
        versions = ", ".join(f"{role} {number}" for role, number in compared.versions.items())
        screen.complaint(f"compared   with your own copy, {place.name}: {versions}")
    elif proposal.base is not None:
        compared = powers(proposal.base)
        root = fingerprint(proposal.base.root)
        screen.complaint(f"compared   with what the folder says is in force: root {root}")
        screen.complaint("           This key has seen nothing of this fleet: ask another holder")
        screen.complaint("           whether their root is the same.")
    else:
        compared = None
        screen.complaint("compared   with nothing: before it there is no root")
    for each in said(describe(proposal, compared)):
        screen.complaint(each)


def _confirm(question: str) -> None:
    """Raises `InvalidRequest` OUT-S152 unless a person says yes."""
    if not sys.stdin.isatty():
        raise InvalidRequest("OUT-S152", question.removesuffix(" Sign? [y/N] "))
    if not asking.said_yes(question):
        raise InvalidRequest("OUT-S152", "not signed", do="sign when you have looked at it")

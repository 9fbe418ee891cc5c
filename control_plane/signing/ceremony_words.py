"""What a proposal says, in words: everything that a signature on it would allow. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from control_plane.signing import keys
from control_plane.signing.ceremony import PROPOSED, Holding, Powers, Proposal, powers

Line = tuple[str, str]
"""A label (empty: goes on with the one above) and a text."""

_MAY = {
    "root": "say who may sign what",
    "models": "approve versions",
    "rollouts": "chooses among approved versions",
    "snapshot": "says what is current",
}


def describe(proposal: Proposal, compared: Powers | None) -> tuple[Line, ...]:
    """Line by line, against `compared`: what the reader trusts by themselves, or the base.

    Raises `TrustError` (OUT-T124) if it cannot be read.
    """
    return tuple(_lines(proposal, compared, powers(proposal.result())))


def signs(roles: tuple[str, ...], proposal: Proposal) -> str:
    """ "root 2 and targets 2"."""
    versions = powers(proposal.result()).versions
    names = [f"{role} {versions[role]}" for role in roles]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _lines(proposal: Proposal, before: Powers | None, after: Powers) -> Iterator[Line]:
    for role in PROPOSED:
        yield role, _versions(role, proposal, before, after)
        if role == "targets":
            continue  # signed by the same people as root, and said with models
        yield from _people(role, before, after)
        if role == "models" and proposal.models is not None and before is not None:
            yield "", f"lists the same {_plural(after.listed)} as before"
    for role in ("rollouts", "snapshot"):
        yield role, _online(role, before, after)
    weak = [role for role in ("root", "models") if after.of(role).threshold == 1]
    if weak and len(after.of(weak[0]).keys) > 0:
        yield "careful", f"one key alone is enough for {' and '.join(weak)}"


def _versions(role: str, proposal: Proposal, before: Powers | None, after: Powers) -> str:
    number, until = after.versions[role], day(after.expires[role])
    if before is None:
        return f"version {number}, until {until}"
    if proposal.file(role) is None and before.versions[role] == number:
        return f"stays version {number}, until {until}"
    was = before.versions[role]
    return f"version {was} -> {number}, until {until} (was {day(before.expires[role])})"


def _people(role: str, before: Powers | None, after: Powers) -> Iterator[Line]:
    now = after.of(role)
    if before is None:
        yield "", f"{now.said} may {_MAY[role]}"
        return
    was = before.of(role)
    if now.same(was):
        yield "", f"the same people: {now.said} may {_MAY[role]}"
        return
    yield "", f"{was.said} -> {now.said} may {_MAY[role]}"
    yield from (("", f"- {_key(was, keyid)}") for keyid in _less(was, now))
    yield from (("", f"+ {_key(now, keyid)}") for keyid in _less(now, was))


def _online(role: str, before: Powers | None, after: Powers) -> str:
    now = _ids(after.of(role))
    also = ", for timestamp too" if role == "snapshot" else ""
    if before is None:
        return f"the server's key {now} {_MAY[role]}{also}"
    was = _ids(before.of(role))
    if set(before.of(role).keys) == set(after.of(role).keys):
        return f"the server's key stays {now}{also}"
    return f"the server's key changes: {was} -> {now}{also}"


def _key(holding: Holding, keyid: str) -> str:
    return f"{keys.holder(holding.keys[keyid])} (key {keyid[: keys.SHORT]})"


def _less(one: Holding, other: Holding) -> list[str]:
    gone = set(one.keys) - set(other.keys)
    return sorted(gone, key=lambda keyid: (keys.holder(one.keys[keyid]), keyid))


def _ids(holding: Holding) -> str:
    return ", ".join(sorted(keyid[: keys.SHORT] for keyid in holding.keys))


def _plural(versions: int) -> str:
    return f"{versions} version{'' if versions == 1 else 's'}"


def day(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y}"

"""The trail of changes: each record is chained to the one before by its hash.

    record 41 ── hash ──▶ record 42 ── hash ──▶ record 43
                             ▲
                 signed by approvers as the head that they saw

Whoever can write the store can rewrite everything behind the last head that approvers have
signed, and nothing before it: edits, removals, other orders and a shorter trail all show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import msgspec

from protocol.approval import ApprovedBundle
from protocol.codec import decode, encode
from protocol.errors import PeerError
from protocol.identifiers import Count

MAX_LINE: Final = 256 * 1024
_HEAD: Final = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Record:
    """One change. Numbers count from 1; `previous` is the hash of the record before ("" first)."""

    number: Count
    time_ms: int
    who: str
    """A person's name, `device:<id>`, `gate`, `ticker` or `control plane`."""
    what: str
    """What happened: "rollout.started"."""
    about: str
    """What it happened to: "rollouts/digits-7"."""
    data: dict[str, Any] = field(default_factory=dict)
    before: Any = None
    after: Any = None
    why: str = ""
    evidence: str = ""
    """Digest of what an automatic decision rests on."""
    previous: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A record as it is kept: the very text that was hashed, and its hash (hexadecimal)."""

    text: str
    hash: str


class _Exported(msgspec.Struct, frozen=True):
    hash: str
    record: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head that approvers have signed. `where` says in what, for people."""

    head: str
    where: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check of the whole trail found. No problems: it is whole."""

    records: int
    head: str
    anchored: int
    """Number of the newest record that approvers have signed for; 0: none."""
    problems: tuple[str, ...] = ()


def line_of(record: Record) -> Line:
    text = encode(record).decode()
    return Line(text, sha256(text.encode()).hexdigest())


def exported(line: Line) -> bytes:
    """One line of an export: JSON that still holds the record's very bytes."""
    return f'{{"hash":"{line.hash}","record":{line.text}}}\n'.encode()


def imported(data: bytes) -> Line:
    """From one line of an export. Raises `PeerError` for anything else."""
    if len(data) > MAX_LINE:
        raise PeerError("OUT-N211", f"{len(data):,} bytes in one line")
    try:
        found = msgspec.json.decode(data, type=_Exported)
        return Line(bytes(found.record).decode(), found.hash)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerError("OUT-N210", f"not a line of an audit trail: {error}") from error


def head_of(number: int, hash: str) -> str:
    return f"{number}:{hash}"


def split_head(head: str) -> tuple[int, str]:
    """`(number, hash)`. Raises `ValueError` for text that is no head."""
    found = _HEAD.fullmatch(head)
    if found is None:
        raise ValueError(f"not the head of an audit trail: {head!r:.100}")
    return int(found[1]), found[2]


def anchors_of(approved: Iterable[ApprovedBundle]) -> tuple[Anchor, ...]:
    """The heads that approvers have signed, each with the entry it was signed in."""
    return tuple(
        Anchor(each.terms.audit_head, f"{each.model}/{each.version}")
        for each in approved
        if each.terms.audit_head
    )


def verify(lines: Iterable[Line], anchors: Sequence[Anchor] = (), *, most: int = 20) -> Findings:
    """Check a trail from its first record on, and that every anchor lies in it.

    Goes on behind a fault, so that later ones are told too; at most `most` are.
    """
    problems: list[str] = []
    wanted: dict[int, list[tuple[str, str]]] = {}
    for anchor in anchors:
        try:
            number, hash = split_head(anchor.head)
        except ValueError:
            problems.append(f"{anchor.where} names a head that is none")
            continue
        wanted.setdefault(number, []).append((hash, anchor.where))
    previous, count, anchored = "", 0, 0
    for line in lines:
        expected = count + 1
        hash = sha256(line.text.encode()).hexdigest()
        try:
            record = decode(line.text.encode(), Record, limit=MAX_LINE)
        except PeerError:
            problems.append(f"record {expected} cannot be read")
            count, previous = expected, line.hash
            continue
        if hash != line.hash:
            problems.append(f"record {expected} was edited")
        if record.number > expected:
            gone = _span(expected, record.number - 1)
            problems.append(f"{gone} removed")
        elif record.number < expected:
            problems.append(f"record {record.number} stands behind record {count}")
        elif record.previous != previous:
            problems.append(f"record {record.number} does not follow the one before it")
        for wanted_hash, where in wanted.pop(record.number, ()):
            if wanted_hash == hash:
                anchored = max(anchored, record.number)
            else:
                problems.append(f"record {record.number} is not the one that {where} was signed at")
        count, previous = max(count, record.number), line.hash
    for number in sorted(wanted):
        for _, where in wanted[number]:
            problems.append(f"the trail ends at {count}, but {where} was signed at {number}")
    return Findings(
        count, head_of(count, previous) if count else "", anchored, _cut(problems, most)
    )


def _span(first: int, last: int) -> str:
    return f"record {first} was" if first == last else f"records {first} to {last} were"


def _cut(problems: Sequence[str], most: int) -> tuple[str, ...]:
    if len(problems) <= most:
        return tuple(problems)
    return (*problems[:most], f"and {len(problems) - most} more")

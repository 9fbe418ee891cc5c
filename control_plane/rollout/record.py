"""The evidence record: a verdict with all that it was computed from, chained by digests.

A record is JSON that stands by itself: whoever holds it computes the verdict again with `replay`,
without the control plane that wrote it. Each carries the digest of the one before, so none can be
taken out or changed without breaking the chain. Late data make a new record, never a changed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Final

from control_plane.rollout import gate
from control_plane.rollout.evidence import Evidence
from control_plane.rollout.figures import ScoreFigures, share
from control_plane.rollout.gate import Judgement
from control_plane.rollout.phase import funnel, total
from control_plane.rollout.score import EDGES
from control_plane.rollout.sequential import share_of
from protocol.codec import convert, encode, to_wire
from protocol.errors import PeerError
from protocol.identifiers import Digest, digest_of

PREVIOUS: Final = "previous"
"""Member that names the digest of the record before; empty in a rollout's first."""


def record(
    judgement: Judgement, about: Mapping[str, Any] | None = None, previous: Digest | str = ""
) -> dict[str, Any]:
    """`about`: rollout, time, plan in force, who has overruled it. Raises `ValueError` for a
    judgement that does not know what it was computed from."""
    if judgement.asked is None or judgement.figures is None:
        raise ValueError("a judgement without inputs cannot be replayed, so it is not recorded")
    asked, found = judgement.asked, judgement.figures
    counts = asked.evidence.counts
    mine = asked.evidence.of(asked.wave)
    figures = _finite(
        {**to_wire(found), "scores": [_row(each, asked.wave) for each in found.scores]}
    )
    return {
        **(about or {}),
        "gate": asked.gate,
        "wave": asked.wave,
        "verdict": judgement.verdict,
        "id": judgement.id,
        "sentence": judgement.sentence,
        "counts": {
            "wave": funnel(mine.counts),
            "begun": funnel(total(c for wave, c in counts.items() if wave <= asked.wave)),
            "eligible": list(mine.eligible),
            "no_baseline": max(0, mine.counts.all - mine.eligible[0]),
        },
        "figures": figures,
        "inputs": judgement.inputs,
        PREVIOUS: previous,
    }


def digest(record: Mapping[str, Any]) -> Digest:
    return digest_of(encode(dict(record)))


def replay(record: Mapping[str, Any]) -> Judgement:
    """The judgement, computed again. Raises `PeerError` OUT-N210 for what is no record."""
    return gate.replay(_inputs(record))


def agrees(record: Mapping[str, Any]) -> bool:
    """Whether the verdict computed again is the one recorded. Raises `PeerError`."""
    again = replay(record)
    said = {"verdict": again.verdict, "id": again.id, "sentence": again.sentence}
    return all(record.get(name) == value for name, value in said.items())


def evidence_of(record: Mapping[str, Any]) -> Evidence:
    """Raises `PeerError`."""
    return convert(_inputs(record).get("evidence", {}), Evidence)


def broken_at(records: Iterable[Mapping[str, Any]]) -> int | None:
    """Index of the first of a rollout's records, in order, that does not follow its predecessor."""
    previous: Digest | str = ""
    for index, each in enumerate(records):
        if each.get(PREVIOUS, "") != previous:
            return index
        previous = digest(each)
    return None


def _inputs(record: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = record.get("inputs")
    if not isinstance(inputs, Mapping) or not inputs:
        raise PeerError("OUT-N210", "an evidence record has the inputs of its verdict")
    return inputs


def _row(score: ScoreFigures, wave: int) -> dict[str, Any]:
    """A series with its terms, so that a record is read without looking anything up."""
    row: dict[str, Any] = to_wire(score)
    return {
        **row.pop("watched"),
        **row,
        "share": share(wave),
        "edges": list(EDGES),
        "w": share_of(score.n_a, score.n_b) if score.n_a and score.n_b else None,
    }


def _finite(value: Any) -> Any:
    """JSON knows no infinity: null says that there is no such number."""
    match value:
        case float():
            return value if isfinite(value) else None
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list():
            return [_finite(each) for each in value]
        case _:
            return value

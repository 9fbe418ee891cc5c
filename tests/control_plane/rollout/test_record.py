"""Records of verdicts: they stand by themselves, replay, and form a chain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rollout import record as records
from control_plane.rollout.evidence import Exposed, Silence, Slots, Tick
from control_plane.rollout.gate import Judgement, judge
from control_plane.rollout.phase import PHASES, Counts
from control_plane.rollout.picture import lines, svg
from control_plane.rollout.spec import read_spec
from protocol.errors import PeerError
from tests.control_plane.rollout.bets import CONFIDENCE, ERRORS, HOUR, LATENCY, compared, evidence

SPEC = read_spec({"version": "digits/v2", "waves": ["30", "100%"], "soak": "1h"})
ABOUT = {"rollout": "digits-7", "at_ms": 30 * HOUR, "plan": 34, "by": "eva"}


def judged(found):
    return judge(SPEC, found, 1, now_ms=30 * HOUR, soak_ms=HOUR)


def kept(judgement, previous=""):
    """As it lies in a file."""
    return json.loads(json.dumps(records.record(judgement, ABOUT, previous)))


SLOW = evidence(
    Counts(healthy=29, silent=1),
    compared(LATENCY, 10, 90, LATENCY.margin + 0.1, hour=500),
    compared(LATENCY, 20, 180, LATENCY.margin + 0.1, hour=501),
    watched=[LATENCY, ERRORS, CONFIDENCE],
    eligible=(30, 270),
    silences=[Silence(30, 270, "ab", 3 * HOUR)],
    judged={"86400": Exposed(30, 270, 30, 270)},
)


def test_a_record_holds_what_a_reader_needs_without_looking_anything_up():
    record = kept(judged(SLOW))
    assert {name: record[name] for name in ABOUT} == ABOUT
    assert (record["gate"], record["wave"], record["verdict"], record["id"]) == (
        "2", 1, "fail", "latency",
    )  # fmt: skip
    assert record["counts"]["wave"]["healthy"] == 29
    assert (record["counts"]["eligible"], record["counts"]["no_baseline"]) == ([30, 270], 0)
    figures = record["figures"]
    assert (figures["n"], figures["bad"], figures["limit"]) == (30, 1, 0.02)
    row = figures["scores"][0]
    wanted = ("key", "margin", "scale", "alpha", "share", "role", "edges", "w", "a", "b", "ln_m")
    assert all(name in row for name in wanted)
    assert (row["key"], row["role"], row["state"], row["w"]) == (
        "latency/86400", "guard", "worse", 0.1,
    )  # fmt: skip
    assert (sum(row["a"]), sum(row["b"])) == (30, 270)
    # No bet was made in this one: there is no such number.
    assert figures["scores"][1]["ln_m"] is None
    terms = record["inputs"]["evidence"]["terms"]
    assert (terms["salt"], terms["devices"]) == ("ab" * 16, 300)


def test_a_verdict_is_computed_again_from_its_record_alone():
    record = kept(judged(SLOW))
    assert records.replay(record) == judged(SLOW)
    assert records.evidence_of(record) == SLOW
    assert records.agrees(record)


@pytest.mark.parametrize("member, value", [("verdict", "pass"), ("id", "failed"), ("sentence", "")])
def test_a_record_that_says_something_else_than_its_inputs_does_not_agree(member, value):
    assert not records.agrees({**kept(judged(SLOW)), member: value})


def test_changed_inputs_give_another_verdict():
    record = kept(judged(SLOW))
    record["inputs"]["evidence"]["waves"][0]["ticks"] = []
    assert not records.agrees(record)


@pytest.mark.parametrize("record", [{}, {"inputs": {}}, {"inputs": []}, {"inputs": {"wave": 1}}])
def test_what_is_no_record_is_said_to_be_none(record):
    with pytest.raises(PeerError):
        records.replay(record)


def test_a_judgement_without_its_inputs_is_not_recorded():
    with pytest.raises(ValueError, match="replayed"):
        records.record(Judgement("pass", "pass", "fine"))


def chain():
    found: list[dict[str, Any]] = []
    for healthy in (10, 20, 30):
        previous = records.digest(found[-1]) if found else ""
        found.append(kept(judged(evidence(Counts(healthy=healthy))), previous))
    return found


def test_records_form_a_chain():
    assert records.broken_at(chain()) is None
    assert records.broken_at([]) is None


@pytest.mark.parametrize(
    "spoil, at",
    [
        (lambda them: them[1:], 0),
        (lambda them: [them[0], them[2]], 1),
        (lambda them: [them[1], them[0], them[2]], 0),
        (lambda them: [them[0], {**them[1], "verdict": "fail"}, them[2]], 2),
        (lambda them: [them[0], them[0], them[1]], 1),
    ],
    ids=["first gone", "middle gone", "out of order", "changed", "twice"],
)
def test_a_record_that_is_missing_changed_or_moved_breaks_the_chain(spoil, at):
    assert records.broken_at(spoil(chain())) == at


def test_the_last_record_may_be_cut_off_unseen_so_its_digest_is_kept_elsewhere():
    whole = chain()
    assert records.broken_at(whole[:2]) is None
    assert records.digest(whole[1]) != records.digest(whole[2])


counts_of = st.lists(st.integers(0, 30), min_size=len(PHASES), max_size=len(PHASES)).map(
    lambda numbers: Counts(**dict(zip(PHASES, numbers, strict=True)))
)
slots_of = st.lists(st.integers(0, 9), min_size=12, max_size=12).map(tuple)


@given(counts_of, st.lists(st.tuples(st.integers(0, 99), slots_of, slots_of), max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_record_replays_and_can_be_drawn(counts, hours):
    ticks = [Tick(hour, {LATENCY.key: Slots(0.25, a, b)}) for hour, a, b in hours]
    found = evidence(counts, *ticks, watched=[LATENCY, ERRORS], eligible=(40, 400))
    judgement = judged(found)
    record = kept(judgement)
    assert records.replay(record) == judgement
    assert records.replay(kept(records.replay(record))) == judgement
    assert svg(record).endswith("</svg>")
    assert all(len(line) <= 40 for line in lines(record, 40))

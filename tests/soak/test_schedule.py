"""Schedules: the same from the same seed, and everything whole in the end."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.soak.schedule import (
    FAULTS,
    LANES,
    LASTS_S,
    MAX_S,
    MIN_S,
    WISHES,
    Fault,
    Schedule,
    moves,
    schedule,
)

SEEDS = st.integers(0, 2**63)


@given(SEEDS)
def test_the_same_seed_gives_the_same_schedule(seed):
    assert schedule(seed) == schedule(seed)


def test_another_process_makes_the_same_schedule_of_a_seed():
    code = "from tests.soak.schedule import schedule; print(repr(schedule(7)))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(schedule(7))


def test_seeds_give_different_schedules():
    assert len({schedule(seed).faults for seed in range(200)}) > 190


@given(SEEDS)
def test_every_schedule_ends_with_everything_restored(seed):
    play = schedule(seed)
    open_faults: list[Fault] = []
    for move in moves(play):
        if move.what == "begin":
            open_faults.append(move.fault)
        else:
            open_faults.remove(move.fault)
        assert 0 < move.at_s < play.length_s
    assert open_faults == []


@given(SEEDS)
def test_faults_of_one_lane_never_overlap(seed):
    active: Counter[str] = Counter()
    for move in moves(schedule(seed)):
        active[move.fault.lane] += 1 if move.what == "begin" else -1
        assert active[move.fault.lane] <= 1


@given(SEEDS)
def test_at_most_one_file_is_damaged(seed):
    assert sum(fault.lane == "files" for fault in schedule(seed).faults) <= 1


@given(SEEDS)
def test_a_schedule_stays_within_its_bounds(seed):
    play = schedule(seed)
    assert MIN_S <= play.length_s <= MAX_S
    assert 1 <= len(play.faults) <= FAULTS[1]
    assert WISHES[0] <= len(play.wishes) <= WISHES[1]
    assert all(0 <= fault.for_s <= LASTS_S[fault.kind][1] for fault in play.faults)
    assert list(play.wishes) == sorted(play.wishes, key=lambda wish: wish.at_s)


def test_every_kind_of_fault_and_of_wish_comes_up():
    plays = [schedule(seed) for seed in range(300)]
    assert {fault.kind for play in plays for fault in play.faults} == set(LANES)
    wishes = {wish.kind for play in plays for wish in play.wishes}
    assert wishes == {"roll out", "pin", "unpin", "abort", "deny", "revoke"}


def test_a_fault_that_takes_no_time_begins_before_it_ends():
    fault = Fault(1.0, "kill runner", 0.0, 0)
    assert [m.what for m in moves(Schedule(0, 6.0, (), (fault,)))] == ["begin", "end"]


def test_the_lines_for_people_are_in_order():
    for seed in range(20):
        lines = list(schedule(seed).lines())
        assert lines == sorted(lines, key=lambda line: float(line.split(" s ")[0]))

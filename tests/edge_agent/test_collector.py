"""Counts reach the outbox once, whatever dies in between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.buffer import Outbox
from edge_agent.collector import Collector
from edge_agent.runner.views import Load, ModelWindows, Role, RunnerFailed, RunnerView, Take
from tests.fakes.telemetry import BUNDLE, MANIFEST, MODEL, take


@dataclass
class Runner:
    """Keeps a take until it is acknowledged, like the real one."""

    name: str
    role: Role = "serving"
    answers: int = 0
    seq: int = 0
    pending: int = 0
    gone: bool = False


@dataclass
class Pool:
    runners: list[Runner] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def views(self):
        load = Load(MODEL, BUNDLE, MANIFEST, Path("/nowhere"))
        return tuple(
            RunnerView(each.name, 1, each.role, (load,)) for each in self.runners if not each.gone
        )

    def take(self, runner, ack):
        self.asked.append((runner, ack))
        found = next(each for each in self.runners if each.name == runner)
        if found.gone:
            raise RunnerFailed("OUT-D311", "gone")
        if ack == found.seq:
            found.pending = 0
            if found.role == "draining" and not found.answers:
                found.gone = True
        if not found.pending and found.answers:
            found.pending, found.answers, found.seq = found.answers, 0, found.seq + 1
        counted = take(found.seq, found.pending, runner=runner).windows if found.pending else ()
        windows = tuple(ModelWindows(w.model, w.digest, w.inference, w.drift) for w in counted)
        return Take(runner, found.seq, windows, final=found.role == "draining")


@pytest.fixture
def outbox(tmp_path):
    box = Outbox(tmp_path / "outbox.db", window_s=2.0, min_window_n=0)
    yield box
    box.close()


def test_counts_are_taken_when_a_checkpoint_is_due(outbox):
    pool = Pool([Runner("r-1", answers=30)])
    collector = Collector(pool, outbox, checkpoint_s=10.0)
    collector.collect(0.0, 1)
    pool.runners[0].answers = 12
    collector.collect(5.0, 2)
    assert outbox.answers == 30
    collector.collect(10.0, 3)
    assert outbox.answers == 42


@pytest.mark.parametrize("role", ["parked", "draining"])
def test_what_is_taken_each_turn_does_not_put_off_the_checkpoint_of_who_serves(outbox, role):
    pool = Pool([Runner("r-1", answers=30), Runner("r-2", role=role)])
    collector = Collector(pool, outbox, checkpoint_s=10.0)
    collector.collect(0.0, 1)
    pool.runners[0].answers = 12
    for turn in range(1, 101):
        pool.runners[1].answers = 1
        collector.collect(turn / 10, turn)
    assert pool.runners[0].answers == 0


def test_a_killed_supervisor_loses_and_repeats_nothing(outbox):
    pool = Pool([Runner("r-1", answers=30)])
    pool.take("r-1", 0)  # the one before took it and died before it could commit
    Collector(pool, outbox).collect(0.0, 1)
    pool.runners[0].answers = 5
    Collector(pool, outbox).collect(0.0, 2, whole=True)
    Collector(pool, outbox).collect(0.0, 3, whole=True)
    assert outbox.answers == 35


def test_a_draining_runner_hands_over_its_last_counts_at_once_and_may_go(outbox):
    pool = Pool([Runner("r-1", answers=7, role="draining"), Runner("r-2", answers=1)])
    collector = Collector(pool, outbox)
    collector.collect(0.0, 1)
    collector.collect(1.0, 2)
    assert pool.runners[0].gone
    assert outbox.answers == 8


def test_a_standby_is_not_asked(outbox):
    pool = Pool([Runner("r-1", role="standby", answers=3)])
    Collector(pool, outbox).collect(0.0, 1)
    assert pool.asked == []


def test_a_runner_that_dies_meanwhile_does_not_keep_the_others_from_being_asked(outbox):
    class Dying(Pool):
        def take(self, runner, ack):
            if runner == "r-1":
                raise RunnerFailed("OUT-D311", "died")
            return super().take(runner, ack)

    pool = Dying([Runner("r-1", answers=3), Runner("r-2", answers=4)])
    Collector(pool, outbox).collect(0.0, 1)
    assert outbox.answers == 4


def test_counts_that_do_not_merge_do_not_stop_the_agent(outbox):
    class Odd(Pool):
        def take(self, runner, ack):
            found = super().take(runner, ack)
            if runner != "r-1" or not found.windows:
                return found
            window = found.windows[0]
            odd = replace(window, inference=replace(window.inference, classes=(1,)))
            return replace(found, windows=(odd,))

    pool = Odd([Runner("r-2", answers=4), Runner("r-1", answers=3)])
    Collector(pool, outbox).collect(0.0, 1)
    assert outbox.answers == 4

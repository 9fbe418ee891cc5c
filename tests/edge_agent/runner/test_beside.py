"""A standby that runs copies of requests for nobody: in one process, and in real ones."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.runner.beside import BATCH_S, LOWEST, SHARE, Beside
from edge_agent.runner.blame import read_blame
from edge_agent.runner.control import blame_path
from edge_agent.runner.fault import VARIABLE
from edge_agent.runner.samples import MOST_REQUESTS, Sample, Samples
from edge_agent.runner.session import ModelFailed
from edge_agent.runner.views import Load, RunnerFailed, Shadowed
from edge_agent.runners import Runners
from protocol.members import Contract, TensorSpec
from protocol.reported import Shadow
from tests.fakes.callers import call, inference
from tests.fakes.waiting import until as wait_until

CONTRACT = Contract(
    (TensorSpec("x", "FP32", (-1, 2)),),
    (TensorSpec("p", "FP32", (-1, 2), role="probabilities"),),
    classes=("low", "high"),
)


class Answers:
    """A model that says `high` where the first number is positive, or as it was told."""

    def __init__(self, contract: Contract = CONTRACT) -> None:
        self.contract = contract
        self.asked = 0
        self.niceness: set[int] = set()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.fails = False

    def shadow(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.asked += 1
        self.niceness.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.goes_on.wait()
        if self.fails:
            raise ModelFailed("no")
        return {"p": answer(inputs["x"])}


def answer(rows: Any) -> Any:
    high = np.where(rows[:, :1] > 0, 0.9, 0.1).astype(np.float32)
    return np.concatenate([1 - high, high], axis=1)


def sample(*firsts: float, wrong: bool = False) -> Sample:
    rows = np.array([(first, 0.0) for first in firsts], np.float32)
    samples = Samples(CONTRACT, 0.0, 0.0)
    samples.offer({"x": rows}, {"p": answer(-rows if wrong else rows)}, 1.0)
    (made,) = samples.take(1.0)
    return made


def until(beside: Beside, satisfied: Callable[[Shadow], bool]) -> Shadow:
    wait_until(lambda: satisfied(beside.counts()))
    return beside.counts()


def test_rows_are_compared_and_counted():
    beside = Beside(Answers(), "sha256-" + "a" * 64, CONTRACT)
    beside.give([sample(1, -1, 1), sample(2, wrong=True)])
    shadow = until(beside, lambda found: found.rows == 4)
    assert (shadow.agreed, shadow.failures) == (3, 0)
    assert sum(shadow.latency) == 2
    assert shadow.confidence == shadow.base_confidence
    assert sum(shadow.confidence) == 4
    assert beside.stop(5)


def test_what_the_candidate_fails_on_is_counted_and_the_rest_goes_on():
    candidate = Answers()
    beside = Beside(candidate, "sha256-" + "a" * 64, CONTRACT)
    candidate.fails = True
    beside.give([sample(1)])
    until(beside, lambda found: found.failures == 1)
    candidate.fails = False
    beside.give([sample(1)])
    assert until(beside, lambda found: found.rows == 1).failures == 1
    assert beside.stop(5)


def test_a_request_that_breaks_the_candidates_contract_is_a_failure():
    wider = Contract((TensorSpec("x", "FP32", (-1, 3)),), CONTRACT.outputs, classes=("low", "high"))
    beside = Beside(Answers(wider), "sha256-" + "a" * 64, CONTRACT)
    beside.give([sample(1)])
    assert until(beside, lambda found: found.failures == 1).rows == 0
    assert beside.stop(5)


def test_it_runs_when_nobody_else_wants_to():
    candidate = Answers()
    beside = Beside(candidate, "sha256-" + "a" * 64, CONTRACT)
    beside.give([sample(1)])
    until(beside, lambda found: found.rows == 1)
    assert candidate.niceness == {LOWEST}
    assert beside.stop(5)


def test_after_a_batch_it_rests_nine_times_as_long():
    """Each look at this clock takes a third of a batch's time."""
    spent = 0.0
    pauses: list[float] = []

    def cpu_s() -> float:
        nonlocal spent
        spent += BATCH_S / 3
        return spent

    beside = Beside(Answers(), "sha256-" + "a" * 64, CONTRACT, cpu_s=cpu_s)
    right = beside._stopping.wait

    def wait(timeout: float | None = None) -> bool:
        pauses.append(timeout or 0.0)
        return right(0)

    beside._stopping.wait = wait  # type: ignore[method-assign]  # rests without resting
    beside.give([sample(1)] * 30)
    until(beside, lambda found: found.rows == 30)
    wait_until(lambda: len(pauses) >= 6)
    worked = [pause / (1 / SHARE - 1) for pause in pauses]
    assert all(BATCH_S <= each < 2 * BATCH_S for each in worked[:-1])
    assert beside.stop(5)


def test_what_it_cannot_hold_is_dropped_and_it_wants_no_more():
    candidate = Answers()
    candidate.goes_on.clear()
    beside = Beside(candidate, "sha256-" + "a" * 64, CONTRACT)
    assert beside.give([])
    assert not beside.give([sample(1)] * (MOST_REQUESTS + 100))
    wait_until(lambda: candidate.asked)
    assert not beside.stop(0)
    candidate.goes_on.set()
    wait_until(lambda: beside.stop(1))
    assert candidate.asked == 1


# --- real runners ---------------------------------------------------------------------------------


def both(runners: Runners, bundles: Callable[..., Load], **wishes: object) -> tuple[str, str, Load]:
    """A runner that serves v1, and a standby with v2."""
    base = bundles(version="v1")
    serving = runners.start((base,))
    runners.promote(serving.id)
    standby = runners.start((bundles(version="v2", **wishes),))
    return serving.id, standby.id, base


def ask(runners: Runners, row: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)) -> int:
    return call(runners.port, "POST", "/v2/models/toy/infer", inference(row))[0]


def moved(runners: Runners, serving: str, standby: str, base: Load) -> Shadowed:
    return runners.shadow(standby, "toy", base, runners.sample(serving, "toy", 0.0))


def until_rows(runners: Runners, serving: str, standby: str, base: Load, rows: int) -> Shadow:
    def enough() -> bool:
        assert ask(runners) == 200
        return moved(runners, serving, standby, base).shadow.rows >= rows

    wait_until(enough)
    return moved(runners, serving, standby, base).shadow


def test_the_same_model_agrees_and_another_does_not(runners, bundles):
    serving, same, base = both(runners, bundles, scale=1.0)
    found = until_rows(runners, serving, same, base, 10)
    assert found.agreed == found.rows
    assert sum(found.confidence) == found.rows
    # It prefers what the other likes least.
    other = runners.start((bundles(version="v3", scale=-1.0),)).id
    found = until_rows(runners, serving, other, base, 10)
    assert found.agreed == 0


def test_without_being_asked_nothing_is_copied(runners, bundles):
    serving, _, _ = both(runners, bundles)
    assert ask(runners) == 200
    assert runners.sample(serving, "toy", 0.0) == ()
    assert ask(runners) == 200
    assert len(runners.sample(serving, "toy", 0.0)) == 1
    assert ask(runners) == 200
    runners.unsample(serving, "toy")
    assert runners.sample(serving, "toy", 0.0) == ()


def test_only_what_serves_is_copied_and_only_a_standby_runs_beside(runners, bundles):
    serving, standby, base = both(runners, bundles)
    with pytest.raises(RunnerFailed, match="requests to copy"):
        runners.sample(standby, "toy", 0.0)
    with pytest.raises(RunnerFailed, match="only a standby"):
        runners.shadow(serving, "toy", base, ())


def test_what_ran_beside_serves_once_it_is_promoted(runners, bundles):
    serving, standby, base = both(runners, bundles)
    until_rows(runners, serving, standby, base, 5)
    runners.promote(standby)
    runners.drain(serving)
    status, body = call(runners.port, "POST", "/v2/models/toy/infer", inference((1, 2, 3, 4)))
    assert (status, body["model_version"]) == (200, "v2")
    # What it did beside is no answer that it gave.
    assert runners.peek(standby)["toy"].answers == 1
    with pytest.raises(RunnerFailed, match="only a standby"):
        runners.shadow(standby, "toy", base, ())


def test_a_request_still_in_work_is_not_waited_for_by_callers(new_runners, bundles, tmp_path):
    """The model hangs on this row: nobody's answer may come after it."""
    runners = new_runners(run_limit_s=600.0)
    runners.adopt()
    serving, standby, base = both(runners, bundles, hangs=True)
    assert runners.sample(serving, "toy", 0.0) == ()
    assert ask(runners, (10.0, 0.0, 0.0, 0.0)) == 200
    assert moved(runners, serving, standby, base).shadow.rows == 0
    wait_until(lambda: read_blame(blame_path(tmp_path / "run", standby)))
    with pytest.raises(RunnerFailed, match="still in work"):
        runners.promote(standby)
    assert {view.id for view in runners.views() if view.role == "serving"} == {serving}
    assert ask(runners) == 200


def test_a_candidate_that_aborts_beside_is_named_and_the_other_serves_on(
    runners, bundles, monkeypatch
):
    monkeypatch.setenv(VARIABLE, "toy/v2:shadow")
    serving, standby, base = both(runners, bundles)
    runners.sample(serving, "toy", 0.0)
    assert ask(runners) == 200
    moved(runners, serving, standby, base)
    wait_until(lambda: len(runners.views()) == 1)
    (death,) = runners.deaths()
    assert (death.runner, death.role, death.status) == (standby, "standby", -signal.SIGABRT)
    assert (death.model, death.digest) == ("toy", bundles(version="v2").digest)
    assert ask(runners) == 200


def test_a_candidate_that_hangs_beside_is_ended_and_named(new_runners, bundles):
    runners = new_runners(run_limit_s=0.1)
    runners.adopt()
    serving, standby, base = both(runners, bundles, hangs=True)
    runners.sample(serving, "toy", 0.0)
    assert ask(runners, (10.0, 0.0, 0.0, 0.0)) == 200
    moved(runners, serving, standby, base)
    wait_until(lambda: len(runners.views()) == 1)
    (death,) = runners.deaths()
    assert (death.runner, death.model, death.detail) == (
        standby,
        "toy",
        "exited with status 75 during shadow of toy",
    )
    assert ask(runners) == 200


def test_a_standby_that_runs_beside_is_the_first_to_go_when_memory_runs_out(runners, bundles):
    serving, standby, base = both(runners, bundles)
    runners.shadow(standby, "toy", base, ())

    def score(runner: str) -> int:
        pid = next(view.pid for view in runners.views() if view.id == runner)
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))

    assert score(standby) > score(serving)
    runners.promote(standby)
    assert score(standby) == score(serving)

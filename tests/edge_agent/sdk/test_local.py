"""A model in the application's own process, and the agent that leads it and takes its counts.

Long because applications, agents and their ends are played in one small world.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.applications import Applications, Counted, RunnersAndApplications, Wanted
from edge_agent.buffer import Outbox
from edge_agent.collector import Collector
from edge_agent.disk import Disk
from edge_agent.journal import Note
from edge_agent.runner.bundle import Bundle, read_bundle
from edge_agent.runner.views import Load, RunnerFailed
from edge_agent.sdk import Client, Local
from edge_agent.sdk.held import Held
from protocol.errors import Failed, InvalidRequest, Unavailable
from protocol.members import Basis, Contract, Feature, Profile, Residual, Watched
from tests.fakes.bundles import expected, make_bundle
from tests.fakes.conditions import eventually
from tests.fakes.proven import install, prove

ROW = np.array([[0.1, -0.2, 0.3, 0.4]], np.float32)


class NoRunners:
    def views(self) -> tuple[()]:
        return ()


class Agent:
    """The part of a supervisor that is about applications; may be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = 0.0
        self.wanted: Wanted | None = None
        self.outbox = Outbox(home / "outbox.db", rng=random.Random(1))
        self.applications = Applications(home / "run", pause_s=0)
        self.collector = self._collector()

    def _collector(self) -> Collector:
        return Collector(Counted(NoRunners(), self.applications), self.outbox)  # type: ignore[arg-type]  # as far as it is used

    def killed(self) -> None:
        """Another begins where this one ended: with what is durable."""
        self.applications.close()
        self.outbox.close()
        self.outbox = Outbox(self.home / "outbox.db", rng=random.Random(2))
        self.applications = Applications(self.home / "run", pause_s=0)
        self.collector = self._collector()

    def turn(self, *, collect: bool = True) -> bool:
        self.now += 1
        if self.wanted is not None:
            self.applications.follow("toy", self.wanted)
        self.applications.turn(self.now)
        if collect:
            self.collector.collect(self.now, int(self.now * 1000), whole=True)
        return True

    def lead(self, local: Local, load: Load | None, *, proven: bool = True) -> None:
        self.wanted = Wanted(load, proven)
        digest = load.digest if load is not None else None
        eventually(lambda: self.turn() and local.standing().digest == digest)

    def close(self) -> None:
        self.applications.close()
        self.outbox.close()


@pytest.fixture
def agent(home: Path) -> Iterator[Agent]:
    made = Agent(home)
    yield made
    made.close()


@pytest.fixture
def first(home: Path) -> Load:
    load = install(home)
    prove(home, load)
    return load


def test_it_answers_with_what_is_proven(home, first):
    made = make_bundle(home / "made")
    with Local("toy", home=home) as local:
        answer = local.infer({"pixels": ROW})
        alone = local.infer(np.repeat(ROW, 3, axis=0))
    assert (answer.model, answer.version, answer.answered_by) == ("toy", "v1", "model")
    assert np.allclose(answer.outputs["probabilities"], expected(made.weights, ROW), atol=1e-5)
    assert alone.outputs["label"].shape == (3,)
    assert local.standing().led is False


@pytest.mark.parametrize(
    "inputs, code, family",
    [
        pytest.param({"pixels": ROW[:, :3]}, "OUT-I102", InvalidRequest, id="shape"),
        pytest.param({"pixels": ROW[0]}, "OUT-I102", InvalidRequest, id="dimensions"),
        pytest.param({"pixels": ROW.astype(float)}, "OUT-I103", InvalidRequest, id="datatype"),
        pytest.param({"pixels": ROW.astype(">f4")}, "OUT-I103", InvalidRequest, id="byte order"),
        pytest.param({"voxels": ROW}, "OUT-I101", InvalidRequest, id="name"),
        pytest.param({}, "OUT-I101", InvalidRequest, id="nothing"),
        pytest.param({"pixels": ROW, "more": ROW}, "OUT-I101", InvalidRequest, id="too much"),
        pytest.param([[0.1, 0.2, 0.3, 0.4]], "OUT-I103", InvalidRequest, id="a list"),
        pytest.param({"pixels": None}, "OUT-I103", InvalidRequest, id="None"),
        pytest.param({"pixels": ROW * 100}, "OUT-I110", Failed, id="the model fails"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_code_and_counted(
    home, agent, inputs, code, family
):
    load = install(home, fragile=True)
    prove(home, load)
    with Local("toy", home=home) as local:
        with pytest.raises(family, match=code):
            local.infer(inputs)
        local.infer(ROW)
        agent.lead(local, load)
        (window,) = agent.applications.peek("toy", load.digest)
    failed = family is Failed
    assert (window.answers, window.errors, window.refused) == (1, int(failed), int(not failed))


@pytest.mark.parametrize(
    "value, allowed", [(0.5, True), (-1.0, True), (1.01, False), (np.nan, False), (np.inf, False)]
)
def test_values_out_of_range_are_refused_or_counted(home, agent, monkeypatch, value, allowed):
    load = install(home)
    prove(home, load)
    _with_range(monkeypatch, -1.0, 1.0)
    row = ROW.copy()
    row[0, 2] = value
    with Local("toy", home=home, check="values") as strict:
        if allowed:
            strict.infer(row)
        else:
            with pytest.raises(InvalidRequest, match=r"OUT-I104.*wanted -1 to 1"):
                strict.infer(row)
    with Local("toy", home=home) as local:
        local.infer(row)
        local.infer(ROW)
        agent.lead(local, load)
        (window,) = agent.applications.peek("toy", load.digest)
    assert (window.answers, window.outside) == (2, int(not allowed))


def _with_range(monkeypatch: pytest.MonkeyPatch, least: float, most: float) -> None:
    """Bundles read from now on have a range."""

    def ranged(path: Path) -> Bundle:
        bundle = read_bundle(path)
        old = bundle.contract
        pixels = replace(old.inputs[0], minimum=least, maximum=most)
        return replace(bundle, contract=Contract((pixels,), old.outputs, old.classes))

    monkeypatch.setattr("edge_agent.sdk.held.read_bundle", ranged)


def test_labels_are_counted_with_the_answers_of_this_process(home, agent, first):
    with Local("toy", home=home) as local:
        answer = local.infer(ROW)
        label = answer.outputs["label"]
        sure = answer.outputs["probabilities"].max(axis=1)
        assert local.feedback(label, label, sure, version=answer.version) == 1
        assert local.feedback(["no", "2"], ["yes", 2]) == 2
        with pytest.raises(InvalidRequest, match=r"OUT-I107.*toy/v9 does not run here, v1 does"):
            local.feedback([1], [1], version="v9")
        with pytest.raises(InvalidRequest, match="OUT-I117"):
            local.feedback([1, 2], [1])
        with pytest.raises(InvalidRequest, match="OUT-I117"):
            local.feedback([np.nan], [np.nan])
        agent.lead(local, first)
        (window,) = agent.applications.peek("toy", first.digest)
    assert (window.answers, window.labelled, window.correct) == (1, 3, 2)
    assert (sum(window.labelled_bins), sum(window.correct_bins)) == (1, 1)
    with pytest.raises(Unavailable, match="OUT-I122"):
        local.feedback([1], [1])


def test_what_a_profile_watches_beside_the_first_input_is_counted_here_too(home):
    whole = Feature("component", (0.0, 10.0), (0, 9, 0, 0, 0))
    watched = Watched("probabilities", "projected", basis=Basis((0,) * 3, (1,) * 3, ((1, 0, 0),)))
    load = install(home, profile=Profile(9, (whole,), watched=(watched,), residual=Residual(whole)))
    held = Held(load, "shape")
    for _ in range(3):
        held.ask({"pixels": ROW})
    held.ask(np.repeat(ROW, 2, axis=0))
    windows = held.tally.collect()
    assert windows is not None
    assert (windows.inference.answers, windows.inference.rows) == (4, 5)
    assert (windows.drift.counts, windows.drift.residual) == (((0, 5, 0, 0, 0),), (0, 5, 0, 0, 0))


def test_without_anything_proven_there_is_nothing_to_follow(home):
    with pytest.raises(Unavailable, match=r"OUT-I122.*no agent"):
        Local("toy", home=home)
    load = install(home)
    with pytest.raises(Unavailable, match=r"OUT-I122.*no version of toy"):
        Local("toy", home=home)
    prove(home, load)
    (load.path / "model.onnx").write_bytes(b"something else")
    with pytest.raises(Unavailable, match=r"OUT-I122.*damaged"):
        Local("toy", home=home)


@pytest.mark.parametrize(
    "note", [Note(revoked="stop"), Note(answering="rules"), Note(answering="refuses")]
)
def test_a_model_that_may_not_answer_is_not_loaded(home, first, note):
    disk = Disk(home)
    journal = disk.journal("toy")
    assert journal is not None
    disk.write_journal(journal.with_note(first.digest, note))
    with pytest.raises(Unavailable, match="OUT-I122"):
        Local("toy", home=home)


def test_it_waits_for_the_first_model_if_told_to(home):
    proving = threading.Timer(0.3, lambda: prove(home, install(home)))
    proving.start()
    with Local("toy", home=home, wait_s=30) as local:
        assert local.version == "v1"
    proving.join()


def test_it_follows_a_trial_a_return_and_a_commit_without_a_failed_call(home, agent, first):
    second = install(home, version="v2", weights_seed=1)
    errors: list[Exception] = []
    end = threading.Event()
    answered = [0, 0]
    with Local("toy", home=home) as local:

        def ask(mine: int) -> None:
            while not end.is_set():
                try:
                    local.infer(ROW)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it
                    errors.append(error)
                answered[mine] += 1

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for load, proven in [(second, False), (first, True), (second, False), (second, True)] * 3:
            agent.lead(local, load, proven=proven)
            assert local.infer(ROW).version == ("v1" if load is first else "v2")
        end.set()
        for thread in threads:
            thread.join()
        total = sum(answered) + 12
        eventually(lambda: agent.turn() and agent.outbox.answers == total)
        assert local.standing().led
    assert errors == []
    assert agent.outbox.answers == total


def test_where_no_model_may_answer_it_says_so_until_one_may_again(home, agent, first):
    with Local("toy", home=home) as local:
        agent.lead(local, None)
        with pytest.raises(Unavailable, match="OUT-I122"):
            local.infer(ROW)
        agent.lead(local, first)
        assert local.infer(ROW).version == "v1"


def test_what_cannot_be_loaded_here_is_told_and_the_old_one_goes_on(home, agent, first):
    bad = install(home, version="v2", damage=lambda model: model[:50])
    with Local("toy", home=home) as local:
        agent.wanted = Wanted(bad, proven=False)
        eventually(lambda: agent.turn() and local.standing().problem)
        assert local.infer(ROW).version == "v1"
        agent.lead(local, first)
        assert local.standing().problem == ""


def test_counts_are_taken_once_whenever_the_agent_is_killed(home, agent, first):
    rng = random.Random(7)
    answered = 0
    with Local("toy", home=home) as local:
        agent.lead(local, first)
        for _ in range(40):
            for _ in range(rng.randrange(3)):
                local.infer(ROW)
                answered += 1
            (view,) = agent.applications.views()
            match rng.randrange(4):
                case 0:  # it took and died before it committed
                    agent.applications.take(view.id, agent.outbox.acknowledged(view.id))
                    agent.killed()
                case 1:  # it committed and died before it acknowledged
                    taken = agent.applications.take(view.id, agent.outbox.acknowledged(view.id))
                    agent.outbox.commit_take(taken, agent.now, int(agent.now * 1000))
                    agent.killed()
                case _:
                    pass
            agent.turn()
        local.infer(ROW)
        # Closing waits for an agent that takes the last counts.
        closing = threading.Thread(target=local.close)
        closing.start()
        eventually(lambda: agent.turn() and not closing.is_alive())
    assert agent.outbox.answers == answered + 1
    assert list((home / "run").glob("app-*")) == []


def test_calls_of_many_threads_are_all_counted(home, agent, first):
    with Local("toy", home=home) as local:
        agent.lead(local, first)
        threads = [
            threading.Thread(target=lambda: [local.infer(ROW) for _ in range(1500)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            agent.turn()
        eventually(lambda: agent.turn() and agent.outbox.answers == 6000)


def test_the_update_machine_sees_runners_and_applications_as_one(home, agent, first):
    runners = RunnersAndApplications(agent.applications, home / "run", port=0)
    runners.adopt()
    try:
        runner = runners.start((first,)).id
        runners.promote(runner)
        with Client("toy", home=home) as client, Local("toy", home=home) as local:
            agent.lead(local, first)
            client.infer(ROW)
            for _ in range(3):
                local.infer(ROW)
            assert runners.peek(runner)["toy"].answers == 4
            assert [view.id for view in runners.views()] == [runner]
            other = install(home, version="v2", weights_seed=1)
            agent.lead(local, other, proven=False)
            local.infer(ROW)
            assert runners.peek(runner)["toy"].answers == 1, "another bundle's answers"
        assert runners.deaths() == ()
    finally:
        for view in runners.views():
            runners.kill(view.id)
        runners.close()


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts applications, each a process of its own that says when it answers."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.in_process", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["version"] == "v1"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def counts(application: subprocess.Popen[str]) -> int:
    assert application.stdin is not None
    assert application.stdout is not None
    application.stdin.write("count\n")
    application.stdin.flush()
    return sum(json.loads(application.stdout.readline())["answered"].values())


@pytest.mark.parametrize("proven", [True, False], ids=["committed", "on trial"])
def test_a_killed_application_loses_what_was_not_taken_and_nothing_else(
    home, agent, first, start, proven
):
    agent.wanted = Wanted(first, proven)
    application = start()
    eventually(lambda: agent.turn() and agent.outbox.answers > 10)
    before = counts(application)
    eventually(lambda: agent.turn() and agent.outbox.answers >= before)
    application.send_signal(signal.SIGKILL)
    application.wait()
    taken = agent.outbox.answers
    eventually(lambda: agent.turn() and not agent.applications.views())
    assert agent.outbox.answers == taken >= before
    deaths = agent.applications.deaths()
    assert [death.digest for death in deaths] == ([] if proven else [first.digest])
    assert list((home / "run").glob("app-*")) == []
    again = start()
    eventually(lambda: agent.turn() and agent.outbox.answers > taken)
    out, _ = _finish(again, agent)
    assert agent.outbox.answers == taken + sum(out["answered"].values())
    assert agent.applications.deaths() == ()


def is_stopped(pid: int) -> bool:
    states = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(each.rpartition(") ")[2].startswith("T") for each in states)


def _finish(
    application: subprocess.Popen[str], agent: Agent
) -> tuple[dict[str, dict[str, int]], str]:
    assert application.stdin is not None
    assert application.stdout is not None
    application.stdin.write("stop\n")
    application.stdin.flush()
    eventually(lambda: agent.turn() and application.poll() is not None)
    return json.loads(application.stdout.read()), ""


def test_an_application_that_hangs_is_left_alone_and_taken_from_later(home, agent, first, start):
    agent.wanted = Wanted(first)
    application = start()
    eventually(lambda: agent.turn() and agent.outbox.answers > 0)
    (view,) = agent.applications.views()
    application.send_signal(signal.SIGSTOP)
    # It goes on until all of its threads have heard of it.
    eventually(lambda: is_stopped(application.pid))
    agent.turn(collect=False)
    with pytest.raises(RunnerFailed):
        agent.applications.take(view.id, 0)
    application.send_signal(signal.SIGCONT)
    out, _ = _finish(application, agent)
    assert agent.outbox.answers == sum(out["answered"].values())


def test_a_forked_child_answers_nothing_and_takes_nothing_away(home, agent, first):
    with Local("toy", home=home) as local:
        agent.lead(local, first)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                local.infer(ROW)
            except Unavailable:
                local.close()
                code = 0
            finally:
                os._exit(code)  # never back into the test runner
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        local.infer(ROW)
        eventually(lambda: agent.turn() and agent.outbox.answers == 1)

"""The update machine over real runner processes, a real directory and a real outbox."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.act import Actor
from edge_agent.buffer import Outbox
from edge_agent.desired import Run
from edge_agent.disk import Disk
from edge_agent.fetch import FetchStatus
from edge_agent.reconcile import reconcile
from edge_agent.runners.pool import Runners
from edge_agent.steps import Step, Wait
from protocol.approval import ApprovedBundle
from protocol.identifiers import Digest
from protocol.members import Policy
from protocol.plan import Candidate
from tests.fakes.bundles import BundleOnDisk, make_bundle

POLICY = Policy(health_window_s=10, min_requests=0)


class NothingToFetch:
    def ensure(self, model: str, digest: Digest) -> None:
        raise AssertionError("everything is on disk")

    def forget(self) -> None:
        return None

    def status(self) -> FetchStatus:
        return FetchStatus()


@dataclass
class Machine:
    home: Path
    runners: Runners
    outbox: Outbox
    now: int = 0

    def __post_init__(self) -> None:
        self.disk = Disk(self.home)
        self.actor = Actor(
            self.disk,
            self.runners,
            NothingToFetch(),
            self.outbox,
            agent="0.1.0",
            dev=False,
            random=random.Random(1).random,
        )

    def put(self, version: str, **rest: object) -> Digest:
        made: BundleOnDisk = make_bundle(
            self.home / "made",
            version=version,
            policy=POLICY,
            **rest,  # type: ignore[arg-type]
        )
        if self.disk.journal("toy") is None:
            self.disk.write_journal(self.actor.journal("toy"))
        shutil.copytree(made.path, self.disk.path(made.digest), dirs_exist_ok=True)
        return made.digest

    def settle(self, bundle: Digest) -> list[Step]:
        approvals = {d: ApprovedBundle("toy", "v", d) for d in self.disk.complete()}
        steps: list[Step] = []
        desired = Run(Candidate(bundle, "technician"))
        for _ in range(100):
            self.now += 1
            self.actor.begin(approvals, frozenset(), self.now * 1000)
            observed = self.actor.observe("toy", desired, self.now * 1000, self.now)
            step = reconcile(desired, observed, self.now * 1000)
            steps.append(step)
            self.actor.perform(step, observed, desired, self.now * 1000)
            if isinstance(step, Wait) and step.row == 22 and isinstance(steps[-2], Wait):
                return steps
        raise AssertionError(steps)

    def served(self) -> list[Digest]:
        views = self.runners.views()
        return [load.digest for v in views if v.role == "serving" for load in v.loads]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    run = Path(tempfile.mkdtemp(prefix="or"))  # socket paths are short
    runners = Runners(run, port=0)
    runners.adopt()
    outbox = Outbox(
        tmp_path / "outbox.db",
        rng=random.Random(2),
        limit_bytes=32_000_000,
        window_s=3600,
        min_window_n=50,
    )
    yield Machine(tmp_path, runners, outbox)
    for view in runners.views():
        runners.kill(view.id)
    runners.close()
    outbox.close()
    shutil.rmtree(run, ignore_errors=True)


def test_a_first_model_and_its_successor_are_proven_and_reported(machine):
    first = machine.put("v1")
    machine.settle(first)
    assert machine.served() == [first]
    second = machine.put("v2", weights_seed=5)
    machine.settle(second)
    assert machine.served() == [second]
    assert machine.disk.journal("toy").slots == (second, first)
    assert machine.outbox.reported_number("toy") == 2


def test_a_bundle_whose_golden_vectors_fail_never_serves(machine):
    first = machine.put("v1")
    machine.settle(first)
    bad = machine.put("v2", weights_seed=5, golden_offset=0.5)
    machine.settle(bad)
    assert machine.served() == [first]
    assert machine.disk.journal("toy").note(bad).reason == "OUT-D301"


def test_a_bundle_that_cannot_be_loaded_never_serves(machine):
    first = machine.put("v1")
    machine.settle(first)
    bad = machine.put("v2", weights_seed=5, damage=lambda onnx_file: onnx_file[:40])
    machine.settle(bad)
    assert machine.served() == [first]
    assert machine.disk.journal("toy").note(bad).reason == "OUT-D302"

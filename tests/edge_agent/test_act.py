"""Steps carried out over a real directory: several models, blame, ends of trials, room."""

from collections.abc import Mapping

import pytest

from edge_agent.act import Actor
from edge_agent.denials import GUARD_GAP_MS
from edge_agent.desired import Run
from edge_agent.disk import Disk
from edge_agent.journal import Journal, Note
from edge_agent.observed import Observed
from edge_agent.reconcile import reconcile
from edge_agent.runner.views import Load
from edge_agent.state import model_state
from edge_agent.steps import Activate, Commit, Fetch, Mark, Probe, Reject, Remember, Step
from protocol.errors import Unavailable
from protocol.identifiers import Digest, digest_of
from protocol.plan import Candidate
from protocol.reported import ModelState
from tests.simulation.device import AGENT, HOME, MODEL, Device, bundle

A, Z, B, C = (bundle(name) for name in "AZBC")


def device(natures: Mapping[str, str] | None = None) -> Device:
    found = Device((A, Z, B, C), natures or {})  # type: ignore[arg-type]
    found.install("A", "Z")
    found.settle()
    return found


def until(found: Device, kind: type) -> Observed:
    """Turns until a step of this kind was carried out; what was observed before it."""
    for _ in range(300):
        _, observed, step = found.turn()
        if isinstance(step, kind):
            return observed
    raise AssertionError("\n".join(found.trace[-20:]))


def journal(found: Device) -> Journal:
    stored = found.peek_journal()
    assert stored is not None
    return stored


def test_a_load_is_on_disk_before_the_bundle_enters_a_process():
    found = device()
    found.stable = "B"
    seen: list[int] = []
    right = found.loaded

    def loaded(load: Load) -> None:
        seen.append(journal(found).note(load.digest).loads)
        right(load)

    found.loaded = loaded  # type: ignore[method-assign]  # looks over the fake's shoulder
    until(found, Probe)
    assert seen == [1]


def test_what_a_trial_would_go_back_to_is_here_before_it_begins():
    found = Device((A, Z, B, C), {})
    found.install(None, None)
    found.stable, found.candidate = "A", "B"
    until(found, Probe)
    assert found.disk is not None
    assert found.disk.verify(A.digest)
    assert journal(found).current is None


@pytest.mark.parametrize("reason", ["revoked", "denied"])
def test_what_may_not_run_is_not_fetched_to_go_back_to(reason):
    found = Device((A, Z, B, C), {})
    found.install(None, None)
    found.stable, found.candidate = "A", "B"
    if reason == "revoked":
        found.revoked["A"] = "fallback"
    else:
        found.denied = frozenset({A.digest})
    until(found, Probe)
    assert found.disk is not None
    assert not found.disk.verify(A.digest)


def test_the_journal_does_not_move_before_the_commit():
    found = device()
    found.stable = "B"
    until(found, Activate)
    while not isinstance(found.turn()[2], Commit):
        assert journal(found).slots in ((A.digest, Z.digest), (B.digest, A.digest))
        assert len(found.trace) < 400
    assert journal(found).slots == (B.digest, A.digest)


def test_a_trial_that_nobody_uses_is_proven_by_its_golden_vectors():
    found = device()
    found.traffic = False
    found.stable = "B"
    found.settle()
    assert (journal(found).current, journal(found).unexercised) == (B.digest, True)
    assert [outcome.unexercised for outcome in found.outbox.outcomes] == [True]


def test_a_trial_that_nobody_uses_fails_with_its_golden_vectors():
    found = device()
    found.traffic = False
    found.stable = "B"
    until(found, Mark)
    found.natures["B"] = "probe_bad"
    found.settle()
    assert journal(found).current == A.digest
    assert [outcome.reason for outcome in found.outbox.outcomes] == ["OUT-D301"]


def test_marks_and_requests_outlive_the_agent():
    found = device()
    found.stable = "B"
    for _ in range(4):
        until(found, Mark)
    before = journal(found).note(B.digest)
    found.actor = None
    until(found, Mark)
    after = journal(found).note(B.digest)
    assert (after.marks, after.requests) == (before.marks + 1, before.requests)
    assert before.requests == 100


def test_an_end_is_reported_once_and_numbered_on():
    found = device({"B": "probe_bad"})
    found.stable = "B"
    found.settle()
    found.actor = None
    found.stable = "C"
    found.settle()
    assert [(o.number, o.digest, o.result) for o in found.outbox.outcomes] == [
        (1, B.digest, "rejected"),
        (2, C.digest, "committed"),
    ]


def test_a_journal_that_finds_no_room_for_a_moment_holds_up_nothing_else(monkeypatch):
    found = Device((A, Z, B, C), {})
    found.install(None, None)
    found.stable = "A"
    write = Disk.write_journal
    refused: list[Journal] = []

    def full_once(disk: Disk, journal: Journal) -> Journal:
        if not refused:
            refused.append(journal)
            raise Unavailable("OUT-D201", "no space left")
        return write(disk, journal)

    monkeypatch.setattr(Disk, "write_journal", full_once)
    found.settle()
    assert refused
    assert journal(found).current == A.digest
    assert [outcome.result for outcome in found.outbox.outcomes] == ["committed"]


def test_a_denial_notes_what_could_lift_it():
    found = device({"B": "health_bad"})
    found.allow[B.digest] = 3
    found.stable = "B"
    until(found, Reject)
    note = journal(found).note(B.digest)
    assert (note.reason, note.definite, note.allow, note.activated) == ("OUT-D310", True, 3, True)
    assert note.agent == "0.1.0"


def test_a_seen_revocation_is_noted_and_an_approval_removes_it():
    found = device()
    found.revoked["Z"] = "stop"
    until(found, Remember)
    assert journal(found).note(Z.digest).revoked == "stop"
    del found.revoked["Z"]
    until(found, Remember)
    assert journal(found).note(Z.digest) == Note()


def test_each_trial_is_remembered_for_the_guard():
    found = device()
    for name in ("B", "C"):
        found.stable = name
        found.settle()
        found.now_ms += GUARD_GAP_MS
    assert (len(journal(found).trials), journal(found).tried) == (2, C.digest)


def test_the_reported_state_follows_an_update():
    found = device({"B": "good"})
    found.stable = "B"
    phases: list[str] = []
    state = ModelState()
    for _ in range(200):
        decision, observed, step = found.turn()
        state = model_state(decision, observed, step, plan=None, fetch=found.fetch, serving=None)
        if not phases or phases[-1] != state.phase:
            phases.append(state.phase)
        if isinstance(step, Commit):
            assert state.guards is not None
            assert (state.guards.marks, state.guards.confidence) == (10, "no baseline")
    assert phases == ["fetching", "staged", "standby", "probation", "idle"]
    assert (state.current, state.serving, state.previous) == (B.digest, B.digest, A.digest)
    assert state.last is not None
    assert state.last.result == "committed"


def test_a_state_says_what_is_held_against_a_bundle():
    found = device({"B": "probe_bad"})
    found.stable = "B"
    until(found, Probe)
    decision, observed, step = found.turn()
    state = model_state(decision, observed, step, plan=None, fetch=found.fetch, serving=None)
    note = state.notes[B.digest]
    assert (note.reason, note.detail, note.definite) == ("OUT-D301", "differs", True)


@pytest.mark.parametrize("blamed", [True, False])
def test_a_death_is_charged_to_the_model_it_names_else_to_the_trial(blamed):
    found = device()
    found.stable = "B"
    until(found, Mark)
    view = next(v for v in found.runners.processes if v.role == "serving")
    found.runners.crash(view.id, view.loads[0] if blamed else None)
    found.served_before = set()
    found.turn()
    assert journal(found).note(B.digest).crashes == 1
    assert found.runners.serving() == [A.digest]


def test_a_death_without_a_name_is_not_held_against_a_committed_model():
    found = device()
    view = found.runners.processes[0]
    found.runners.crash(view.id, None)
    found.served_before = set()
    found.settle()
    assert journal(found).note(A.digest).crashes == 0
    assert found.runners.serving() == [A.digest]


def test_an_adopted_runner_goes_on_serving_and_nothing_is_loaded_again():
    found = device()
    loads = dict(found.loads)
    found.actor = None
    found.settle()
    assert found.loads == loads


def test_unknown_files_among_the_bundles_are_left_alone():
    found = device()
    found.files.put(HOME / "bundles" / "notes.txt", b"mine")
    found.files.mkdir(HOME / "bundles" / digest_of(b"old"))
    found.settle()
    assert "notes.txt" in found.files.names(HOME / "bundles")
    assert digest_of(b"old") not in found.files.names(HOME / "bundles")


class TwoModels:
    """`m` and `n` on one device, each headed for the bundle it is told."""

    def __init__(self, natures: Mapping[str, str] | None = None) -> None:
        self.n1, self.n2 = bundle("n1", "n"), bundle("n2", "n")
        self.device = Device((A, Z, B, C, self.n1, self.n2), natures or {})  # type: ignore[arg-type]
        self.device.install(None, None)
        self.actor = Actor(
            Disk(HOME, self.device.files),
            self.device.runners,
            self.device.fetch,
            self.device.outbox,
            agent=AGENT,
            dev=False,
            random=self.device.rng.random,
        )
        self.wanted: dict[str, Digest] = {}
        self.steps: list[tuple[str, Step]] = []

    def turns(self, count: int = 60) -> None:
        found = self.device
        for _ in range(count):
            trusted = found.trusted()
            for model, bundle_digest in self.wanted.items():
                for _ in range(40):
                    self.actor.begin(trusted.approvals, trusted.denied, found.now_ms)
                    desired = Run(Candidate(bundle_digest, "technician"))
                    observed = self.actor.observe(model, desired, found.now_ms, found.now_s)
                    step = reconcile(desired, observed, found.now_ms)
                    self.steps.append((model, step))
                    found.may_stop = True
                    if not self.actor.perform(step, observed, desired, found.now_ms).again:
                        break
            found.now_ms += 500
            found.now_s += 0.5

    def served(self) -> list[set[Digest]]:
        views = self.device.runners.processes
        return [{load.digest for load in v.loads} for v in views if v.role == "serving"]

    def kinds(self, kind: type) -> list[str]:
        return [model for model, step in self.steps if isinstance(step, kind)]


def test_one_runner_serves_all_models():
    two = TwoModels()
    two.wanted = {MODEL: A.digest, "n": two.n1.digest}
    two.turns()
    assert two.served() == [{A.digest, two.n1.digest}]
    assert {model: two.actor.journal(model).current for model in two.wanted} == two.wanted


def test_two_models_change_one_after_the_other():
    two = TwoModels()
    two.wanted = {MODEL: A.digest, "n": two.n1.digest}
    two.turns()
    two.steps.clear()
    two.wanted = {MODEL: B.digest, "n": two.n2.digest}
    two.turns(90)
    order = [model for model, step in two.steps if isinstance(step, Probe | Commit)]
    assert order[0] == order[1] != order[2] == order[3]
    assert two.served() == [{B.digest, two.n2.digest}]


def test_two_models_do_not_take_turns_in_one_download():
    two = TwoModels()
    two.wanted = {MODEL: A.digest, "n": two.n1.digest}
    two.turns(4)
    begun = {name for name in two.device.files.names(HOME / "bundles") if name[0] == "."}
    assert begun == {f".{A.digest}"}
    assert set(two.kinds(Fetch)) == {MODEL, "n"}
    two.turns(60)
    assert two.served() == [{A.digest, two.n1.digest}]


def test_a_bad_candidate_returns_without_touching_the_other_model():
    two = TwoModels({"n2": "health_bad"})
    two.wanted = {MODEL: A.digest, "n": two.n1.digest}
    two.turns()
    two.wanted["n"] = two.n2.digest
    before = two.actor.journal(MODEL)
    two.turns()
    assert two.served() == [{A.digest, two.n1.digest}]
    assert two.actor.journal("n").note(two.n2.digest).reason == "OUT-D310"
    assert two.actor.journal(MODEL).slots == before.slots
    assert two.actor.journal(MODEL).outcomes == before.outcomes


def test_after_a_reboot_one_start_brings_all_models_back():
    two = TwoModels()
    two.wanted = {MODEL: A.digest, "n": two.n1.digest}
    two.turns()
    two.device.runners.processes = []
    starts = two.device.runners.count
    two.turns(5)
    assert two.device.runners.count == starts + 1
    assert two.served() == [{A.digest, two.n1.digest}]


def test_a_base_that_cannot_be_loaded_is_left_out_and_the_others_serve():
    two = TwoModels()
    two.wanted = {MODEL: A.digest, "n": two.n1.digest}
    two.turns()
    two.device.natures["n1"] = "load_bad"
    two.device.runners.processes = []
    two.turns(120)
    assert two.served() == [{A.digest}]
    assert two.actor.journal("n").current == two.n1.digest

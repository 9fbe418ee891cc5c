"""Scores that need more than answers: true labels, and how far inputs are from the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from control_plane.judging import Judge
from control_plane.looking import Windows
from control_plane.rollout.clock import Timing
from control_plane.rollout.conditions import Gates
from control_plane.rollout.evidence import Evidence, Terms
from control_plane.rollout.spec import RolloutSpec
from control_plane.store.bets import Pending
from control_plane.store.drift_spans import DriftSpans
from protocol.codec import encode, to_wire
from protocol.identifiers import Digest, digest_of
from protocol.members import Feature, Profile
from protocol.telemetry import FINAL, DriftWindow, Record, stream_name
from tests.fakes.betting import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    MODEL,
    START_MS,
    Fleet,
    Upload,
    manifest,
    window,
)

EXPOSURE_S = 6 * 3600.0
PLAIN = RolloutSpec(MODEL, "v2", exposures_s=(EXPOSURE_S,))
WATCHING = dataclasses.replace(PLAIN, gates=Gates(drift=0.1))
KEY = f"accuracy/{EXPOSURE_S:g}"
DRIFT = f"drift/{EXPOSURE_S:g}"

EDGES = (-1.0, 0.0, 1.0)
HERE, ELSEWHERE = digest_of(b"here"), digest_of(b"elsewhere")
SHARES = {HERE: (0.16, 0.34, 0.34, 0.16), ELSEWHERE: (0.02, 0.14, 0.34, 0.5)}
PROFILES = {
    digest: Profile(1000, (Feature("x", EDGES, (*(int(1000 * s) for s in shares), 0, 0)),))
    for digest, shares in SHARES.items()
}


@dataclass(frozen=True)
class Inputs(Upload):
    """A closed window of inputs, like those of `HERE`."""

    body: DriftWindow  # type: ignore[assignment]  # in the place of answers

    @property
    def record(self) -> tuple[Record, str]:
        stream = stream_name("drift", self.body.manifest, self.body.profile)
        made = Record(
            1, stream, self.lo, self.lo, self.body.rows, to_wire(self.body), FINAL,
            self.t0_ms, self.t1_ms,
        )  # fmt: skip
        return made, encode(self.body).decode()


@pytest.fixture
def fleets(tmp_path):
    made: list[Fleet] = []

    def make(spec: RolloutSpec = PLAIN) -> Fleet:
        made.append(Fleet(tmp_path / str(len(made)), (12, 12), spec))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


def hours(fleet: Fleet) -> Iterator[tuple[str, int, int, str, bool]]:
    """(device, number, start, version, after the change) of every window that is ever sent."""
    for device in fleet.devices:
        for hour in range(-72, 8):
            after = hour >= 0 and fleet.wave_of[device] == 1
            yield device, hour + 72, START_MS + hour * HOUR_MS, "v2" if after else "v1", after


def labelled(fleet: Fleet, right: float, then: float, rng: np.random.Generator) -> list[Upload]:
    """Answers with labels: a share of them right, and another share once v2 serves."""
    made = []
    for device, number, t0_ms, version, after in hours(fleet):
        correct = int(rng.binomial(50, then if after else right))
        body = dataclasses.replace(window(version, 50), labelled=50, correct=correct)
        made.append(Upload(device, number, t0_ms, body))
    return made


def inputs(fleet: Fleet, profile_then: Digest, rng: np.random.Generator) -> list[Upload]:
    """The same inputs all the time; v2 counts them against `profile_then`."""
    made: list[Upload] = []
    for device, number, t0_ms, version, after in hours(fleet):
        made.append(Upload(device, number, t0_ms, window(version, 50)))
        counts = tuple(int(n) for n in rng.multinomial(200, SHARES[HERE]))
        profile = profile_then if after else HERE
        body = DriftWindow(manifest(version), profile, 200, ((*counts, 0, 0),))
        made.append(Inputs(device, number, t0_ms, body))
    return made


def judged(fleet: Fleet, uploads: list[Upload], profile_of=PROFILES.get) -> Evidence:
    judge = Judge(fleet.store, profile_of)
    fleet.start()
    fleet.upload(each for each in uploads if each.t1_ms <= START_MS)
    for device in fleet.devices:
        fleet.contact(device, START_MS - HOUR_MS)
    fleet.begin(1, START_MS)
    judge.round(START_MS, 500)
    for device in fleet.devices:
        if fleet.wave_of[device] == 1:
            fleet.activates(device, START_MS, START_MS + MINUTE_MS)
        fleet.contact(device, START_MS + MINUTE_MS)
    fleet.upload(each for each in uploads if each.t1_ms > START_MS)
    for hour in (1, 9, 10, 11):
        judge.round(START_MS + hour * HOUR_MS, 500)
    return judge.evidence(fleet.id)


def mean_slot(counts):
    return sum(n * slot for slot, n in enumerate(counts)) / sum(counts)


def terms_of(evidence: Evidence) -> Terms:
    assert evidence.terms is not None
    return evidence.terms


def watched(evidence: Evidence) -> dict[str, float | None]:
    return {each.key: each.scale for each in terms_of(evidence).watched}


# --- accuracy ------------------------------------------------------------------------------------


def test_accuracy_is_judged_once_devices_send_labels(fleets):
    fleet = fleets()
    found = judged(fleet, labelled(fleet, 0.9, 0.6, np.random.default_rng(1)))
    assert watched(found)[KEY] is not None
    a, b = found.waves[0].totals()[KEY]
    assert (sum(a), sum(b)) == (12, 12)
    assert mean_slot(a) > mean_slot(b) + 4


def test_a_model_that_is_as_right_as_before_is_not_worse(fleets):
    fleet = fleets()
    found = judged(fleet, labelled(fleet, 0.9, 0.9, np.random.default_rng(2)))
    a, b = found.waves[0].totals()[KEY]
    assert mean_slot(a) < mean_slot(b) + 2


def test_without_labels_a_rollout_is_as_before(fleets):
    fleet = fleets()
    found = judged(fleet, inputs(fleet, HERE, np.random.default_rng(3)))
    series = terms_of(found).watched
    metrics = {each.metric for each in series}
    assert metrics == {"error_rate", "out_of_contract", "latency", "confidence", "class_mix"}
    # No share of the chance of a wrong verdict is set aside for scores that nobody can see.
    for metric in metrics:
        assert sum(e.alpha for e in series if e.metric == metric) == pytest.approx(0.004)


def test_few_labels_are_a_score_without_data(fleets):
    fleet = fleets()
    uploads = [
        dataclasses.replace(each, body=dataclasses.replace(each.body, labelled=1, correct=1))
        for each in labelled(fleet, 0.9, 0.9, np.random.default_rng(4))
    ]
    found = judged(fleet, uploads)
    assert watched(found)[KEY] is None


def test_labels_of_the_old_version_never_count_for_the_new(fleets):
    fleet = fleets()
    uploads = labelled(fleet, 0.9, 0.9, np.random.default_rng(5))
    late = [
        dataclasses.replace(
            each,
            lo=each.lo + 1000,
            body=dataclasses.replace(window("v1", 50), labelled=50, correct=0),
        )
        for each in uploads
        if each.t0_ms >= START_MS
    ]
    fleet.upload([*uploads, *late])
    rollout = fleet.start()
    timing = Timing.of(PLAIN.exposures_s, 86_400)
    windows = Windows(fleet.store, rollout, timing, PROFILES.get)
    end_ms = START_MS + 6 * HOUR_MS
    pending = Pending(1, fleet.devices[0], 6 * HOUR_MS, "a", START_MS, end_ms)
    seen = windows.seen(pending, 3)
    assert seen.after.labelled == 300
    assert seen.after.correct > 200


# --- drift ---------------------------------------------------------------------------------------


def test_a_candidate_built_on_other_inputs_is_seen_by_the_drift_gate(fleets):
    fleet = fleets(WATCHING)
    found = judged(fleet, inputs(fleet, ELSEWHERE, np.random.default_rng(6)))
    assert watched(found)[DRIFT] is not None
    a, b = found.waves[0].totals()[DRIFT]
    assert (sum(a), sum(b)) == (12, 12)
    assert mean_slot(a) > mean_slot(b) + 4


def test_a_candidate_of_the_same_reference_is_no_farther_from_it(fleets):
    fleet = fleets(WATCHING)
    found = judged(fleet, inputs(fleet, HERE, np.random.default_rng(7)))
    a, b = found.waves[0].totals()[DRIFT]
    assert mean_slot(a) < mean_slot(b)


def test_drift_is_not_read_when_its_gate_is_off(fleets, monkeypatch):
    def read(*_: object) -> None:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(DriftSpans, "within", read)
    fleet = fleets()
    found = judged(fleet, inputs(fleet, ELSEWHERE, np.random.default_rng(8)))
    assert DRIFT not in watched(found)


@pytest.mark.parametrize("profile_of", [lambda _: None, lambda _: Profile(0)])
def test_without_a_reference_drift_has_no_data(fleets, profile_of):
    fleet = fleets(WATCHING)
    found = judged(fleet, inputs(fleet, HERE, np.random.default_rng(9)), profile_of)
    assert watched(found)[DRIFT] is None


def test_windows_within_a_span_are_those_whose_middle_is_in_it(fleets):
    fleet = fleets(WATCHING)
    fleet.upload(inputs(fleet, HERE, np.random.default_rng(10)))
    spans, device = DriftSpans(fleet.store.connection), fleet.devices[0]
    day = Timing.of(PLAIN.exposures_s, 86_400).rehearsal(START_MS, DAY_MS)
    assert len(spans.within(device, [manifest("v1")], day)) == 24
    assert spans.within(device, [manifest("v2")], day) == []

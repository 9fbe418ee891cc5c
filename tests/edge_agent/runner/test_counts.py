from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.counts import Ledger, Tally
from protocol.identifiers import digest_of
from protocol.members import Basis, Contract, Feature, Profile, Residual, TensorSpec, Watched
from protocol.telemetry import DriftWindow, InferenceWindow, merge_bodies

DIGEST, MANIFEST, PROFILE = (digest_of(name) for name in (b"index", b"manifest", b"profile"))
CONTRACT = Contract(
    inputs=(TensorSpec("x", "FP32", (-1, 2)),),
    outputs=(
        TensorSpec("label", "INT64", (-1,), role="label"),
        TensorSpec("p", "FP32", (-1, 2), role="probabilities"),
    ),
    classes=("no", "yes"),
)
FEATURES = Profile(10, tuple(Feature(name, (0.0, 1.0), (0, 10, 0, 0, 0)) for name in "ab"))


def new_tally(profile: Profile = FEATURES) -> Tally:
    return Tally("toy", DIGEST, MANIFEST, PROFILE, CONTRACT, profile)


def answer(tally: Tally, rows: int = 1, probability: float = 0.75) -> None:
    p = np.full((rows, 2), [1 - probability, probability], np.float32)
    tally.answered(
        np.full((rows, 2), 0.5, np.float32), {"label": np.ones(rows, np.int64), "p": p}, rows, 1e-3
    )


class Supervisor:
    """Commits takes, and remembers per runner the last number that it has committed."""

    def __init__(self) -> None:
        self.committed = 0
        self.total = 0

    def commit(self, number: int, content: int | None) -> None:
        if content is not None and number > self.committed:
            self.committed = number
            self.total += content


@given(
    st.lists(
        st.one_of(
            st.integers(1, 5),
            st.sampled_from(["take", "reply lost", "killed after commit", "stale acknowledgement"]),
        ),
        max_size=60,
    )
)
def test_no_history_of_lost_replies_and_repeated_acknowledgements_loses_or_doubles_a_count(history):
    ledger: Ledger[int] = Ledger()
    supervisor = Supervisor()
    counted = waiting = 0

    def collect() -> int | None:
        nonlocal waiting
        collected, waiting = waiting, 0
        return collected or None

    for event in history:
        if isinstance(event, int):
            counted += event
            waiting += event
        elif event == "take":
            supervisor.commit(*ledger.take(supervisor.committed, collect))
        elif event == "reply lost":
            ledger.take(supervisor.committed, collect)
        elif event == "killed after commit":
            # It committed, and its successor asks with the same acknowledgement twice.
            supervisor.commit(*ledger.take(supervisor.committed, collect))
            ledger.take(supervisor.committed, collect)
        else:
            ledger.take(max(0, supervisor.committed - 1), collect)
    for _ in range(3):
        supervisor.commit(*ledger.take(supervisor.committed, collect))
    assert supervisor.total == counted


def test_a_take_is_repeated_unchanged_until_it_is_acknowledged():
    contents = iter(["first", "second"])
    ledger: Ledger[str] = Ledger()
    assert ledger.take(0, lambda: next(contents)) == (1, "first")
    assert ledger.take(0, lambda: next(contents)) == (1, "first")
    assert ledger.take(1, lambda: next(contents)) == (2, "second")


def test_nothing_new_has_no_number_of_its_own():
    ledger: Ledger[str] = Ledger()
    assert ledger.take(0, lambda: None) == (0, None)
    ledger.take(0, lambda: "something")
    assert ledger.take(1, lambda: None) == (1, None)


def test_an_acknowledgement_of_what_was_never_given_is_refused():
    with pytest.raises(ValueError, match="never given"):
        Ledger[str]().take(1, lambda: None)


def test_an_idle_model_has_nothing_to_collect():
    assert new_tally().collect() is None


def test_every_kind_of_outcome_is_counted_where_it_belongs():
    tally = new_tally()
    answer(tally, rows=3)
    answer(tally, probability=float("nan"))
    tally.failed()
    tally.refused()
    tally.refused()
    windows = tally.collect()
    assert windows is not None
    inference = windows.inference
    assert (inference.answers, inference.rows) == (2, 4)
    assert (inference.errors, inference.refused, inference.nonfinite) == (1, 2, 1)
    assert sum(inference.latency) == inference.answers
    assert inference.confidence[15] == sum(inference.confidence) == 3
    assert inference.classes == (0, 3)
    assert windows.drift == DriftWindow(MANIFEST, PROFILE, 4, ((0, 4, 0, 0, 0),) * 2)
    assert (inference.manifest, inference.profile) == (MANIFEST, PROFILE)


def test_without_features_drift_windows_count_rows_only():
    tally = new_tally(Profile(10))
    answer(tally, rows=3)
    windows = tally.collect()
    assert windows is not None
    assert windows.drift == DriftWindow(MANIFEST, PROFILE, 3)


def test_an_answer_that_cannot_be_counted_is_not_counted_in_part():
    tally = new_tally()
    with pytest.raises(ValueError, match="reshape"):
        tally.answered(np.zeros(3, np.float32), {"p": np.zeros((2, 2), np.float32)}, 2, 1e-3)
    assert tally.collect() is None


@given(st.lists(st.sampled_from(["answer", "fail", "refuse", "collect", "peek"]), max_size=400))
def test_windows_add_up_to_what_a_peek_shows_and_a_peek_changes_nothing(events):
    tally = new_tally()
    total = InferenceWindow(MANIFEST, PROFILE)
    seen: Counter[str] = Counter()
    for event in [*events, "collect"]:
        seen[event] += 1
        if event == "answer":
            answer(tally, rows=2)
        elif event == "fail":
            tally.failed()
        elif event == "refuse":
            tally.refused()
        elif event == "peek":
            peek = tally.peek()
            assert (peek.answers, peek.errors, peek.refused) == (
                seen["answer"],
                seen["fail"],
                seen["refuse"],
            )
        elif (windows := tally.collect()) is not None:
            merged = merge_bodies(total, windows.inference)
            assert isinstance(merged, InferenceWindow)
            total = merged
    assert total == tally.peek()
    assert total.rows == 2 * seen["answer"]


# --- residual, score, words ---

NUMBERS = (0.0, 1.0, 10.0)
RESIDUAL = Residual(
    Feature("residual", NUMBERS, (0, 9, 1, 0, 0, 0)),
    Basis((0.0, 0.0), (1.0, 1.0), ((0.6, 0.8),)),
)


def test_the_residual_is_counted_beside_the_features():
    tally = new_tally(Profile(10, FEATURES.features, residual=RESIDUAL))
    p = np.full((4, 2), 0.5, np.float32)
    # Along the component nothing is left; across it everything; no number leaves none.
    x = np.array([[0.6, 0.8], [0.8, -0.6], [8, -6], [np.nan, 0]], np.float32)
    tally.answered(x, {"label": np.zeros(4, np.int64), "p": p}, 4, 1e-3)
    windows = tally.collect()
    assert windows is not None
    assert windows.drift.counts == ((0, 2, 1, 0, 1), (2, 2, 0, 0, 0))
    below, inner, outer, above, infinite, nan = windows.drift.residual
    assert (below + inner, outer, above, infinite, nan) == (1, 1, 1, 0, 1)
    assert tally.collect() is None


def test_a_score_is_counted_in_the_slots_of_the_profile():
    contract = Contract(
        CONTRACT.inputs, (TensorSpec("risk", "FP64", (-1, 2), role="score"),), CONTRACT.classes
    )
    score = Feature("risk", (0.0, 1.0), (0, 10, 0, 0, 0))
    tally = Tally("toy", DIGEST, MANIFEST, PROFILE, contract, Profile(10, score=score))
    risk = np.array([[0.5, 9], [-1, 9], [np.inf, 9], [np.nan, 9]])
    tally.answered(np.zeros((4, 2), np.float32), {"risk": risk}, 4, 1e-3)
    windows = tally.collect()
    assert windows is not None
    assert windows.inference.score == (1, 1, 0, 1, 1)


def test_words_and_numbers_of_several_inputs_are_counted_together():
    contract = Contract(
        (TensorSpec("place", "BYTES", (-1, 1)), TensorSpec("x", "FP32", (-1, 2))),
        (TensorSpec("label", "INT64", (-1,)),),
    )
    known = Feature("place", counts=(5, 5, 0, 0), kind="words", words=("york", "hull"))
    profile = Profile(
        10,
        (known, *FEATURES.features),
        watched=(Watched("place", "words"), Watched("x")),
        residual=RESIDUAL,
    )
    tally = Tally("toy", DIGEST, MANIFEST, PROFILE, contract, profile)
    assert tally.columns is not None
    assert tally.shortcut is None
    places = np.array([["hull"], ["leeds"], [None]], np.object_)
    x = np.array([[0.6, 0.8]] * 3, np.float32)
    outputs = {"label": np.zeros(3, np.int64)}
    tally.answered(tally.columns({"place": places, "x": x}, outputs, 3), outputs, 3, 1e-3)
    windows = tally.collect()
    assert windows is not None
    assert windows.drift.counts == ((0, 1, 1, 1), (0, 3, 0, 0, 0), (0, 3, 0, 0, 0))
    assert sum(windows.drift.residual[:2]) == 3


def test_errors_of_a_projected_output_are_counted_as_the_residual():
    contract = Contract(CONTRACT.inputs, (TensorSpec("vector", "FP32", (-1, 2), role="embedding"),))
    assert RESIDUAL.basis is not None
    profile = Profile(
        10,
        (Feature("vector.component[0]", NUMBERS, (0, 10, 0, 0, 0, 0)),),
        watched=(Watched("vector", "projected", basis=RESIDUAL.basis),),
        residual=Residual(RESIDUAL.feature),
    )
    tally = Tally("toy", DIGEST, MANIFEST, PROFILE, contract, profile)
    assert tally.columns is not None
    outputs = {"vector": np.array([[4.8, -3.6]], np.float32)}
    tally.answered(tally.columns({}, outputs, 1), outputs, 1, 1e-3)
    windows = tally.collect()
    assert windows is not None
    assert sum(windows.drift.counts[0][:2]) == 1
    assert windows.drift.residual == (0, 0, 0, 1, 0, 0)


def test_a_plain_profile_keeps_the_short_way():
    assert new_tally().columns is None
    tally = new_tally(Profile(10, FEATURES.features, residual=RESIDUAL))
    assert tally.columns is None
    assert tally.shortcut is not None


def test_windows_are_as_long_as_the_profile_says():
    tally = new_tally(Profile(10, window_s=900, window_rows=200))
    tally.failed()
    windows = tally.collect()
    assert windows is not None
    assert (windows.window_s, windows.window_rows) == (900, 200)


# --- labels ---


def feedback(tally: Tally, correct: list[bool], confidence: list[float] | None = None) -> None:
    sure = None if confidence is None else np.array(confidence, np.float32)
    tally.feedback(np.array(correct), sure)


def test_labels_are_counted_per_bin_of_confidence():
    tally = new_tally()
    feedback(tally, [True, False, True, True], [0.97, 0.97, 0.0, 1.0])
    windows = tally.collect()
    assert windows is not None
    found = windows.inference
    assert (found.labelled, found.correct) == (4, 3)
    assert [found.labelled_bins[n] for n in (0, 19)] == [1, 3]
    assert [found.correct_bins[n] for n in (0, 19)] == [1, 2]
    assert (sum(found.labelled_bins), sum(found.correct_bins)) == (4, 3)
    assert tally.collect() is None


def test_a_label_without_confidence_counts_in_totals_only():
    tally = new_tally()
    feedback(tally, [True, False])
    feedback(tally, [True, True], [np.nan, 0.5])
    windows = tally.collect()
    assert windows is not None
    found = windows.inference
    assert (found.labelled, found.correct) == (4, 3)
    assert (sum(found.labelled_bins), sum(found.correct_bins)) == (1, 1)
    feedback(tally, [False])
    windows = tally.collect()
    assert windows is not None
    assert (windows.inference.labelled_bins, windows.inference.correct_bins) == ((), ())


def test_feedback_is_not_an_answer():
    tally = new_tally()
    answer(tally, rows=3)
    before = tally.peek()
    feedback(tally, [True, False], [0.5, 0.5])
    after = tally.peek()
    assert (after.labelled, after.correct) == (2, 1)
    assert (after.answers, after.rows, after.latency, after.confidence, after.classes) == (
        before.answers,
        before.rows,
        before.latency,
        before.confidence,
        before.classes,
    )


def test_feedback_survives_a_lost_take_once():
    tally, total = new_tally(), 0
    ledger: Ledger[int] = Ledger()

    def collect() -> int | None:
        windows = tally.collect()
        return None if windows is None else windows.inference.labelled

    feedback(tally, [True] * 3)
    assert ledger.take(0, collect) == (1, 3)
    feedback(tally, [False] * 4)
    number, again = ledger.take(0, collect)  # the first reply was lost
    assert (number, again) == (1, 3)
    total += again or 0
    number, more = ledger.take(1, collect)
    total += more or 0
    assert (number, total, ledger.take(2, collect)) == (2, 7, (2, None))

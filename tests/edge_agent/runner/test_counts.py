from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.counts import Ledger, Tally
from protocol.identifiers import digest_of
from protocol.members import Contract, Feature, Profile, TensorSpec
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

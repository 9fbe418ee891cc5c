"""A fault that begins after a year is seen in minutes, and a fine bundle is never accused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.watch.health import Baseline, judge_block, judge_lately, standing
from edge_agent.watch.lately import (
    BLOCK,
    ENOUGH,
    HORIZON_S,
    SLICE_S,
    Counts,
    Lately,
    minus,
    too_many,
)
from protocol.histogram import LATENCY_SLOTS, latency_slot
from protocol.identifiers import digest_of
from protocol.members import Limits, Policy
from protocol.telemetry import InferenceWindow, merge_bodies

MANIFEST = digest_of(b"manifest")
YEAR_OF_ANSWERS = 30_000_000


def window(answers=0, errors=0, **rest) -> InferenceWindow:
    return InferenceWindow(MANIFEST, MANIFEST, answers=answers, errors=errors, **rest)


class Model:
    """Totals of a runner, looked at every two seconds."""

    def __init__(self, **totals: int) -> None:
        self.totals = {"answers": 0, "errors": 0, "nonfinite": 0, "refused": 0} | totals
        self.now_s = 0.0
        self.lately = Lately().saw(window(**self.totals), 0.0)

    def passes(self, seconds: float, policy: Policy, **per_s: float) -> float | None:
        """Seconds until the policy finds a fault; None: it does not."""
        began_s = self.now_s
        due = dict.fromkeys(per_s, 0.0)
        while self.now_s < began_s + seconds:
            self.now_s += 2
            for name, rate in per_s.items():
                due[name] += rate * 2
                whole = int(due[name])
                self.totals[name] += whole
                due[name] -= whole
            self.lately = self.lately.saw(window(**self.totals), self.now_s)
            if judge_lately(self.lately, (), policy, self.now_s) is not None:
                return self.now_s - began_s
        return None


@pytest.mark.parametrize(
    "answers, errors, within_s",
    [
        pytest.param(0.0, 100.0, 2, id="every request, many of them"),
        pytest.param(99.0, 10.0, 30, id="every tenth of a hundred a second"),
        pytest.param(9.5, 0.5, 120, id="every twentieth of ten a second"),
        pytest.param(0.0, 1 / 60, 5 * 60 + 2, id="every one of one a minute"),
        pytest.param(0.0, 1 / 3600, 5 * 3600 + 2, id="every one of one an hour"),
    ],
)
def test_a_fault_after_a_year_of_good_answers_is_seen(answers, errors, within_s):
    model = Model(answers=YEAR_OF_ANSWERS)
    assert model.passes(1200, Policy(), answers=max(answers, 1 / 60)) is None
    seen = model.passes(6 * 3600, Policy(), answers=answers, errors=errors)
    assert seen is not None
    assert seen <= within_s


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param({"answers": 99.5, "errors": 0.5}, id="half of what is allowed"),
        pytest.param({"answers": 99.0, "errors": 1.0}, id="just what is allowed"),
        pytest.param({"answers": 100.0, "nonfinite": 0.01}, id="a NaN now and then"),
        pytest.param({"answers": 10.0, "refused": 90.0}, id="callers who break the contract"),
    ],
)
def test_what_is_allowed_is_never_a_fault(rates):
    assert Model(answers=YEAR_OF_ANSWERS).passes(2 * 3600, Policy(), **rates) is None


def test_old_failures_are_forgotten():
    model = Model()
    assert model.passes(60, Policy(), answers=100.0, errors=0.9) is None
    model.totals["errors"] += 100
    assert model.passes(2, Policy(), answers=100.0) is not None
    assert model.passes(HORIZON_S + 60, Policy(after_commit=()), answers=100.0) is None
    assert model.passes(60, Policy(), answers=100.0) is None


def test_requests_out_of_contract_count_where_the_policy_limits_them():
    policy = Policy(limits=Limits(contract_share=0.1), after_commit=("contract",))
    assert Model().passes(600, policy, answers=95.0, refused=5.0) is None
    assert Model().passes(600, policy, answers=50.0, refused=50.0) is not None


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), max_size=300))
def test_the_past_that_is_kept_is_bounded_and_never_negative(looks):
    lately, answers, now_s = Lately(), 0, 0.0
    for seconds, more in looks:
        now_s, answers = now_s + seconds, answers + more
        lately = lately.saw(window(answers), now_s)
        assert len(lately.moments) <= HORIZON_S / SLICE_S + ENOUGH + 2
        assert all(span.answers >= 0 for span in lately.spans())


def test_another_runner_begins_afresh():
    lately = Lately().saw(window(1_000, 900), 0.0).saw(window(10, 0), 2.0)
    assert list(lately.spans()) == [Counts()]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_a_rate_that_is_allowed_is_too_many_less_often_than_promised(share):
    """Chernoff's bound, against the binomial itself."""
    from scipy import stats

    for of in (5, 50, 500, 5_000):
        first = next((bad for bad in range(of + 1) if too_many(bad, of, share)), None)
        if first is not None:
            assert stats.binom.sf(first - 1, of, share) <= 1e-9


def test_what_came_between_two_looks_is_their_difference():
    first = window(10, 1, rows=10, latency=(1,) * LATENCY_SLOTS, classes=(4, 6))
    second = window(3, 2, rows=3, latency=(2,) * LATENCY_SLOTS, classes=(1, 2))
    assert minus(merge_bodies(first, second), first) == second  # type: ignore[arg-type]  # windows


# --- against the version before, where a policy asks for it ---------------------------------------


def latencies(n: int, seconds: float, slow: int = 0, slow_s: float = 0.0) -> tuple[int, ...]:
    counts = np.zeros(LATENCY_SLOTS, int)
    counts[latency_slot(seconds)] += n
    if slow:
        counts[latency_slot(slow_s)] += slow
    return tuple(counts.tolist())


STATISTICAL = Policy(after_commit=("latency", "confidence", "drift"))
BEFORE = Baseline(
    window(
        1_000, latency=latencies(1_000, 0.004), confidence=(0,) * 19 + (1_000,), classes=(500, 500)
    ),
    "digits/v1",
)


@pytest.mark.parametrize(
    "fields, trigger",
    [
        pytest.param({"latency": latencies(400, 0.004)}, None, id="as before"),
        pytest.param({"latency": latencies(400, 0.04)}, "latency", id="slower"),
        pytest.param({"confidence": (0,) * 10 + (400,) + (0,) * 9}, "confidence", id="unsure"),
        pytest.param(
            {"confidence": (0,) * 19 + (400,), "classes": (390, 10)}, "drift", id="other classes"
        ),
        pytest.param({"confidence": (0,) * 20}, None, id="answers without a confidence"),
    ],
)
def test_a_block_of_answers_is_compared_with_the_version_before(fields, trigger):
    fault = judge_block(window(400, **fields), BEFORE, ("a", "b"), STATISTICAL)
    assert (fault.trigger if fault is not None else None) == trigger


def test_each_block_is_judged_once():
    lately = Lately().saw(window(1_000), 0.0)
    lately, block = lately.block(window(1_000 + BLOCK - 1))
    assert block is None
    lately, block = lately.block(window(1_000 + BLOCK))
    assert block is not None
    assert block.answers == BLOCK
    assert lately.block(window(1_000 + BLOCK + 10))[1] is None


@pytest.mark.parametrize(
    "seen, before, policy, committed, absent",
    [
        pytest.param(
            window(500, rows=500),
            None,
            Policy(),
            False,
            {
                "contract": "no limit in the policy",
                "latency": "no baseline",
                "confidence": "no probabilities",
                "drift": "no probabilities",
            },
            id="a first version without probabilities, on trial",
        ),
        pytest.param(
            window(500, rows=500, confidence=(0,) * 19 + (500,), classes=(250, 250)),
            BEFORE,
            Policy(limits=Limits(contract_share=0.5)),
            False,
            {},
            id="on trial after a version before",
        ),
        pytest.param(
            window(500, rows=500, confidence=(0,) * 19 + (500,)),
            BEFORE,
            Policy(),
            False,
            {"contract": "no limit in the policy", "drift": "no classes"},
            id="without classes",
        ),
        pytest.param(
            window(),
            None,
            Policy(),
            True,
            dict.fromkeys(("latency", "contract", "drift", "confidence"), "on probation only"),
            id="committed",
        ),
    ],
)
def test_a_trigger_that_cannot_judge_says_why(seen, before, policy, committed, absent):
    said = standing(seen, before, policy, committed=committed)
    assert {name: why for name, why in said.items() if why != "active"} == absent

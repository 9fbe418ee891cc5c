from typing import Any

import pytest

from edge_agent.watch.health import Baseline, Terms, Verdict, judge, terms
from protocol.identifiers import digest_of
from protocol.members import DevPolicy, Limits, Policy
from protocol.plan import HealthOverride
from protocol.telemetry import InferenceWindow

MANIFEST = digest_of(b"manifest")
HELD_TO = Terms(1800, 86_400, 50, Limits())


def bins(n: int, at: int) -> tuple[int, ...]:
    return tuple(n if slot == at else 0 for slot in range(20))


def window(answers: int = 0, confidence: tuple[int, ...] = (), **rest: Any) -> InferenceWindow:
    rows = sum(confidence) or answers
    fields: dict[str, Any] = {"answers": answers, "rows": rows, "confidence": confidence} | rest
    return InferenceWindow(MANIFEST, MANIFEST, **fields)


def before(n: int = 1000, at: int = 19, **rest: Any) -> Baseline:
    return Baseline(window(n, bins(n, at), **rest), "digits/v2")


@pytest.mark.parametrize(
    "seen, failed",
    [
        pytest.param(window(), None, id="nothing was asked"),
        pytest.param(window(49, errors=1), None, id="one error is never more than a share"),
        pytest.param(window(3, errors=2), "errors 2 of 5 requests", id="two at once are"),
        pytest.param(window(990, errors=10), None, id="exactly the share is allowed"),
        pytest.param(window(990, errors=11), "errors 11 of 1,001", id="one more is not"),
        pytest.param(window(80, nonfinite=1), "NaN or infinity in 1 of 80", id="no NaN at all"),
        pytest.param(window(10, refused=500), None, id="bad requests are the caller's"),
    ],
)
def test_shares(seen, failed):
    verdict = judge(seen, None, (), HELD_TO)
    assert (verdict.failed is None) if failed is None else failed in (verdict.failed or "")


def test_lost_confidence_is_said_in_figures():
    verdict = judge(window(1180, bins(1180, 5)), before(), (), HELD_TO)
    assert verdict.failed == "confidence 0.28, was 0.97 under digits/v2 (1,180 answers)"


def test_a_shifted_class_is_named():
    mine = window(200, bins(200, 19), classes=(180, 20))
    verdict = judge(mine, before(classes=(500, 500)), ("cat", "dog"), HELD_TO)
    assert verdict.failed == "class cat 90%, was 50% under digits/v2 (200 answers)"


def spread(rows, *shares):
    """Confidence bins with these shares of the rows in the last ones."""
    counts = [0] * 20
    for place, share in enumerate(shares, start=20 - len(shares)):
        counts[place] = round(rows * share)
    return tuple(counts)


@pytest.mark.parametrize(
    "mine, failed",
    [
        pytest.param(spread(5_000, 0.2, 0.8), False, id="surer than before, however much is seen"),
        pytest.param(spread(5_000, 0.6, 0.4), False, id="a fall too small to matter"),
        pytest.param(spread(5_000, 0.5, 0, 0, 0.5), True, id="a fall that matters"),
        pytest.param(spread(20, 0.5, 0, 0, 0.5), False, id="a fall that chance could explain"),
    ],
)
def test_confidence_returns_a_model_only_for_a_fall_that_matters(mine, failed):
    known = Baseline(window(5_000, spread(5_000, 0.4, 0.6)), "digits/v1")
    verdict = judge(window(sum(mine), mine), known, (), HELD_TO)
    assert (verdict.failed is not None) is failed


@pytest.mark.parametrize(
    "classes, failed",
    [
        pytest.param((2_800, 2_200), False, id="six points of a hundred"),
        pytest.param((3_200, 1_800), True, id="fourteen points of a hundred"),
    ],
)
def test_a_class_mix_returns_a_model_only_for_a_shift_that_matters(classes, failed):
    mine = window(5_000, bins(5_000, 19), classes=classes)
    verdict = judge(mine, before(classes=(5_000, 5_000)), (), HELD_TO)
    assert (verdict.failed is not None) is failed


def test_classes_of_another_contract_are_not_compared():
    mine = window(200, bins(200, 19), classes=(100, 50, 50))
    assert judge(mine, before(classes=(500, 500)), (), HELD_TO).failed is None


@pytest.mark.parametrize(
    "seen, baseline, guard",
    [
        pytest.param(window(500, bins(500, 19)), before(), "active", id="both sides are there"),
        pytest.param(window(), before(), "active", id="nothing was asked yet"),
        pytest.param(window(500, bins(500, 3)), None, "no baseline", id="first version"),
        pytest.param(window(500, bins(500, 3)), before(49), "no baseline", id="baseline too small"),
        pytest.param(window(500), before(), "no probabilities", id="contract without a role"),
    ],
)
def test_a_guard_that_cannot_judge_says_why(seen, baseline, guard):
    verdict = judge(seen, baseline, (), HELD_TO)
    assert verdict.guard == guard
    assert verdict.failed is None


def test_fewer_than_fifty_rows_are_not_looked_at():
    assert judge(window(49, bins(49, 2)), before(), (), HELD_TO) == Verdict(None, "active", 0)


def test_a_look_is_spent_once():
    worse = window(60, bins(60, 2))
    first = judge(worse, before(), (), HELD_TO, looks=0)
    again = judge(worse, before(), (), HELD_TO, looks=1)
    assert (first.failed is None, first.looks) == (False, 1)
    assert (again.failed, again.looks) == (None, 1)


@pytest.mark.parametrize(
    "override, expected",
    [
        pytest.param(HealthOverride(), (1800, 50, 0.01, 3), id="nothing said"),
        pytest.param(HealthOverride(3600, 100, 0.001, 1), (3600, 100, 0.001, 1), id="stricter"),
        pytest.param(HealthOverride(10, 1, 0.5, 9), (1800, 50, 0.01, 3), id="laxer is ignored"),
    ],
)
def test_a_plan_can_only_be_stricter(override, expected):
    held = terms(Policy(), override, dev=False)
    got = (held.health_window_s, held.min_requests, held.limits.error_share, held.limits.crashes)
    assert got == expected


def test_a_window_longer_than_the_longest_trial_prolongs_it():
    assert terms(Policy(), HealthOverride(200_000), dev=False).max_duration_s == 200_000


DEV = Policy(dev=DevPolicy())


@pytest.mark.parametrize(
    "policy, dev, window_s, guarded",
    [
        pytest.param(DEV, True, 3, False, id="dev bundle on a dev agent"),
        pytest.param(DEV, False, 1800, True, id="dev bundle on a production agent"),
        pytest.param(Policy(), True, 1800, True, id="production bundle on a dev agent"),
    ],
)
def test_dev_intervals_need_both_the_bundle_and_the_agent(policy, dev, window_s, guarded):
    held = terms(policy, dev=dev)
    assert (held.health_window_s, held.guarded) == (window_s, guarded)
    assert held.mark_s == window_s / 10

"""Evidence: numbers by hand and by brute force, and no wealth from nothing."""

from __future__ import annotations

from itertools import combinations, product
from math import comb, exp, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from control_plane.rollout.score import SLOTS
from control_plane.rollout.sequential import (
    NOTHING,
    carry,
    effective,
    excluded,
    fail_bets,
    hours_evidence,
    limit_evidence,
    log_mean_exp,
    pass_bets,
    passable,
    score_evidence,
    share_of,
    small_fleet,
    smallest_margin,
    smallest_shift,
)

CONTROL = (1, 2, 5, 9, 13, 15, 16, 13, 9, 4, 2, 1)
ALIKE = (0, 0, 1, 1, 2, 2, 1, 1, 1, 1, 0, 0)
WORSE = (0, 0, 0, 0, 1, 1, 1, 2, 1, 2, 1, 1)


def test_bets_of_ten_against_ninety_by_slot():
    found = fail_bets(10, 90, 0.002)
    assert found.shape == (6, SLOTS)
    assert found[:, [0, 6, 11]] == pytest.approx(
        np.array(
            [
                [-2.137897603, -0.022591992, 1.740162685],
                [-3.784126516, -0.258617163, 2.679307298],
                [-7.090382511, -1.097016611, 3.897454972],
                [-11.85, -2.85, 4.65],
                [-0.123749389, -0.123749389, 1.791759469],
                [-0.162475623, -0.162475623, 3.218875825],
            ]
        )
    )
    assert pass_bets(10, 90)[:, [0, 6, 11]] == pytest.approx(
        np.array(
            [
                [1.250397324, -0.218250774, -1.44212419],
                [1.977480615, -0.470266216, -2.510055241],
                [3.044835143, -1.11633447, -4.583975813],
            ]
        )
    )


def test_tilts_stay_in_bounds_for_the_smallest_and_the_largest_fleets():
    tiny, huge = fail_bets(1, 1, 0.05)[:4], fail_bets(10**5, 10**5, 0.05)[:4]
    for bets, most in ((tiny, 3.0), (huge, 0.04)):
        steps = np.diff(bets, axis=1)
        assert (steps >= 0.03 * 0.5 - 1e-12).all()
        assert (steps <= most * 0.5).all()


@pytest.mark.parametrize(
    "candidates, bets, expected",
    [
        (
            ALIKE,
            fail_bets(10, 90, 0.002),
            [-3.110090806, -7.688700145, -18.989153946, -37.590334587, -1.318198827, -1.3526515],
        ),
        (
            WORSE,
            fail_bets(10, 90, 0.002),
            [3.913127439, 3.767416412, 0.383112055, -7.387685816, 1.678472377, 0.789814616],
        ),
        (ALIKE, pass_bets(10, 90), [-0.891628409, -2.78572904, -8.049780792]),
    ],
    ids=["alike", "worse", "within tolerance"],
)
def test_evidence_of_slot_counts(candidates, bets, expected):
    assert score_evidence(candidates, CONTROL, 0.1, bets) == pytest.approx(expected)
    assert score_evidence(candidates, CONTROL, 0.1, bets, less=0.5) == pytest.approx(
        np.array(expected) - 0.5
    )


def test_many_repetitions_are_evaluated_at_once():
    bets = fail_bets(10, 90, 0.002)
    many = score_evidence(np.array([ALIKE, WORSE]), np.array([CONTROL] * 2), 0.1, bets)
    assert many.shape == (2, 6)
    for row, candidates in zip(many, (ALIKE, WORSE), strict=True):
        assert row == pytest.approx(score_evidence(candidates, CONTROL, 0.1, bets))


def test_waves_carry_the_mean_wealth_and_fresh_money():
    wealths = score_evidence(WORSE, CONTROL, 0.1, fail_bets(10, 90, 0.002))
    assert log_mean_exp(wealths) == pytest.approx(2.836650570674395)
    first = carry(NOTHING, 0.5, wealths)
    assert first == pytest.approx(log(0.5) + 2.836650570674395)
    assert carry(-1.2, 0.25, wealths) == pytest.approx(2.2409825104515977)
    assert exp(carry(first, 0.25, wealths)) == pytest.approx(
        (exp(first) + 0.25) * exp(2.836650570674395)
    )


def test_a_ruined_bet_does_not_ruin_the_mean():
    assert log_mean_exp(np.array([-5000.0, 0.0])) == pytest.approx(log(0.5))
    assert log_mean_exp(np.array([5000.0, 5000.0])) == pytest.approx(5000.0)


@st.composite
def bets_in_a_fleet(draw):
    n_a, n_b = draw(st.integers(1, 200)), draw(st.integers(1, 2000))
    if draw(st.booleans()):
        return share_of(n_a, n_b), pass_bets(n_a, n_b)
    return share_of(n_a, n_b), fail_bets(n_a, n_b, draw(st.floats(1e-5, 0.2)))


def mean_wealth(slots, w, bets):
    """Exact mean over all ways to label the devices, each a candidate with chance w."""
    labels = np.array(list(product((0, 1), repeat=len(slots))))
    onehot = np.eye(SLOTS)[slots]
    chance = w ** labels.sum(axis=1) * (1 - w) ** (1 - labels).sum(axis=1)
    ln = score_evidence(labels @ onehot, (1 - labels) @ onehot, w, bets)
    return chance @ np.exp(ln).mean(axis=1)


@settings(deadline=None)
@given(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=8), bets_in_a_fleet())
def test_bets_earn_nothing_on_average_whatever_the_scores_are(slots, fleet):
    assert mean_wealth(slots, *fleet) == pytest.approx(1.0, rel=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=5),
    st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=5),
    bets_in_a_fleet(),
    bets_in_a_fleet(),
)
def test_two_waves_together_are_worth_their_shares_on_average(first, second, fleet, later):
    total = 0.0
    for labels in product((0, 1), repeat=len(first)):
        w, bets = fleet
        side = np.eye(SLOTS)[first] * np.array(labels)[:, None]
        ln = score_evidence(side.sum(axis=0), (np.eye(SLOTS)[first] - side).sum(axis=0), w, bets)
        chance = np.prod([w if each else 1 - w for each in labels])
        total += chance * (exp(carry(NOTHING, 0.5, ln)) + 0.25)
    assert total * mean_wealth(second, *later) == pytest.approx(0.75, rel=1e-6)


def spread(n):
    """Scores of a normal fleet: the slots of n equally likely devices."""
    z = np.sqrt(2) * np.array([_erfinv(2 * (k + 0.5) / n - 1) for k in range(n)])
    return np.searchsorted(np.arange(-2.5, 2.6, 0.5), z)


def _erfinv(x):
    from scipy.special import erfinv

    return float(erfinv(x))


@pytest.mark.parametrize("n, candidates", [(5, 1), (5, 2), (8, 3), (10, 1), (10, 5), (12, 4)])
@pytest.mark.parametrize("alpha", [0.01, 0.002, 0.0005])
def test_what_is_taken_off_pays_for_waves_of_exactly_n_in_small_fleets(n, candidates, alpha):
    slots = spread(n)
    labels = np.array([each for each in product((0, 1), repeat=n) if sum(each) == candidates])
    onehot = np.eye(SLOTS)[slots]
    bets = fail_bets(candidates, n - candidates, alpha)
    ln = score_evidence(
        labels @ onehot,
        (1 - labels) @ onehot,
        candidates / n,
        bets,
        less=small_fleet(candidates, n - candidates),
    )
    assert len(labels) == comb(n, candidates)
    assert np.exp(ln).mean() <= 1.0


def test_it_does_not_matter_in_which_hours_devices_are_judged():
    bets = fail_bets(10, 90, 0.002)
    hours = [(ALIKE, CONTROL), (WORSE, CONTROL)]
    both = [np.add(x, y) for x, y in zip(*hours, strict=True)]
    expected = pytest.approx(score_evidence(both[0], both[1], 0.1, bets))
    assert hours_evidence(hours, 10, 90, bets) == expected
    assert hours_evidence(reversed(hours), 10, 90, bets) == expected


def test_only_small_fleets_pay():
    assert small_fleet(10, 19) == 0.5
    assert small_fleet(10, 20) == 0.0


def outcomes(n_a, n_b, alpha):
    """For scores in at most two slots: the chances and the evidence of all ways to draw labels."""
    bets, w, n = fail_bets(n_a, n_b, alpha), share_of(n_a, n_b), n_a + n_b
    for low, high in combinations((0, 2, 4, 6, 8, 10, 11), 2):
        for above in range(1, n + 1):
            drawn = np.arange(max(0, n_a - (n - above)), min(above, n_a) + 1)
            a, both = np.zeros((len(drawn), SLOTS)), np.zeros(SLOTS)
            a[:, low], a[:, high] = n_a - drawn, drawn
            both[low], both[high] = n - above, above
            ln = score_evidence(a, both - a, w, bets, less=small_fleet(n_a, n_b))
            yield hypergeom.pmf(drawn, n, above, n_a), np.exp(ln).mean(axis=1)


@pytest.mark.parametrize(
    "waves",
    [[(1, 7), (2, 5), (2, 3)], [(1, 9), (1, 8), (3, 5)], [(2, 18), (3, 15), (5, 10)]],
    ids=["8 devices", "10 devices", "20 devices"],
)
@pytest.mark.parametrize("alpha", [0.0033, 0.001])
def test_no_scores_whatever_make_a_wrong_fail_of_a_small_fleet_likelier_than_promised(waves, alpha):
    # The worst chance to reach 1/alpha, from every wealth that the waves before may have left.
    wealth = np.append(0.0, np.exp(np.linspace(-8, log(1 / alpha), 2000)))
    worst = np.append(np.zeros(len(wealth) - 1), 1.0)
    for number in range(len(waves), 0, -1):
        share = 0.5**number
        found = np.zeros(len(wealth))
        n_a, n_b = waves[number - 1]
        for chances, evidence in outcomes(n_a, n_b, alpha * share):
            # Rounded up, so that the result is a bound.
            after = np.searchsorted(wealth, (wealth[:, None] + share) * evidence)
            found = np.maximum(found, worst[np.minimum(after, len(wealth) - 1)] @ chances)
        worst = np.append(found[:-1], 1.0)
    assert worst[0] <= alpha


def test_without_control_there_is_no_bet():
    assert (effective(5, 0), effective(0, 5)) == (0.0, 0.0)
    assert smallest_shift(1.0, 5, 0, 0.01) == smallest_margin(1.0, 5, 0) == inf
    for sides in ((5, 0), (0, 5)):
        with pytest.raises(ValueError, match="nobody to compare with"):
            fail_bets(*sides, 0.01)
        with pytest.raises(ValueError, match="nobody to compare with"):
            pass_bets(*sides)


@pytest.mark.parametrize(
    "n, f, limit, expected",
    [
        (10, 4, 0.02, [2.648872999, 5.166104035, 7.392862088, 1.532355645]),
        (100, 3, 0.02, [0.07937068301, -1.969470374, -8.714291318, -209.9711039]),
        (30, 30, 0.05, [20.794415417, 41.588830834, 62.38324625, 86.711152737]),
        (50, 0, 0.2, [-14.384103623, -69.314718056, -103.972077084, -103.972077084]),
        (0, 0, 0.02, [0.0] * 4),
    ],
)
def test_evidence_against_a_limit(n, f, limit, expected):
    assert limit_evidence(n, f, limit) == pytest.approx(expected)
    # A large wave has one more alternative; a small one does not.
    assert limit_evidence(n, f, limit, devices=299) == pytest.approx(expected)
    large = limit_evidence(n, f, limit, devices=300)
    assert large[1:] == pytest.approx(expected)
    assert large[0] == pytest.approx(
        f * log(1.4) + (n - f) * log((1 - 1.4 * limit) / (1 - limit)), abs=1e-9
    )


@pytest.mark.parametrize("n, f, limit", [(3, 4, 0.02), (3, -1, 0.02), (3, 1, 0.0), (3, 1, 0.9)])
def test_a_limit_and_failures_have_to_make_sense(n, f, limit):
    with pytest.raises(ValueError, match="against a limit"):
        limit_evidence(n, f, limit)


def ever(limit, alpha, n, share=1.0, devices=0):
    """Exact chance that a fleet that fails at the limit ever reaches 1/alpha within n devices."""
    going = np.zeros(n + 2)
    going[0] = 1.0
    alarm = 0
    for tried in range(1, n + 1):
        going[1:] = going[1:] * (1 - limit) + going[:-1] * limit
        going[0] *= 1 - limit
        while alarm <= tried and carry(
            NOTHING, share, limit_evidence(tried, alarm, limit, devices=devices)
        ) < log(1 / alpha):
            alarm += 1
        going[alarm:] = 0.0
    return 1 - going.sum()


@pytest.mark.parametrize("limit", [0.01, 0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("devices", [0, 1000])
def test_a_fleet_at_its_limit_is_blamed_less_often_than_promised(limit, devices):
    assert 0 < ever(limit, 0.05, 1000, devices=devices) <= 0.05
    assert 0 < ever(limit, 0.025, 1000, share=0.5, devices=devices) <= 0.025 * 0.5


def test_at_the_default_limit_half_of_the_promise_is_used():
    assert ever(0.02, 0.05, 1000) == pytest.approx(0.024, abs=0.001)


@pytest.mark.parametrize(
    "n, f, expected",
    [
        (1, 0, 0.95),
        (10, 0, 0.2588655508930522),
        (10, 1, 0.39416330243650466),
        (58, 0, 0.050339338330420105),
        (59, 0, 0.04950760988822693),
        (149, 0, 0.019904816220685077),
        (299, 0, 0.009969146792899269),
        (5, 5, 1.0),
        (0, 0, 1.0),
    ],
)
def test_what_failures_exclude(n, f, expected):
    assert excluded(n, f) == pytest.approx(expected)


@given(st.integers(1, 5000), st.data())
def test_more_failures_exclude_less_and_more_devices_exclude_more(n, data):
    f = data.draw(st.integers(0, n - 1))
    bound = excluded(n, f)
    assert f / n < bound < 1
    assert bound < excluded(n, f + 1)
    assert bound > excluded(n + 1, f)
    assert bound < excluded(n, f, 0.99)
    # So many or fewer would be seen once in twenty times at exactly this rate.
    assert binom.cdf(f, n, bound) == pytest.approx(0.05, rel=1e-6)


@given(st.integers(1, 3000), st.floats(0.001, 0.2))
def test_a_fleet_as_good_as_its_background_passes_nine_times_in_ten(n, background):
    c, limit = passable(n, background)
    assert binom.cdf(c, n, background) >= 0.9
    assert c == 0 or binom.cdf(c - 1, n, background) < 0.9
    assert limit == excluded(n, c)
    assert passable(n, background, 0.999999)[1] >= 0.999999


def test_the_smallest_shift_and_the_smallest_margin():
    n = 10 * 90 / 100
    assert smallest_shift(0.3, 10, 90, 0.002) == pytest.approx(5.0 * 0.3 / sqrt(n), rel=0.01)
    assert smallest_margin(0.3, 10, 90) == pytest.approx(4 * 0.3 / sqrt(n))

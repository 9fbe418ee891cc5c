"""Changes of one device and the slots they go into: formulas, signs, and what has no answer."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from control_plane.rollout.conditions import Gates
from control_plane.rollout.score import (
    EDGES,
    FLOORS,
    METRICS,
    SLOTS,
    Series,
    Sums,
    Table,
    alphas,
    centre,
    changes,
    changes_of_many,
    row_sd,
    scale,
    series_of,
    slot_counts,
)
from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS
from protocol.telemetry import InferenceWindow

DIGEST = "sha256-" + "0" * 64
DAY = 86_400.0


def in_bin(bins, **counts):
    """Histogram with counts at the named bins: `in_bin(20, b3=5)`."""
    return tuple(counts.get(f"b{k}", 0) for k in range(bins))


def confidence(**counts):
    return in_bin(CONFIDENCE_BINS, **counts)


def latency(**counts):
    return in_bin(LATENCY_SLOTS, **counts)


def one(metric, part=None, sign=1):
    return Series("it", metric, DAY, 0.1, part, sign)


@pytest.mark.parametrize(
    "series, before, after, expected",
    [
        (
            one("error_rate"),
            Sums(requests=999, errors=0),
            Sums(requests=990, errors=9),
            log(19),
        ),
        (
            one("error_rate"),
            Sums(requests=95, errors=5),
            Sums(requests=190, errors=10),
            log(10.5 / 201) - log(5.5 / 101),
        ),
        (
            one("out_of_contract"),
            Sums(rows=99, outside=2),
            Sums(rows=199, outside=24),
            log(24.5 / 200) - log(2.5 / 100),
        ),
        (one("latency"), Sums(latency=latency(b20=40)), Sums(latency=latency(b24=30)), log(2)),
        (one("latency"), Sums(latency=latency(b24=40)), Sums(latency=latency(b20=40)), -log(2)),
        (
            # One in ten requests slow: the 95th percentile sees it, a mean of logarithms hardly.
            one("latency"),
            Sums(latency=latency(b20=100)),
            Sums(latency=latency(b20=90, b30=10)),
            (30 - 20 + 0.5 - 0.95) * log(2) / 4,
        ),
        (
            one("confidence"),
            Sums(confidence=confidence(b19=30)),
            Sums(confidence=confidence(b19=20, b9=20)),
            0.25,
        ),
        (
            one("confidence", sign=-1),
            Sums(confidence=confidence(b19=30)),
            Sums(confidence=confidence(b19=20, b9=20)),
            -0.25,
        ),
        (
            one("class_mix", part=1),
            Sums(classes=(79, 20)),
            Sums(classes=(59, 40)),
            log(40.5 / 20.5),
        ),
        (
            one("class_mix", part=1, sign=-1),
            Sums(classes=(79, 20)),
            Sums(classes=(59, 40)),
            -log(40.5 / 20.5),
        ),
        (
            one("class_mix"),
            Sums(classes=(50, 50)),
            Sums(classes=(100, 0)),
            sqrt(1 - sqrt(0.5)),
        ),
        (one("class_mix"), Sums(classes=(30, 70)), Sums(classes=(60, 140)), 0.0),
        (
            one("accuracy"),
            Sums(labelled=100, correct=90),
            Sums(labelled=50, correct=40),
            0.1,
        ),
        (
            one("drift"),
            Sums(drift=0.02, drift_rows=50),
            Sums(drift=0.3, drift_rows=60),
            0.28,
        ),
    ],
)
def test_a_change_is_larger_the_worse_it_is(series, before, after, expected):
    assert changes([series], after, before)["it"] == pytest.approx(expected, abs=1e-9)


ENOUGH = Sums(
    requests=20,
    rows=20,
    latency=latency(b3=20),
    confidence=confidence(b3=20),
    classes=(10, 10),
    labelled=20,
    drift=0.1,
    drift_rows=20,
)
FEW = Sums(
    requests=19,
    rows=19,
    latency=latency(b3=19),
    confidence=confidence(b3=19),
    classes=(10, 9),
    labelled=19,
    drift=0.1,
    drift_rows=19,
)


@pytest.mark.parametrize("metric", METRICS)
def test_a_side_with_fewer_than_twenty_observations_gives_no_change(metric):
    assert set(changes([one(metric)], ENOUGH, ENOUGH)) == {"it"}
    assert changes([one(metric)], FEW, ENOUGH) == {}
    assert changes([one(metric)], ENOUGH, FEW) == {}
    assert changes([one(metric)], Sums(), ENOUGH) == {}
    assert changes([one(metric)], ENOUGH, Sums()) == {}


def test_errors_are_observations_too():
    dead = Sums(requests=0, errors=20)
    assert changes([one("error_rate")], dead, ENOUGH)["it"] > 3


def test_mixes_over_different_classes_do_not_compare():
    with pytest.raises(ValueError, match="do not compare"):
        changes([one("class_mix")], Sums(classes=(10, 10, 10)), Sums(classes=(10, 10)))
    with pytest.raises(ValueError, match="do not compare"):
        Table.of([Sums(classes=(10, 10, 10)), Sums(classes=(10, 10))])


def test_what_was_not_looked_at_has_no_distance():
    known = Sums(drift=0.1, drift_rows=50)
    assert changes([one("drift")], ENOUGH, Sums()) == {}
    assert changes([one("drift")], Sums(), known) == {}


def test_distances_are_weighed_by_rows():
    near, far = Sums(drift=0.1, drift_rows=300), Sums(drift=0.5, drift_rows=100)
    assert (near + far).drift == pytest.approx(0.2)
    assert (near + Sums(rows=9)).drift == pytest.approx(0.1)
    assert (Sums() + Sums()).drift is None


def test_windows_add_up_to_sums():
    window = InferenceWindow(
        DIGEST, DIGEST, 50, 60, 2, 1, 0, latency(b1=50), confidence(b2=60), (30, 30), 0, 4
    )
    labels = Sums.of(InferenceWindow(DIGEST, DIGEST, labelled=40, correct=30))
    assert (labels.labelled, labels.correct) == (40, 30)
    once = Sums.of(window)
    assert once == Sums(50, 60, 2, 4, latency(b1=50), confidence(b2=60), (30, 30))
    # A window of few answers ships totals only.
    small = Sums.of(InferenceWindow(DIGEST, DIGEST, 5, 5, 1))
    assert (
        once + small
        == small + once
        == Sums(55, 65, 3, 4, latency(b1=50), confidence(b2=60), (30, 30))
    )
    assert Sums() + once == once


counts = st.integers(0, 40)
sums = st.builds(
    Sums,
    requests=counts,
    rows=counts,
    errors=counts,
    outside=st.just(0),
    latency=st.just(()) | st.tuples(*[st.integers(0, 2)] * LATENCY_SLOTS),
    confidence=st.just(()) | st.tuples(*[st.integers(0, 4)] * CONFIDENCE_BINS),
    classes=st.just(()) | st.tuples(counts, counts, counts),
    labelled=counts,
    correct=st.just(0),
    drift=st.none() | st.floats(0, 5),
    drift_rows=counts,
)
ALL = series_of(Gates(drift=0.1), (DAY,), 3, 0.2, labelled=True)


@given(st.lists(st.tuples(sums, sums), min_size=1, max_size=6))
def test_many_devices_at_once_are_the_devices_one_by_one(pairs):
    after, before = (Table.of(each) for each in zip(*pairs, strict=True))
    many = changes_of_many(ALL, after, before)
    for n, pair in enumerate(pairs):
        alone = changes(ALL, *pair)
        there = {key: d[n] for key, d in many.items() if not np.isnan(d[n])}
        assert alone == pytest.approx(there, abs=1e-9)


@given(sums, sums)
def test_changes_the_other_way_round_have_the_other_sign(after, before):
    forth, back = changes(ALL, after, before), changes(ALL, before, after)
    assert forth == pytest.approx({key: -d for key, d in back.items()})


def test_the_scores_of_a_rollout_by_their_keys():
    found = series_of(Gates(), (21_600, 86_400), 2, 0.2, labelled=True)
    assert [each.key for each in found] == [
        "error_rate/21600",
        "out_of_contract/21600",
        "latency/21600",
        "confidence+/21600",
        "confidence-/21600",
        "class_mix.0+/21600",
        "class_mix.0-/21600",
        "class_mix.1+/21600",
        "class_mix.1-/21600",
        "error_rate/86400",
        "out_of_contract/86400",
        "latency/86400",
        "confidence+/86400",
        "confidence-/86400",
        "class_mix.0+/86400",
        "class_mix.0-/86400",
        "class_mix.1+/86400",
        "class_mix.1-/86400",
        "accuracy/86400",
    ]
    margins = {each.metric: each.margin for each in found}
    assert margins == pytest.approx(
        {
            "error_rate": log(1.2),
            "out_of_contract": log(1.2),
            "latency": log(1.15),
            "confidence": 0.01,
            "class_mix": log(1.2),
            "accuracy": 0.01,
        }
    )


@pytest.mark.parametrize(
    "gates, classes, sd, expected",
    [
        (Gates(None, None, None, None, None, None), 3, 0.2, []),
        (Gates(1.2, None, None, None, 0.05, None), 0, None, ["error_rate/86400"]),
        (Gates(None, None, None, 1.2, None, 1.0), 0, 0.2, []),
        (Gates(None, None, None, 1.2, None, 1.0), 1, 0.2, []),
        (Gates(None, None, None, 1.2, None, None), 11, 0.2, ["class_mix/86400"]),
        (Gates(None, None, None, None, None, None, 0.1), 0, None, ["drift/86400"]),
    ],
)
def test_what_cannot_be_measured_is_no_score(gates, classes, sd, expected):
    assert [each.key for each in series_of(gates, (DAY,), classes, sd)] == expected


def test_the_tolerance_of_a_distance_is_that_of_shares_that_all_differ_by_the_ratio():
    (whole,) = series_of(Gates(None, None, None, 1.2, None, None), (DAY,), 20, None)
    share = np.full(20, 1 / 20) * np.where(np.arange(20) % 2, 1.2**1, 1.2**-1)
    before, after = (tuple(np.rint(1e7 * mix).astype(int)) for mix in (np.full(20, 1 / 20), share))
    d = changes([whole], Sums(classes=after), Sums(classes=before))[whole.key]
    assert d == pytest.approx(whole.margin, rel=0.02)


def test_alpha_is_shared_out_evenly_over_metrics_and_then_within_each():
    shares = alphas(series_of(Gates(), (21_600, 86_400), 2, 0.2, labelled=True), 0.024)
    assert sum(shares.values()) == pytest.approx(0.024)
    assert shares["accuracy/86400"] == pytest.approx(0.004)
    assert shares["error_rate/21600"] == pytest.approx(0.002)
    # A fall of confidence is more often a fault than a rise.
    assert shares["confidence+/21600"] == pytest.approx(0.0016)
    assert shares["confidence-/21600"] == pytest.approx(0.0004)
    assert shares["class_mix.1+/86400"] == pytest.approx(0.0005)
    assert alphas((), 0.02) == {}


def test_the_spread_of_rows_is_never_less_than_that_within_a_bin():
    assert row_sd(confidence(b10=19)) is None
    assert row_sd(confidence(b10=20)) == pytest.approx(0.05 / sqrt(12))
    assert row_sd(confidence(b0=50, b19=50)) == pytest.approx(0.475)


def test_a_scale_is_a_standard_deviation_that_wild_devices_do_not_move():
    values = norm.ppf((np.arange(1000) + 0.5) / 1000, scale=0.3)
    assert scale("error_rate", values) == pytest.approx(0.3, rel=0.01)
    wild = np.concatenate([values, [40.0, -40.0, 60.0]])
    assert scale("error_rate", wild) == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("metric", METRICS)
def test_a_fleet_that_does_not_move_has_the_smallest_scale_and_a_tiny_one_has_none(metric):
    assert scale(metric, [0.0] * 5) == FLOORS[metric]
    assert scale(metric, [0.0] * 4) is None


def test_the_centre_is_this_hours_median_or_that_of_all_where_the_hour_has_few():
    assert centre([5.0] * 20, [0.0] * 100 + [5.0] * 20) == 5.0
    assert centre([5.0] * 19, [0.0] * 100 + [5.0] * 19) == 0.0
    with pytest.raises(ValueError, match="no values"):
        centre([], [])


def test_slots_are_half_a_scale_wide_and_open_at_both_ends():
    values = [-99.0, *(edge + 0.25 for edge in EDGES)]
    assert slot_counts(values, 0.0, 1.0) == (1,) * SLOTS
    assert slot_counts([3 + 2 * value for value in values], 3.0, 2.0) == (1,) * SLOTS
    # On an edge: below it.
    assert slot_counts(EDGES, 0.0, 1.0) == (1,) * 11 + (0,)
    assert slot_counts([], 0.0, 1.0) == (0,) * SLOTS
    with pytest.raises(ValueError, match="not a number"):
        slot_counts([float("nan")], 0.0, 1.0)


values = st.lists(st.floats(-1e6, 1e6), max_size=30)


@given(values, values, st.floats(-5, 5), st.floats(0.01, 10), st.randoms())
def test_slots_add_up_and_the_order_of_devices_does_not_matter(one, other, middle, spread, chance):
    both = one + other
    chance.shuffle(both)
    found = slot_counts(both, middle, spread)
    assert sum(found) == len(both)
    apart = [slot_counts(each, middle, spread) for each in (one, other)]
    assert found == tuple(a + b for a, b in zip(*apart, strict=True))

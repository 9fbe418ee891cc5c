"""The e-detector against its definition, and what it promises: few false alarms, gross faults seen
at once, the same evidence wherever it is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from protocol.edetector import (
    BURN_IN,
    BURN_IN_EXPONENT,
    CAP,
    DEFAULT_THRESHOLD,
    KAPPA,
    MOST_STREAMS,
    RULES,
    TILTS,
    VIF_NOTED,
    VIF_SAFETY,
    Bets,
    DetectorState,
    StreamState,
    all_bets,
    bets_of,
    decode_state,
    encode_state,
    evidence,
    exponent,
    run,
    step,
)
from protocol.histogram import Counts
from protocol.members import Feature, Profile, Residual
from protocol.scores import scores, shares
from protocol.telemetry import DriftWindow
from tests.fakes.telemetry import MANIFEST, PROFILE

Floats = NDArray[np.float64]

EDGES = tuple(float(np.float32(stats.norm.ppf(k / 10))) for k in range(1, 10))
NUMBER = Feature("x", EDGES, (*(2000,) * 10, 0, 0))
"""Deciles of a standard normal, of 20,000 reference rows."""
WORDS = Feature("city", (), (4000, 3000, 1500, 300, 900, 300), "words", ("a", "b", "c", "d"))
RARE = Feature("code", (), (100, 100, 9800, 0), "words", ("a", "b"))


def matrix(feature: Feature) -> tuple[Floats, Floats, Floats]:
    """The definition in full: log ratios per bet and slot, margins per bet, VIF scores."""
    p = np.array(shares(feature))
    h = [np.array(s.values) for s in scores(feature) if s.name != "outside"][:2]
    rows = []
    if feature.kind == "number":
        for score in h:
            for theta in TILTS:
                for sign in (1, -1):
                    tilted = np.exp(sign * theta * score)
                    rows.append(tilted / (p @ tilted))
    for slot, share in enumerate(p):
        for to in (min(0.95, 2 * share + 0.01), min(0.95, share + 0.5)):
            if to > share:
                ratio = np.full(len(p), (1 - to) / (1 - share))
                ratio[slot] = to / share
                rows.append(ratio)
    ratios = np.array(rows)
    spread = np.sqrt(((ratios - 1) ** 2) @ p)
    return np.log(ratios), np.log1p(KAPPA / math.sqrt(sum(feature.counts)) * spread), np.array(h)


def plain(feature: Feature, windows: Sequence[Counts]) -> Iterator[float]:
    """ln e after each window, by the definition with the bet by slot matrix."""
    p = np.array(shares(feature))
    logs, margins, h = matrix(feature)
    m = np.full(len(logs), -np.inf)
    z: list[Floats] = []
    power = 1 / 30
    for t, counts in enumerate(windows, 1):
        c, n = np.array(counts, float), sum(counts)
        m = np.minimum(
            40.0, np.logaddexp(m, -math.log(t * (t + 1))) + power * (logs @ c - n * margins)
        )
        yield float(np.logaddexp.reduce(m) - math.log(len(m)))
        if len(z) < 60 and len(h):
            means = h @ p
            z.append((h @ c - n * means) / np.sqrt(n * ((h - means[:, None]) ** 2 @ p)))
        if len(z) == 60 or not len(h):
            inflation = float(np.var(z, axis=0, ddof=1).max()) if z else 1.0
            power = 1 / max(1.0, inflation * (1.5 if inflation > 1.35 else 1.0))


def drawn(feature: Feature, windows: int, rows: int, seed: int) -> list[Counts]:
    """Windows of independent rows of the reference."""
    rng = np.random.default_rng(seed)
    p = np.array(feature.counts) / sum(feature.counts)
    return [tuple(map(int, c)) for c in rng.multinomial(rows, p, windows)]


def slotted(values: Floats) -> Counts:
    slots = np.searchsorted(np.array(EDGES), values, side="right")
    return tuple(map(int, np.bincount(slots, minlength=len(NUMBER.counts))))


def evidence_of(feature: Feature, windows: Sequence[Counts]) -> list[float]:
    bets, state, found = (bets_of(feature),), DetectorState(), []
    for counts in windows:
        stepped = step(bets, state, (counts,))
        state = stepped.state
        found.append(stepped.ln_e[0])
    return found


def settled(bets: Bets, seed: int = 1) -> DetectorState:
    """After a burn-in of independent rows."""
    state = DetectorState()
    for counts in drawn(NUMBER, BURN_IN, 50, seed):
        state = step((bets,), state, (counts,)).state
    return state


@pytest.mark.parametrize("feature", [NUMBER, WORDS, RARE], ids=lambda feature: feature.name)
def test_the_e_detector_equals_a_plain_numpy_version_of_its_definition(feature):
    windows = drawn(feature, 80, 60, 3)
    turned = [tuple(reversed(counts)) for counts in windows[:20]]
    both = [*windows, *turned]
    assert evidence_of(feature, both) == pytest.approx(list(plain(feature, both)), abs=1e-9)


counts_of = st.lists(st.integers(0, 300), min_size=4, max_size=12)


@settings(deadline=None)
@given(counts_of, st.sampled_from(["number", "words"]))
def test_bets_have_mean_one_under_the_reference(counts, kind):
    slots = len(counts)
    if kind == "number":
        edges = tuple(float(x) for x in range(slots - 3))
        feature = Feature("x", edges, tuple(counts))
    else:
        feature = Feature("x", (), tuple(counts), "words", tuple(map(str, range(slots - 2))))
    p, bets = shares(feature), bets_of(feature)
    assert bool(bets.lines) == bool(sum(counts))
    if not bets.lines:
        return
    margins = matrix(feature)[1]
    assert len(margins) == len(bets.lines)
    for margin, (which, slope, per_row) in zip(margins, bets.lines, strict=True):
        own = len(bets.scores)
        h = bets.scores[which] if which < own else [float(k == which - own) for k in range(slots)]
        mean = sum(
            share * math.exp(slope * x + per_row + margin) for share, x in zip(p, h, strict=True)
        )
        assert mean == pytest.approx(1.0, abs=1e-9)


def test_location_and_scale_of_a_finely_cut_reference_have_mean_zero_and_variance_one():
    feature = Feature("x", tuple(map(float, range(61))), (0, *(10_000,) * 60, 0, 0, 0))
    p = np.array(shares(feature))
    for score in scores(feature)[:2]:
        h = np.array(score.values)
        assert p @ h == pytest.approx(0, abs=1e-3)
        assert p @ h**2 == pytest.approx(1, abs=2e-3)


def test_words_score_the_most_common_ones_first_and_what_no_word_covers():
    assert [(s.name, s.part) for s in scores(WORDS)] == [
        ("word", 0), ("word", 1), ("word", 2), ("outside", None),
    ]  # fmt: skip
    assert scores(WORDS)[-1].values == (0, 0, 0, 0, 1, 1)
    assert [s.name for s in scores(RARE)] == ["outside"]


def test_what_never_leaves_the_reference_almost_never_alarms():
    """The bound at alpha = .05, over 200 streams: more than 19 has a chance below 1 in 1,000."""
    alarmed = 0
    for seed in range(200):
        windows = drawn(NUMBER, 300, 50, 1000 + seed)
        alarmed += max(evidence_of(NUMBER, windows)) >= math.log(20)
    assert stats.binom.sf(alarmed - 1, 200, 0.05) > 1e-3


@pytest.mark.parametrize("slot", [pytest.param(4, id="in a decile"), pytest.param(11, id="NaN")])
def test_a_stuck_value_fires_at_once_after_burn_in(slot):
    bets = bets_of(NUMBER)
    stuck = tuple(50 * (k == slot) for k in range(12))
    stepped = step((bets,), settled(bets), (stuck,))
    assert stepped.ln_e[0] >= DEFAULT_THRESHOLD


def test_burn_in_assumes_dependence_and_still_sees_a_stuck_sensor_within_ten_windows():
    stuck = [tuple(50 * (k == 4) for k in range(12))] * 10
    found = evidence_of(NUMBER, stuck)
    assert found[0] < DEFAULT_THRESHOLD <= found[-1]


def test_a_moderate_shift_is_found_within_some_windows():
    rng = np.random.default_rng(5)
    bets, delays = bets_of(NUMBER), []
    for seed in range(20):
        state, ln_e, delay = settled(bets, seed), -math.inf, 0
        while ln_e < DEFAULT_THRESHOLD:
            stepped = step((bets,), state, (slotted(rng.normal(0.6, 1, 50)),))
            state, (ln_e,), delay = stepped.state, stepped.ln_e, delay + 1
        delays.append(delay)
    assert np.median(delays) <= 6


@pytest.mark.parametrize(
    "vif, divisor",
    [
        pytest.param(0.7, 1.0, id="less than of independent rows"),
        pytest.param(VIF_NOTED, VIF_NOTED, id="as chance may show"),
        pytest.param(1.4, VIF_SAFETY * 1.4, id="more than chance shows"),
        pytest.param(9.0, VIF_SAFETY * 9, id="much"),
    ],
)
def test_only_inflation_that_is_told_from_chance_has_a_safety(vif, divisor):
    assert exponent(StreamState(vif=vif)) == pytest.approx(1 / divisor)


def test_independent_rows_hardly_ever_show_as_much_inflation_as_is_noted():
    """Of one score, in windows of many rows: its variance over `BURN_IN` is a chi-square."""
    by_chance = stats.chi2.sf((BURN_IN - 1) * VIF_NOTED, BURN_IN - 1)
    assert by_chance < 0.05
    bets, above = bets_of(NUMBER), 0
    for seed in range(200):
        vif = settled(bets, 500 + seed).streams[0].vif
        assert vif is not None
        above += vif > VIF_NOTED
    # The larger of location and scale.
    assert above <= stats.binom.isf(1e-3, 200, 2 * by_chance)


def test_the_exponent_of_a_window_does_not_know_that_window():
    bets = bets_of(NUMBER)
    state = DetectorState()
    usual = drawn(NUMBER, BURN_IN - 1, 50, 9)
    for counts in usual:
        state = step((bets,), state, (counts,)).state
    stuck = tuple(50 * (k == 4) for k in range(12))
    for last in (stuck, usual[0]):
        stepped = step((bets,), state, (last,))
        expected = list(plain(NUMBER, [*usual, last]))[-1]
        assert stepped.ln_e[0] == pytest.approx(expected, abs=1e-9)
    assert exponent(state.streams[0]) == BURN_IN_EXPONENT
    after = step((bets,), state, (stuck,)).state.streams[0]
    assert after.z == ()
    assert exponent(after) < exponent(step((bets,), state, (usual[0],)).state.streams[0])


def autocorrelated(windows: int, rows: int, phi: float, seed: int) -> Iterator[Counts]:
    rng = np.random.default_rng(seed)
    x = float(rng.normal())
    for _ in range(windows):
        values = np.empty(rows)
        for at, noise in enumerate(rng.normal(0, math.sqrt(1 - phi**2), rows)):
            x = phi * x + noise
            values[at] = x
        yield slotted(values)


def test_dependent_rows_are_discounted_by_their_own_variance():
    for seed in range(5):
        windows = list(autocorrelated(150, 50, 0.9, seed))
        bets, state = bets_of(NUMBER), DetectorState()
        highest = -math.inf
        for counts in windows:
            stepped = step((bets,), state, (counts,))
            state = stepped.state
            highest = max(highest, stepped.ln_e[0])
        assert state.streams[0].vif is not None
        assert state.streams[0].vif > 3
        assert highest < DEFAULT_THRESHOLD


def test_evidence_never_exceeds_its_cap_and_falls_again():
    bets = bets_of(NUMBER)
    state, ln_e = settled(bets), []
    stuck = tuple(50 * (k == 4) for k in range(12))
    # The smallest tilts lose least per window: 50 rows take one to three days of hours.
    for counts in (*[stuck] * 30, *drawn(NUMBER, 100, 50, 4)):
        stepped = step((bets,), state, (counts,))
        state = stepped.state
        assert max(state.streams[0].m) <= CAP
        ln_e.append(stepped.ln_e[0])
    assert DEFAULT_THRESHOLD < ln_e[29] <= CAP
    assert ln_e[-1] < DEFAULT_THRESHOLD - 5


def test_state_written_and_read_goes_on_as_if_never_stopped():
    windows = drawn(NUMBER, 100, 50, 6)
    bets, kept, read = (bets_of(NUMBER),), DetectorState(), DetectorState()
    for counts in windows:
        a, b = step(bets, kept, (counts,)), step(bets, read, (counts,))
        assert a == b
        kept, read = a.state, decode_state(encode_state(b.state))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(encode_state(DetectorState())[:-1], id="cut short"),
        pytest.param(
            encode_state(DetectorState(1, (StreamState((math.nan,)),))), id="not a number"
        ),
        pytest.param(encode_state(DetectorState(1, (StreamState((41.0,)),))), id="beyond the cap"),
    ],
)
def test_a_damaged_state_is_refused(data):
    with pytest.raises(ValueError):
        decode_state(data)


def test_a_state_of_other_rules_is_refused(monkeypatch):
    data = encode_state(settled(bets_of(NUMBER)))
    monkeypatch.setattr("protocol.edetector.RULES", RULES + 1)
    with pytest.raises(ValueError, match=f"a state of rules {RULES}; these are {RULES + 1}"):
        decode_state(data)


def test_a_stream_whose_state_is_of_another_feature_starts_anew():
    other = DetectorState(60, (StreamState((1.0,) * 7, ((3, 0.1, 2.0),)),))
    counts = drawn(NUMBER, 1, 50, 2)[0]
    fresh = step((bets_of(NUMBER),), DetectorState(60), (counts,))
    assert step((bets_of(NUMBER),), other, (counts,)) == fresh


def test_a_stream_without_rows_waits_for_the_others():
    bets = (bets_of(NUMBER), bets_of(NUMBER))
    counts = drawn(NUMBER, 1, 50, 2)[0]
    few = drawn(NUMBER, 1, 19, 2)[0]
    for empty in ((), few, (50,)):
        stepped = step(bets, DetectorState(), (counts, empty))
        assert stepped.ln_e[0] > -math.inf
        assert stepped.ln_e[1] == -math.inf
        assert stepped.state.t == 1
        assert stepped.state.streams[1] == StreamState()


def test_streams_beyond_the_most_have_no_bets():
    profile = Profile(20_000, (NUMBER,) * (MOST_STREAMS + 2))
    bets = all_bets(profile)
    counts = drawn(NUMBER, 1, 50, 2)[0]
    stepped = step(bets[:2], DetectorState(), (counts,) * 4)
    assert len(bets) == MOST_STREAMS
    assert stepped.ln_e[1] > stepped.ln_e[2] == -math.inf
    assert len(stepped.state.streams) == 2


def test_evidence_that_travels_is_of_the_strongest_and_rounded_down():
    assert evidence((2.99, 3.0, 15.47, -math.inf)) == ((1, 30), (2, 154))
    many = evidence([5.0] * 10 + [9.0] * 10)
    assert [index for index, _ in many] == [*range(6), *range(10, 20)]
    DriftWindow(MANIFEST, PROFILE, evidence=many)


def test_a_run_over_stored_windows_passes_over_those_that_step_nothing():
    profile = Profile(20_000, (NUMBER,), residual=None)
    windows = [DriftWindow(MANIFEST, PROFILE, 50, (c,)) for c in drawn(NUMBER, 4, 50, 8)]
    between = [
        DriftWindow(MANIFEST, PROFILE, 19, (drawn(NUMBER, 1, 19, 8)[0],)),
        DriftWindow(MANIFEST, PROFILE, 80),
        DriftWindow(MANIFEST, PROFILE, 80, ((40,), (40,))),
    ]
    found = list(run(profile, [windows[0], *between, *windows[1:]]))
    assert [each.state.t for each in found] == [1, 2, 3, 4]
    counts = [window.counts[0] for window in windows]
    assert [each.ln_e[0] for each in found] == evidence_of(NUMBER, counts)


def test_the_residual_is_one_more_stream():
    residual = Residual(NUMBER, None)
    profile = Profile(20_000, (NUMBER,))
    object.__setattr__(profile, "residual", residual)
    stuck = tuple(50 * (k == 4) for k in range(12))
    usual = drawn(NUMBER, 12, 50, 8)
    windows = [DriftWindow(MANIFEST, PROFILE, 50, (c,), stuck) for c in usual]
    last = list(islice(run(profile, windows), 12))[-1]
    assert last.ln_e[1] > DEFAULT_THRESHOLD > last.ln_e[0]

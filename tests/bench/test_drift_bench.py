"""The measurements of drift measure what they say, at tiny sizes.

Long because two measurements share streams, fleets and peers.
"""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from control_plane.drift.distance import two_sample
from protocol import edetector
from protocol.members import Feature, Profile
from protocol.telemetry import DriftWindow
from tests.bench.drift_cost import (
    BYTES_FEATURES,
    MANIFEST,
    PROFILE,
    Installed,
    Others,
    Watching,
    byte_rows,
    cost_rows,
    detector_rows,
    memory_rows,
)
from tests.bench.drift_fleets import Fleet, Kind, alone, blamed, called, fleet_rows
from tests.bench.drift_mirror import Mirror, ln_e
from tests.bench.drift_quality import (
    DETECTORS,
    Said,
    Scenario,
    at_most,
    highest,
    null_rows,
    rows_of,
    said,
    scenarios,
)
from tests.bench.drift_rivals import (
    LEVEL,
    MEASURE,
    RULES,
    benjamini_hochberg,
    chi_square_p,
    ks_p,
    psi,
)
from tests.bench.drift_streams import (
    CHANGES,
    FAMILY,
    Streams,
    autoregressive,
    changed,
    class_mix,
    counted,
    in_file_order,
    normal,
    null_counts,
    seasonal,
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def features_of(counts):
    """The references again, as features; where their edges lie changes no statistic."""
    for reference, slots in zip(counts.references, counts.slots, strict=True):
        edges = tuple(float(edge) for edge in range(slots - 3))
        yield Feature("x", edges, tuple(reference[:slots].tolist()))


# --- the mirror is the detector -------------------------------------------------------------------


def test_the_mirror_says_of_fifty_streams_what_the_detector_of_a_device_says(rng):
    streams = changed(normal(5, 200, 50, rng), CHANGES["+0.3 sd"], rng, 80)
    counts = counted(streams)
    mirrored = ln_e(counts.references, counts.windows, counts.slots)
    profile = Profile(5000, tuple(features_of(counts)))
    tables = [
        tuple(tuple(each) for each in window.tolist()) for window in counts.windows.swapaxes(0, 1)
    ]
    windows = [DriftWindow(MANIFEST, PROFILE, 50, table) for table in tables]
    real = np.array([stepped.ln_e for stepped in edetector.run(profile, windows)]).T
    assert mirrored.shape == real.shape == (50, 200)
    assert np.abs(mirrored - real).max() < 1e-9


def test_the_mirror_takes_features_of_different_numbers_of_slots(rng):
    rows = rng.integers(0, 4, (1, 70, 60)).astype(np.float32)
    wide, narrow = normal(1, 70, 60, rng), np.sort(rng.integers(0, 4, 900)).astype(np.float32)
    streams = Streams(
        np.stack([wide.reference[0, :900], narrow]),
        np.concatenate([wide.rows[:1], rows]),
        np.zeros(2, np.bool_),
    )
    counts = counted(streams)
    assert counts.slots[0] != counts.slots[1]
    mirrored = ln_e(counts.references, counts.windows, counts.slots)
    for stream, feature in enumerate(features_of(counts)):
        bets, state = [edetector.bets_of(feature)], edetector.DetectorState()
        for window in range(70):
            table = [tuple(counts.windows[stream, window, : feature.slots].tolist())]
            stepped = edetector.step(bets, state, table)
            state = stepped.state
            assert mirrored[stream, window] == pytest.approx(stepped.ln_e[0], abs=1e-9)
        assert Mirror(counts.references, counts.slots).vif.shape == (2,)


def test_evidence_has_a_cap_and_small_windows_are_refused(rng):
    references, _ = null_counts(3, 1, 50, rng)
    mirror = Mirror(references)
    gross = np.zeros_like(references)
    gross[:, -1] = 5000
    said_of_it = [mirror.step(gross) for _ in range(3)]
    assert np.isfinite(said_of_it).all()
    assert said_of_it[-1].max() <= edetector.CAP
    with pytest.raises(ValueError, match="20"):
        mirror.step(gross // 1000)


# --- streams --------------------------------------------------------------------------------------


def test_counts_hold_every_row_once(rng):
    streams = changed(normal(2, 12, 50, rng), CHANGES["5 % missing"], rng, 4)
    counts = counted(streams)
    assert (counts.windows.sum(axis=2) == 50).all()
    assert (counts.references.sum(axis=1) == streams.reference.shape[1]).all()
    # NaN has the last slot.
    lost = np.isnan(streams.rows).sum(axis=2)
    assert lost[:, :4].sum() == 0
    assert lost[0, 4:].sum() > 0
    assert (counts.windows[..., -1] == lost).all()


def test_only_the_first_stream_of_a_device_changes_and_only_from_the_onset_on(rng):
    plain = normal(2, 10, 50, rng)
    for name, change in CHANGES.items():
        streams = changed(plain, change, rng, 6)
        same = (streams.rows == plain.rows).all(axis=2)
        assert np.flatnonzero(streams.changed).tolist() == [0, FAMILY], name
        assert same[:, :6].all(), name
        assert same[~streams.changed].all(), name
        # 5 % of 50 rows may be none.
        assert not same[streams.changed, 6:].all(axis=1).any(), name


def test_counts_drawn_without_rows_are_those_of_rows(rng):
    references, drawn = null_counts(40, 50, 200, rng)
    from_rows = counted(normal(4, 50, 200, rng))
    shares = np.stack(list(drawn)).mean(axis=(0, 1)) / 200
    assert references.shape[1] == from_rows.references.shape[1]
    assert shares == pytest.approx(from_rows.windows.mean(axis=(0, 1)) / 200, abs=0.003)
    assert shares[1:-3] == pytest.approx(0.1, abs=0.003)


def test_autoregressive_rows_have_their_correlation_and_the_reference_s_spread(rng):
    streams = autoregressive(0.9, 2, 40, 50, rng)
    flat = streams.rows.reshape(len(streams.rows), -1)
    one_on = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in flat]
    assert np.mean(one_on) == pytest.approx(0.9, abs=0.03)
    assert flat.std() == pytest.approx(1, abs=0.1)


def test_a_season_is_in_the_reference_as_well(rng):
    streams = seasonal(2, 48, 200, rng)
    by_hour = streams.rows.mean(axis=(0, 2))
    assert by_hour[6] == pytest.approx(0.7, abs=0.1)
    assert by_hour[30] == pytest.approx(0.7, abs=0.1)
    assert streams.reference.std() == pytest.approx(math.sqrt(1 + 0.7**2 / 2), abs=0.02)


def test_a_table_comes_in_its_order_and_is_its_own_reference():
    table = np.arange(30.0).reshape(15, 2)
    streams = in_file_order(table, 3, 10)
    assert streams.rows[0].ravel().tolist() == [table[n % 15, 0] for n in range(30)]
    assert streams.reference[1].tolist() == table[:, 1].tolist()
    assert streams.family == 2


def test_twice_as_many_zeros_among_the_digits(rng):
    streams = class_mix(1, 104, 500, rng)
    assert streams.family == len(streams.rows)
    before, after = streams.rows[:, :100].mean(axis=(1, 2)), streams.rows[:, 100:].mean(axis=(1, 2))
    # Zeros have an empty middle: the largest fall of all is there.
    names = np.argsort(after - before)
    assert streams.onset == 100
    assert (before - after)[names[0]] > 0.5


# --- rules of others ------------------------------------------------------------------------------


@pytest.fixture
def mixed(rng):
    return changed(normal(1, 8, 50, rng), CHANGES["+0.6 sd"], rng, 4)


def test_chi_square_is_the_control_plane_s_two_sample_test(mixed):
    counts = counted(mixed)
    p = chi_square_p(counts)
    for stream, reference in enumerate(counts.references.tolist()):
        for window in range(8):
            table = counts.windows[stream, window].tolist()
            assert p[stream, window] == pytest.approx(two_sample(table, reference).p, rel=1e-9)


def test_ks_is_scipy_s_also_with_equal_rows(mixed):
    rows = mixed.rows.copy()
    rows[0] = rows[0].round(1)
    reference = mixed.reference.copy()
    reference[0] = np.sort(reference[0].round(1))
    p = ks_p(Streams(reference, rows, mixed.changed))
    for stream in (0, 1):
        for window in range(8):
            exact = stats.ks_2samp(rows[stream, window], reference[stream], method="asymp")
            assert p[stream, window] == pytest.approx(exact.pvalue, rel=0.02)


def test_psi_is_the_sum_over_slots_with_a_floor(mixed):
    counts = counted(mixed)
    window, reference = counts.windows[0, 5] / 50, counts.references[0] / 5000
    p, q = np.maximum(window, 1e-4), np.maximum(reference, 1e-4)
    assert psi(counts)[0, 5] == pytest.approx(float(((p - q) * np.log(p / q)).sum()))


def test_benjamini_and_hochberg_per_window_and_device(rng):
    p = rng.random((2 * FAMILY, 5)) ** 4
    calls = benjamini_hochberg(p, FAMILY)
    for first in (0, FAMILY):
        for window in range(5):
            own = p[first : first + FAMILY, window]
            expected = stats.false_discovery_control(own) <= LEVEL
            assert calls[first : first + FAMILY, window].tolist() == expected.tolist()


def test_the_peers_side_alarms_where_its_detectors_do():
    measure = load_measure()

    class Above:
        drift_detected = False

        def update(self, value):
            self.drift_detected = value > 2

    measure.detector = lambda _: Above()
    rows = np.zeros((1, 3, 4), np.float32)
    rows[0, 1] = [0, 3, np.nan, 0]
    assert measure.alarms(["any"], rows).tolist() == [[[False, True, False]]]


def test_the_peers_side_says_what_can_be_imported_and_knows_no_other_question():
    command = [sys.executable, str(MEASURE)]
    known = subprocess.run([*command, "versions"], check=True, capture_output=True, text=True)
    assert isinstance(json.loads(known.stdout), dict)
    assert subprocess.run([*command, "nonsense"], capture_output=True).returncode != 0


# --- quality --------------------------------------------------------------------------------------


def test_false_alarms_are_counted_before_the_change_and_delays_after_it():
    alarms = np.zeros((2, 10), np.bool_)
    alarms[0, [1, 2, 4, 8]] = True
    rows = np.zeros((2, 10, 1), np.float32)
    streams = Streams(rows[:, 0], rows, np.array([True, True]), 6, 1)
    found = Said()
    found.add(streams, alarms)
    assert (found.windows, found.alarmed, found.ever) == (12, 3, 1)
    assert found.delays == [3.0, math.inf]
    assert found.delay is None
    assert found.found == 0.5


def test_whatever_column_of_a_device_tells_first_is_when_it_is_found():
    alarms = np.zeros((2, 4), np.bool_)
    alarms[1, 2:] = True
    rows = np.zeros((2, 4, 1), np.float32)
    found = Said()
    found.add(Streams(rows[:, 0], rows, np.array([True, True]), 1, 2), alarms)
    assert found.delays == [2.0]


def test_a_gross_fault_is_found_at_once_and_nothing_alarms_where_nothing_changes(rng):
    every = {each.what: each for each in scenarios(2, 120) if each.n == 50}
    found = said(every["stuck"], rng, None)
    assert set(found) == {*DETECTORS, *RULES}
    assert all(found[name].delay == 1 for name in DETECTORS)
    rows = list(rows_of(every["stuck"], found))
    assert [row.ok for row in rows if row.goal] == [True]
    null = said(every["nothing changes"], rng, None)
    assert [null[name].ever for name in DETECTORS] == [0, 0, 0]
    assert null["PSI > 0.2"].a_year > 1e6


def test_every_scenario_can_be_made_and_has_rows_of_its_own(rng):
    names = []
    for each in scenarios(1, 102):
        if each.n == 50:
            streams = each.make(1, rng)
            assert streams.rows.shape == (streams.family, each.windows, each.n)
            assert streams.family <= each.wide
        delays = [math.inf] if "sd" in each.what else []
        stub = {name: Said(1, 1, delays=delays) for name in (*DETECTORS, *RULES)}
        names += [(row.what, row.against) for row in rows_of(each, stub)]
    assert len(set(names)) == len(names)


def test_scenarios_are_made_in_parts_where_there_are_many_devices(rng, monkeypatch):
    monkeypatch.setattr("tests.bench.drift_quality.MOST_ROWS", 2 * FAMILY * 5 * 50)
    made = []

    def make(devices, its):
        made.append(devices)
        return normal(devices, 5, 50, its)

    found = said(Scenario("x", 50, make, 5, 5, rivals=False), rng, None)
    assert made == [2, 2, 1]
    assert found["ours"].streams == 5 * FAMILY


def test_the_highest_evidence_of_streams_that_never_change_is_low():
    ever, settled = highest(20, 80, 50, (1, 2))
    assert (settled <= ever).all()
    assert ever.max() < edetector.DEFAULT_THRESHOLD
    rows = list(null_rows(20, 80, 10, 1))
    assert all(row.ok for row in rows if row.goal)
    assert sum("highest" in row.what for row in rows) == 2


@pytest.mark.parametrize("seen, of, bound", [(0, 5000, 6e-4), (0, 59, 0.0496), (3, 3, 1.0)])
def test_upper_bounds(seen, of, bound):
    assert at_most(seen, of) == pytest.approx(bound, rel=0.02)


# --- fleets ---------------------------------------------------------------------------------------


def test_a_fleet_s_devices_see_what_their_kind_says(rng):
    fleet = Fleet.of(Kind("x", broken=1, shift=2.0, devices=3), rng)
    assert fleet.shares.sum(axis=1) == pytest.approx(1)
    table = fleet.window(1000, rng)
    assert (table.sum(axis=1) == 1000).all()
    # Two deviations up is beyond the ninth decile for three of four rows.
    assert table[0, 10:].sum() > 600
    assert table[1, 10:].sum() < 200


def test_one_broken_device_is_found_and_nobody_else_blamed(rng):
    found = blamed(Kind("x", broken=1, shift=2.0, devices=20), 2, rng)
    assert (found.broken, found.of_broken) == (2, 2)
    assert (found.healthy, found.of_healthy) == (0, 38)


def test_a_cohort_that_moved_is_called_and_one_that_did_not_is_not(rng):
    rows = 1200
    assert called(Kind("x", all_by=0.4, devices=20, rows=rows), 3, rng).called == 3
    still = called(Kind("x", devices=20, rows=rows), 3, rng)
    assert (still.called, still.parts, still.fleets) == (0, 0, 3)
    half = called(Kind("x", broken=12, shift=0.8, devices=24, rows=rows), 3, rng)
    assert (half.parts, half.named) == (3, 3)


def test_detectors_of_a_fleet_that_is_like_its_reference_stay_quiet(rng, monkeypatch):
    monkeypatch.setattr("tests.bench.drift_fleets.WINDOWS", 80)
    quiet = alone(Kind("x", rows=50, devices=14), 1, rng)
    assert (quiet.devices, quiet.fired, quiet.told) == (14, 0, 0)
    moved = alone(Kind("x", broken=1, shift=2.0, rows=50, devices=14), 1, rng)
    assert (moved.of_broken, moved.broken_told, moved.told) == (1, 1, 0)


def test_rows_of_fleets_have_names_of_their_own(monkeypatch):
    for name, kinds in (("PEERS", 2), ("COHORTS", 1), ("ALONE", 1)):
        module = "tests.bench.drift_fleets."
        few = getattr(importlib.import_module(module[:-1]), name)[:kinds]
        monkeypatch.setattr(module + name, few)
    monkeypatch.setattr("tests.bench.drift_fleets.WINDOWS", 70)
    rows = fleet_rows(1, 3)
    assert len({row.what for row in rows}) == len(rows)
    assert sum(bool(row.goal) for row in rows) == 1


# --- cost -----------------------------------------------------------------------------------------


def test_what_is_timed_is_counted():
    watching = Watching.of(5, answers=True, residual=True)
    assert watching.profile.residual is not None
    window = watching.window(50, np.random.default_rng(1))
    assert window.rows == 50
    assert {sum(each) for each in (*window.counts, window.residual)} == {50}


class _Fixed(Others):
    """Peers that need no process."""

    def __init__(self, costs):
        self.known = {who: who for who in costs}
        self._costs = costs

    def block(self, who, features, rows, calls):
        assert calls >= 1
        return self._costs[who] if rows == 1 or who == "KLL" else None


def test_the_fastest_peer_is_the_one_that_counts_and_some_take_no_batches():
    rows = list(cost_rows((4,), (1, 32), 2, _Fixed({"KLL": 1e6, "ddsketch": 2e6})))
    one = [row for row in rows if row.peer and "1 row at" in row.what]
    assert [(row.against, row.goal, row.ok) for row in one] == [
        ("KLL", "<= 0.5 x", True),
        ("KLL", "", None),
        ("ddsketch", "", None),
    ]
    assert len({row.what for row in one[:2]}) == 2
    assert {row.against for row in rows if row.peer and "32 rows" in row.what} == {"KLL"}
    assert all(row.ours and row.ours > 0 for row in rows)


def test_a_window_of_thirty_features_has_its_goal_in_bytes():
    rows = list(byte_rows((BYTES_FEATURES,), Installed()))
    assert [row.ok for row in rows if row.goal] == [True, True]
    sizes = {row.what.rpartition(": ")[2]: row.ours or 0 for row in rows[:4]}
    assert sizes["binary"] < sizes["zstd JSON"] < sizes["JSON"]
    assert sizes["binary, 24 in one message"] < sizes["binary"]


def test_detector_and_memory_have_figures():
    detector, memory = list(detector_rows((3,), 1)), list(memory_rows((3,), Installed()))
    assert all(row.ours and row.ours > 0 for row in (*detector, *memory))
    assert [row.unit for row in detector] == ["µs CPU", "bytes"]


def load_measure():
    spec = importlib.util.spec_from_file_location("measure", Path(MEASURE))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

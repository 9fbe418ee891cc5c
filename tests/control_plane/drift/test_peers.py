"""Devices against their peers: against scipy, and over fleets whose devices differ harmlessly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from control_plane.drift import peers
from control_plane.drift.distance import grouped
from protocol.members import Feature
from tests.fakes.columns import counted, devices, reference

TEMPERATURE = reference()


def fleet(columns):
    """Devices of one column, by id."""
    return {f"local-{number:03d}": (counts,) for number, counts in enumerate(columns)}


def blamed(compared, p=5.6e-5):
    return [peer.device for peer in compared.found if peer.p < p]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.integers(20, 90), min_size=6, max_size=6), min_size=5, max_size=8
    )
)  # fmt: skip
def test_the_statistic_is_scipy_s_contingency_test_where_nothing_is_merged(rows):
    table = np.array(rows, float)
    merged = [np.array([slot]) for slot in range(6)]
    parts, freedoms = peers.partition(table, merged)
    assert freedoms == [1, 1, 3]
    for number, row in enumerate(table):
        others = table.sum(axis=0) - row
        expected = stats.chi2_contingency([row, others], correction=False)
        assert parts[:, number].sum() == pytest.approx(expected.statistic)


@pytest.mark.parametrize("slots, freedoms", [(2, [1]), (3, [1, 1]), (4, [1, 1, 1])])
def test_few_slots_have_fewer_parts(slots, freedoms):
    rng = np.random.default_rng(2)
    table = rng.multinomial(200, np.full(slots, 1 / slots), size=9).astype(float)
    parts, found = peers.partition(table, [np.array([slot]) for slot in range(slots)])
    assert (found, parts.shape) == (freedoms, (len(freedoms), 9))
    whole = stats.chi2_contingency([table[0], table[1:].sum(axis=0)], correction=False)
    assert parts[:, 0].sum() == pytest.approx(whole.statistic)


def test_a_shift_is_in_the_part_of_location_and_a_gain_in_that_of_spread():
    rng = np.random.default_rng(4)
    table = np.array(
        devices(rng, 2000, [0.0] * 20 + [0.3, 0.0], [1.0] * 21 + [1.3]), float
    )  # fmt: skip
    parts, _ = peers.partition(table, grouped(table.sum(axis=0), 2000.0))
    shift, gain = parts[:, -2], parts[:, -1]
    assert shift[0] > 10 * shift[1:].max()
    assert gain[1] > 3 * max(gain[0], gain[2])


@pytest.mark.parametrize("g, nu", [(1.0, 9.0), (4.0, 9.0), (3.0, 4.0), (20.0, 1.5)])
def test_the_fitted_scale_recovers_a_scaled_chi_square(g, nu):
    statistic = g * np.random.default_rng(5).chisquare(nu, size=20_000)
    scale = peers.fitted(statistic, 9)
    assert scale.g == pytest.approx(g, rel=0.12)
    assert scale.nu == pytest.approx(nu, rel=0.12)
    assert (scale.df, scale.devices) == (9, 20_000)


def test_devices_that_differ_less_than_by_chance_are_not_stretched():
    statistic = np.full(50, 2.0)
    scale = peers.fitted(statistic, 9)
    assert scale.g == 1.0
    assert scale.nu == pytest.approx(9.0)


def test_below_twelve_devices_only_the_median_is_used():
    statistic = np.array([8.0, 9.0, 10.0, 11.0, 400.0, 500.0, 600.0])
    scale = peers.fitted(statistic, 9)
    assert scale.nu == 9.0
    assert scale.g == pytest.approx(11.0 / stats.chi2.median(9))


def test_without_differences_small_p_are_at_most_as_frequent_as_they_say():
    rng = np.random.default_rng(6)
    fleets, size = 100, 100
    found = [
        peer.p
        for _ in range(fleets)
        for peer in peers.compare((TEMPERATURE,), fleet(devices(rng, 50, [0.0] * size)), 0.01).found
    ]
    for level in (0.01, 0.001):
        count = sum(p < level for p in found)
        assert count <= stats.binom.isf(1e-6, fleets * size, level)


@pytest.mark.parametrize("rows", [500, 5000])
def test_benign_offsets_of_a_fifth_deviation_blame_at_most_3_of_1000_devices(rows):
    """However many rows show what offsets bring with them."""
    rng = np.random.default_rng(7)
    fleets, size = 40, 100
    count = sum(
        len(blamed(peers.compare((TEMPERATURE,), fleet(devices(rng, rows, offsets)))))
        for offsets in rng.normal(size=(fleets, size)) * 0.2
    )
    assert count <= 0.003 * fleets * size


def test_few_peers_with_benign_offsets_are_hardly_blamed_either():
    rng = np.random.default_rng(8)
    fleets = 150
    count = sum(
        len(blamed(peers.compare((TEMPERATURE,), fleet(devices(rng, 500, offsets)))))
        for offsets in rng.normal(size=(fleets, 6)) * 0.2
    )
    assert count <= 0.01 * fleets * 6


@pytest.mark.parametrize("size", [6, 12, 100])
def test_one_sensor_at_two_deviations_is_found_and_its_peers_are_not(size):
    rng = np.random.default_rng(9)
    offsets = rng.normal(size=size) * 0.05
    offsets[3] = 2.0
    compared = peers.compare((TEMPERATURE,), fleet(devices(rng, 200, offsets)))
    assert blamed(compared) == ["local-003"]
    (peer,) = compared.found[:1]
    assert (peer.index, peer.rows, peer.outside) == (0, 200, False)
    assert peer.psi > 1
    assert len(compared.judged) == size


def test_two_sensors_that_are_wrong_do_not_hide_each_other():
    rng = np.random.default_rng(19)
    offsets = np.zeros(12)
    offsets[[2, 7]] = 1.5, -1.5
    compared = peers.compare((TEMPERATURE,), fleet(devices(rng, 300, offsets)))
    assert sorted(blamed(compared)) == ["local-002", "local-007"]


def test_a_stuck_sensor_is_found_among_few_peers():
    rng = np.random.default_rng(10)
    columns = devices(rng, 100, [0.0] * 5)
    columns[2] = counted(np.full(100, 0.3))
    assert blamed(peers.compare((TEMPERATURE,), fleet(columns))) == ["local-002"]


def test_half_a_cohort_that_moved_is_nobody_s_fault():
    rng = np.random.default_rng(11)
    compared = peers.compare((TEMPERATURE,), fleet(devices(rng, 200, [0.0] * 12 + [0.6] * 12)))
    assert blamed(compared) == []


def test_what_all_devices_see_at_night_is_no_difference():
    rng = np.random.default_rng(12)
    compared = peers.compare((TEMPERATURE,), fleet(devices(rng, 200, [-1.5] * 30)))
    assert compared.found == ()


def test_four_devices_are_not_compared():
    rng = np.random.default_rng(13)
    columns = devices(rng, 200, [0.0, 0.0, 0.0, 3.0])
    assert peers.compare((TEMPERATURE,), fleet(columns)) == peers.Compared(
        (), (), (peers.Scale(1.0, 0.0, 0, 0),)
    )


def test_a_device_with_few_rows_is_neither_judged_nor_in_the_pool():
    rng = np.random.default_rng(14)
    columns = devices(rng, 200, [0.0] * 6)
    small = fleet(columns) | {"local-small": (counted(np.full(49, 3.9)),)}
    assert peers.compare((TEMPERATURE,), small) == peers.compare((TEMPERATURE,), fleet(columns))


def test_missing_values_are_seen_although_their_slot_is_small():
    rng = np.random.default_rng(15)
    values = rng.normal(size=(40, 200))
    values[7, :12] = np.nan
    compared = peers.compare((TEMPERATURE,), fleet(map(counted, values)))
    assert blamed(compared) == ["local-007"]
    (peer,) = compared.found
    assert peer.outside
    bad = [sum(counted(row)[slot] for slot in TEMPERATURE.outside) for row in values]
    exact = stats.hypergeom.sf(bad[7] - 1, values.size, sum(bad), 200)
    assert peer.p == pytest.approx(2 * exact)


def test_devices_that_miss_values_at_different_rates_are_not_blamed_for_it():
    rng = np.random.default_rng(16)
    values = rng.normal(size=(60, 1000))
    for row, share in zip(values, rng.uniform(0.02, 0.2, size=60), strict=True):
        row[rng.random(1000) < share] = np.nan
    assert blamed(peers.compare((TEMPERATURE,), fleet(map(counted, values)))) == []


def test_p_does_not_depend_on_how_much_is_reported():
    rng = np.random.default_rng(17)
    values = rng.normal(size=(20, 300)) + rng.normal(size=(20, 1)) * 0.3
    values[3, :20] = np.nan
    values[5] += 1.5
    whole = {peer.device: peer for peer in compared_at(values, 2.0).found}
    assert len(whole) == 20
    for level in (0.5, 1e-3, 1e-6):
        found = compared_at(values, level).found
        assert {peer.device: peer for peer in found} == {
            name: peer for name, peer in whole.items() if peer.p < level
        }


def compared_at(values, report):
    return peers.compare((TEMPERATURE,), fleet(map(counted, values)), report)


def test_several_streams_are_judged_each_by_itself():
    rng = np.random.default_rng(18)
    flat = Feature("flat", (1.0, 1.5), (0, 5000, 0, 0, 0))
    words = Feature("city", counts=(2500, 2500, 0, 0), kind="words", words=("a", "b"))
    columns = devices(rng, 100, [0.0] * 15)
    cities = [(int(n), 100 - int(n), 0, 0) for n in rng.binomial(100, 0.5, size=15)]
    cities[4] = (0, 30, 70, 0)
    tables = {
        f"local-{n:03d}": (columns[n], (0, 100, 0, 0, 0), cities[n], () if n < 12 else columns[n])
        for n in range(15)
    }
    compared = peers.compare((TEMPERATURE, flat, words, TEMPERATURE), tables)
    assert [(peer.device, peer.index) for peer in compared.found] == [("local-004", 2)]
    # The third slot of words is one that only the device with the finding has.
    assert [scale.df for scale in compared.scales[1:]] == [0, 1, 0]
    assert [scale.devices for scale in compared.scales] == [15, 15, 15, 0]


def test_counts_of_other_slots_do_not_compare():
    with pytest.raises(ValueError, match="another profile"):
        peers.compare((TEMPERATURE,), {f"local-{n}": ((60, 60),) for n in range(6)})


@pytest.mark.parametrize(
    "hits, few, said",
    [
        ((), False, False),
        ((True,), False, False),
        ((True, True), False, True),
        ((True, False, True), False, True),
        ((True, True, False, False), False, False),
        ((True, True), True, False),
        ((True, False, True), True, False),
        ((False, True, True, True), True, True),
    ],
)
def test_a_device_has_to_stand_out_in_two_of_its_last_three_slots(hits, few, said):
    assert peers.broken(hits, few=few) is said

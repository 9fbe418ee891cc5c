import json
from dataclasses import replace

import pytest

from control_plane.drift import peers, robust
from control_plane.drift.measuring import Family, features_of
from control_plane.drift.record import query_of, replay, rule_in, sealed
from control_plane.drift.windows import by_device, by_slot, placed, streams_of
from protocol import edetector
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import digest_of
from tests.control_plane.drift.found import (
    HOUR_MS,
    TERMS,
    a_profile,
    a_record,
    fleet,
    windows,
)

BROKEN = "north-cam-3"
FAMILY = Family(1e-3, 6, TERMS.cohort_q)


def a_broken_device():
    profile = a_profile()
    rows = windows(fleet(20, cam_3=(1.5, 0, 0)))
    return (*a_record("peer", BROKEN, rows, profile), rows, profile)


def a_drifted_device(hours: int = 90):
    profile = a_profile()
    rows = windows({BROKEN: (0, 0.6, 0)}, hours=hours, rows=50, offset=0)
    return (*a_record("detector", BROKEN, rows, profile, hours=hours), rows, profile)


def a_drifted_cohort():
    profile = a_profile()
    rows = windows(fleet(12, **{f"cam_{n}": (0, 0, 0.5) for n in range(12)}))
    record, measured = a_record("cohort", "site=b", rows, profile, family=FAMILY)
    return record, measured, rows, profile


def a_split_cohort():
    profile = a_profile()
    rows = windows(fleet(16, **{f"cam_{n}": (1, 0, 0) for n in range(8)}))
    record, measured = a_record("part", "site=b", rows, profile, family=FAMILY)
    return record, measured, rows, profile


FOUND = {
    "detector": a_drifted_device,
    "peer": a_broken_device,
    "cohort": a_drifted_cohort,
    "part": a_split_cohort,
}


def again(record):
    """As it comes back from where it is kept."""
    return json.loads(sealed(record, "alarm-1")[1])


# --- what is recorded ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOUND)
def test_each_kind_is_found_and_recomputed_from_what_the_store_has(kind):
    record, measured, rows, profile = FOUND[kind]()
    assert measured.beyond

    replayed = replay(again(record), reversed(rows), profile)
    assert replayed.same
    assert replayed.said == f"recomputed from {len(rows)} stored windows: same"
    assert replayed.measured.statistic == measured.statistic
    assert replayed.measured.course
    assert replayed.measured.shown


def test_a_detector_is_run_as_the_device_ran_it():
    _, measured, rows, profile = a_drifted_device()
    steps = list(edetector.run(profile, (row.body for row in rows)))
    (first, *_) = measured.statistic["features"]
    assert first["name"] == "pressure"
    assert first["ln_e"] == steps[-1].ln_e[1]
    assert first["t"] == 90
    assert first["vif"] == steps[-1].state.streams[1].vif
    assert [point.value for point in measured.course] == [step.ln_e[1] for step in steps]


def test_a_detector_that_began_anew_is_run_from_there():
    profile = a_profile()
    before = windows({BROKEN: (2, 0, 0)}, hours=5, rows=50)
    after = windows({BROKEN: (0, 0, 0)}, hours=5, rows=50, first=5, seed=3, offset=0)
    _, measured = a_record("detector", BROKEN, [*before, *after], profile, hours=10)
    assert {each["t"] for each in measured.statistic["features"]} == {5}
    assert len(measured.course) == 5


def test_a_window_without_histograms_steps_nothing():
    profile = a_profile()
    rows = windows({BROKEN: (0, 0, 0)}, hours=6, rows=50)
    bare = replace(rows[3], body=replace(rows[3].body, counts=()))
    _, measured = a_record("detector", BROKEN, [*rows[:3], bare, *rows[4:]], profile, hours=6)
    assert measured.windows == 5
    assert measured.statistic["features"][0]["t"] == 5


def test_a_device_is_compared_as_peers_are():
    _, measured, rows, profile = a_broken_device()
    record, _, _, _ = a_broken_device()
    slots = by_slot(profile, query_of(again(record)), rows)
    for told in measured.statistic["slots"]:
        compared = peers.compare(streams_of(profile), slots[told["slot"]])
        mine = [peer for peer in compared.found if peer.device == BROKEN and peer.p < TERMS.peer_p]
        assert [each["index"] for each in told["features"]] == sorted(p.index for p in mine)
        for each, peer in zip(told["features"], sorted(mine, key=lambda p: p.index), strict=True):
            assert each["p"] == peer.p
            assert each["statistic"] == peer.statistic


def test_the_last_three_slots_of_a_device_are_its_own():
    """It was not there for a day: what it did before counts, what others did meanwhile does not."""
    profile = a_profile()
    rows = windows(fleet(20, cam_3=(1.5, 0, 0)), hours=30, rows=60)
    rows = [row for row in rows if row.device != BROKEN or row.lo in (0, 1, 2, 28, 29)]
    _, measured = a_record("peer", BROKEN, rows, profile, hours=30)
    assert [each["slot"] for each in measured.statistic["slots"]] == [2, 28, 29]


def test_a_block_longer_than_two_slots_is_not_compared_within_a_slot():
    profile = a_profile()
    rows = windows(fleet(20, cam_3=(1.5, 0, 0)))
    long = [replace(row, t0_ms=row.t0_ms - 3 * HOUR_MS) if row.lo == 1 else row for row in rows]
    _, measured = a_record("peer", BROKEN, long, profile, from_ms=-9 * HOUR_MS)
    assert len(measured.statistic["slots"]) == 2


def test_a_cohort_is_tested_by_devices_over_the_whole_day():
    _, measured, rows, profile = a_drifted_cohort()
    days = by_device(profile, rows)
    tests = robust.test(streams_of(profile), [days[device] for device in sorted(days)])
    told = {each["index"]: each for each in measured.statistic["features"]}
    assert {index: each["p"] for index, each in told.items()} == {t.index: t.p for t in tests}
    assert measured.statistic["features"][0]["name"] == "flow"
    assert (measured.statistic["cut"], measured.statistic["family"]) == (1e-3, 6)


def test_devices_that_are_left_out_are_not_in_the_cohort():
    _, measured, rows, profile = a_drifted_cohort()
    record, fewer = a_record(
        "cohort", "site=b", rows, profile, family=FAMILY, left_out=("north-cam-0", "north-cam-1")
    )
    assert (measured.devices, fewer.devices) == (12, 10)
    assert replay(again(record), rows, profile).same


def test_the_part_that_moved_is_named():
    _, measured, _, _ = a_split_cohort()
    (first, *_) = measured.statistic["features"]
    assert (first["low"], first["high"], first["drifted"]) == (8, 8, "high")
    assert first["moved"] == [f"north-cam-{n}" for n in range(8)]


def test_a_small_cohort_is_called_by_what_its_devices_say():
    profile = a_profile()
    rows = windows(fleet(3, **{f"cam_{n}": (0, 0.8, 0) for n in range(3)}), hours=80, rows=50)
    record, measured = a_record("cohort", "site=b", rows, profile, hours=80, by_detectors=True)
    assert measured.beyond
    assert [each["device"] for each in measured.statistic["devices"]] == sorted(fleet(3))
    assert replay(again(record), rows, profile).same


@pytest.mark.parametrize(
    "kind, names",
    [
        ("detector", ["pressure"]),
        ("peer", ["temperature"]),
        ("cohort", ["flow"]),
        ("part", ["temperature"]),
    ],
)
def test_the_features_of_a_finding_are_those_beyond_its_threshold(kind, names):
    record, measured, _, _ = FOUND[kind]()
    found = features_of(rule_in(again(record)), measured.statistic)
    assert [each.name for each in found] == names


def test_windows_of_other_bins_are_left_out():
    _, measured, rows, profile = a_broken_device()
    odd = replace(rows[0], epoch=9, body=replace(rows[0].body, counts=((1, 2),)))
    record, _ = a_record("peer", BROKEN, rows, profile)
    assert len(placed(query_of(again(record)), profile, [*rows, odd])) == measured.windows


# --- how it is kept ------------------------------------------------------------------------------


def test_a_record_is_kept_under_the_digest_of_its_text_behind_the_one_before():
    record, *_ = a_broken_device()
    digest, text = sealed(record, "alarm-17", "sha256-" + "0" * 64)
    assert digest == digest_of(text.encode())
    kept = json.loads(text)
    assert (kept["alarm"], kept["previous"]) == ("alarm-17", "sha256-" + "0" * 64)
    assert kept["threshold"] == {"unit": "p", "value": TERMS.peer_p}
    assert kept["budget"]["share"] == 0.25


def test_a_query_of_very_many_devices_names_none(monkeypatch):
    monkeypatch.setattr("control_plane.drift.record.MOST_DEVICES", 5)
    profile, devices = a_profile(), fleet(12)
    rows = windows(devices)
    record, _ = a_record(
        "cohort", "site=b", rows, profile, family=FAMILY, devices=tuple(devices), by="site"
    )
    assert query_of(again(record)).devices is None


# --- what a replay tells -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOUND)
@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record["threshold"].update(value=record["threshold"]["value"] / 2),
        lambda record: record["budget"].update(per_year=5.0),
        lambda record: record["budget"].update(share=0.75),
        lambda record: next(iter(_features(record))).update(psi=2.0),
    ],
)
def test_an_edited_record_is_told(kind, edit):
    record, _, rows, profile = FOUND[kind]()
    kept = again(record)
    edit(kept)
    replayed = replay(kept, rows, profile)
    assert not replayed.same
    assert replayed.said.endswith("it differs; the record is not what was found")


def _features(record):
    statistic = record["statistic"]
    return statistic["slots"][0]["features"] if "slots" in statistic else statistic["features"]


def test_a_tiny_p_is_not_any_tiny_p():
    record, _, rows, profile = a_broken_device()
    kept = again(record)
    _features(kept)[0]["p"] *= 1.5
    assert not replay(kept, rows, profile).same


def test_edited_counts_in_the_store_are_told():
    record, _, rows, profile = a_broken_device()
    first = rows[0].body.counts[0]
    counts = ((first[0] + 1, *first[1:]), *rows[0].body.counts[1:])
    rows[0] = replace(rows[0], body=replace(rows[0].body, counts=counts))
    replayed = replay(again(record), rows, profile)
    assert not replayed.same
    assert replayed.said == "the counts of 60 stored windows are not those that it was found in"


def test_windows_that_came_later_change_nothing():
    record, _, rows, profile = a_broken_device()
    late = windows({"north-late": (3, 3, 3)}, seed=9)
    late = [replace(row, c=2_000_000) for row in late]
    assert replay(again(record), [*rows, *late], profile).same


def test_coarser_windows_are_told_and_change_no_verdict_silently():
    record, _, rows, profile = a_drifted_device()
    block = [row for row in rows if 0 <= row.lo < 8]
    body = block[0].body
    for row in block[1:]:
        counts = tuple(
            tuple(a + b for a, b in zip(x, y, strict=True))
            for x, y in zip(body.counts, row.body.counts, strict=True)
        )
        body = replace(body, rows=body.rows + row.n, counts=counts, looks=8)
    merged = replace(block[0], hi=7, t1_ms=block[-1].t1_ms, n=body.rows, c=2_000_000, body=body)
    replayed = replay(again(record), [merged, *rows[8:]], profile)
    assert not replayed.same
    assert replayed.said == (
        "8 of 90 stored windows are gone or were merged since; what is there now is still beyond "
        "the threshold"
    )


def test_windows_that_are_gone_are_said_to_be():
    record, _, rows, profile = a_drifted_device()
    replayed = replay(again(record), rows[:10], profile)
    assert replayed.said.startswith("80 of 90 stored windows are gone")
    assert replayed.said.endswith("no longer beyond the threshold")
    with pytest.raises(InvalidRequest, match="none of 90 stored windows is left") as caught:
        replay(again(record), [], profile)
    assert caught.value.code == "OUT-D611"


def test_other_rules_are_no_accusation():
    record, _, rows, profile = a_broken_device()
    kept = again(record) | {"rules": "0"}
    _features(kept)[0]["psi"] = 2.0
    replayed = replay(kept, rows, profile)
    assert replayed.said == "found by rules 0; by today's rules 1 it is another"


@pytest.mark.parametrize(
    "lacks", ["kind", "subject", "threshold", "statistic", "query", "windows", "budget", "v"]
)
def test_what_is_no_record_is_refused(lacks):
    record, _, rows, profile = a_broken_device()
    kept = again(record)
    del kept[lacks]
    with pytest.raises(PeerError):
        replay(kept, rows, profile)

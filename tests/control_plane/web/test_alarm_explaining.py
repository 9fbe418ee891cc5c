"""An alarm is explained from what the store has, and from nothing else."""

import json
from xml.etree import ElementTree

import pytest

from control_plane.drift.alarms import Alarm
from control_plane.drift.record import sealed
from protocol.codec import encode, to_wire
from protocol.telemetry import FINAL, Record, stream_name
from tests.control_plane.drift.found import BUNDLE, MANIFEST, PROFILE
from tests.control_plane.drift.test_record import FOUND


def stored(api, rows, profile):
    with api.store.write():
        for row in rows:
            api.store.records.ingest(row.device, [_record(row, profile)])


def _record(row, profile):
    body = to_wire(row.body) | {"profile": profile}
    stream = stream_name("drift", MANIFEST, profile)
    made = Record(row.epoch, stream, row.lo, row.hi, row.n, body, FINAL, row.t0_ms, row.t1_ms)
    return made, encode(body).decode()


def alarmed(api, kind, again=False):
    """An alarm with its record, or with two, and the windows that it rests on."""
    record, _, rows, profile = FOUND[kind]()
    digest = api.parts.blobs.put(encode(profile), limit=1_000_000)
    stored(api, rows, digest)
    alarm = api.store.alarms.add(
        Alarm(
            "", 0, f"key/{kind}", "digits", BUNDLE, MANIFEST, digest, kind, record["subject"],
            record["verdict"], record["sentence"], (),
        )
    )  # fmt: skip
    record = {**record, "profile": digest, "query": {**record["query"], "upto": 2**40}}
    previous = ""
    for _ in range(2 if again else 1):
        previous, text = sealed(record, alarm.id, previous)
        api.store.alarms.add_record(alarm.id, previous, text, 5)
    return alarm


@pytest.mark.parametrize("kind", FOUND)
def test_each_kind_is_recomputed_from_what_the_store_has(api, kind):
    alarm = alarmed(api, kind)
    answer = api.get(f"alarms/{alarm.id}/explanation")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["replayed"]["same"], body["replayed"]["said"]
    assert body["replayed"]["found"]
    assert body["replayed"]["statistic"] == body["record"]["statistic"]
    assert body["record"]["alarm"] == alarm.id
    assert body["threshold"] == body["record"]["threshold"]
    assert body["course"][0]["at"].startswith("1970-01-01T")
    (first, *_) = body["compared"]
    assert len(first["counts"]) == len(first["against"]) == len(first["slots"])


def test_the_picture_is_an_svg_of_the_same(api):
    alarm = alarmed(api, "peer")
    answer = api.get(f"alarms/{alarm.id}/picture.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "recomputed from 60 stored windows: same" in answer.text
    ElementTree.fromstring(answer.text)


def test_an_earlier_record_is_explained_when_it_is_named(api):
    alarm = alarmed(api, "peer", again=True)
    first, second = api.store.alarms.records(alarm.id)
    place = f"alarms/{alarm.id}/explanation"
    assert api.get(place).json()["digest"] == second.digest
    earlier = api.get(place, evidence=first.digest).json()
    assert (earlier["digest"], earlier["replayed"]["same"]) == (first.digest, True)
    assert api.get(place).json()["replayed"]["same"]


def test_a_record_that_was_edited_where_it_is_kept_is_told(api):
    alarm = alarmed(api, "peer")
    (row,) = api.store.alarms.records(alarm.id)
    edited = json.dumps(json.loads(row.body) | {"sentence": "nothing to see"})
    with api.store.write() as connection:
        connection.execute("UPDATE alarm_record SET body = ?", (edited,))
    replayed = api.get(f"alarms/{alarm.id}/explanation").json()["replayed"]
    assert not replayed["same"]
    assert replayed["said"].startswith(f"the text of {row.digest[:15]}")


def test_a_record_that_was_taken_out_is_told(api):
    alarm = alarmed(api, "peer", again=True)
    with api.store.write() as connection:
        connection.execute("DELETE FROM alarm_record WHERE number = 1")
    replayed = api.get(f"alarms/{alarm.id}/explanation").json()["replayed"]
    assert not replayed["same"]
    assert replayed["said"].endswith("does not follow the record before it")


def test_windows_that_are_gone_are_a_problem_with_a_name(api):
    alarm = alarmed(api, "peer")
    with api.store.write() as connection:
        connection.execute("DELETE FROM record WHERE stream LIKE 'drift/%'")
    answer = api.get(f"alarms/{alarm.id}/explanation")
    assert (answer.status_code, answer.json()["code"]) == (410, "OUT-D611")


@pytest.mark.parametrize("place", ["explanation", "picture.svg"])
def test_what_is_not_known_is_not_found(api, place):
    alarm = alarmed(api, "peer")
    nobody = api.get(f"alarms/alarm-99/{place}")
    assert (nobody.status_code, nobody.json()["code"]) == (404, "OUT-S110")
    other = api.get(f"alarms/{alarm.id}/{place}", evidence=PROFILE)
    assert (other.status_code, other.json()["code"]) == (404, "OUT-S110")


def test_a_cohort_too_large_to_name_is_the_one_its_label_makes_today(api):
    alarm = alarmed(api, "cohort")
    for n in range(12):
        api.enrol(f"cam-{n}", site="b")
    (row,) = api.store.alarms.records(alarm.id)
    record = json.loads(row.body)
    record["query"] |= {"by": "site", "value": "b", "devices": None}
    digest, text = sealed(record, alarm.id)
    with api.store.write() as connection:
        connection.execute("DELETE FROM alarm_record")
    api.store.alarms.add_record(alarm.id, digest, text, 5)
    replayed = api.get(f"alarms/{alarm.id}/explanation").json()["replayed"]
    assert replayed["devices"] == 12

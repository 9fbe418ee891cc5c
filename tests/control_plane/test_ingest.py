"""Ingest: hostile messages are refused and counted; nothing is acknowledged before it is safe."""

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from control_plane.unpack import unpack
from protocol.batch import encode_batch
from protocol.codec import MAX_UP_UNPACKED, decode, decode_up, encode_up, to_wire
from protocol.errors import PeerError, Unavailable
from protocol.reported import ReportedState
from protocol.telemetry import (
    EVENT_STREAM,
    FINAL,
    STATE_STREAM,
    Ack,
    Hello,
    Record,
    Upload,
    stream_name,
)
from tests.fakes.receiver import TOPICS, Receiver, RecordsFile
from tests.fakes.telemetry import DEVICE, MANIFEST, PROFILE, compress, drift, inference

INFERENCE = stream_name("inference", MANIFEST, PROFILE)
UP = TOPICS.up(DEVICE, "records")


@pytest.fixture
def receiver(tmp_path):
    file = RecordsFile(tmp_path / "store.db")
    yield Receiver(file)
    file.close()


def window(lo: int = 0, n: int = 5, epoch: int = 7) -> Record:
    return Record(epoch, INFERENCE, lo, lo, n, to_wire(inference(n)), FINAL, 10, 20)


def state(order: int, lo: int = 0) -> Record:
    body = to_wire(ReportedState(order=order, agent="0.1.0"))
    return Record(7, STATE_STREAM, lo, lo, 1, body, FINAL, 10, 10)


def upload(*records: Record, held: tuple[tuple[int, str, int, int], ...] = ()) -> bytes:
    return encode_up(Upload(1, records, held), compress)


def raw(**changes: object) -> bytes:
    """One inference record as JSON, with some members changed."""
    record: dict[str, object] = to_wire(window())
    record.update(changes)
    return b"\x01" + json.dumps({"v": 1, "x": [record]}).encode()


def body(**changes: object) -> bytes:
    return raw(b={**to_wire(inference(5)), **changes})


def evidence(*pairs: list[int]) -> bytes:
    body = {**to_wire(drift(50)), "evidence": list(pairs)}
    return raw(s=stream_name("drift", MANIFEST, PROFILE), n=50, b=body)


def event(counts: dict[str, int], newest: dict[str, object], n: int) -> bytes:
    return raw(s=EVENT_STREAM, n=n, b={"counts": counts, "newest": newest})


BOMB = b"\x02" + zstandard.ZstdCompressor(level=19).compress(b"0" * 200_000_000)

HOSTILE = {
    "empty": (b"", "OUT-N210"),
    "codec byte only": (b"\x01", "OUT-N210"),
    "not JSON": (b"\x01nonsense", "OUT-N210"),
    "not UTF-8": (b'\x01{"v":1,"x":"\xff"}', "OUT-N210"),
    "an unknown codec": (b"\x09{}", "OUT-N212"),
    "binary batches of a later version": (b"\x03abc", "OUT-N212"),
    "a list": (b"\x01[1]", "OUT-N210"),
    "a future schema": (b'\x01{"v":2,"x":[]}', "OUT-N210"),
    "no schema": (b'\x01{"x":[]}', "OUT-N210"),
    "text for a number": (raw(n="5"), "OUT-N210"),
    "a fraction for a number": (raw(n=5.5), "OUT-N210"),
    "null for a number": (raw(n=None), "OUT-N210"),
    "a negative count": (raw(n=-1), "OUT-N210"),
    "2^63": (raw(n=2**63), "OUT-N210"),
    "a number with 400 digits": (raw(n=10**400), "OUT-N210"),
    "an epoch of 2^53": (raw(e=2**53), "OUT-N210"),
    "a negative window": (raw(lo=-1, hi=-1), "OUT-N210"),
    "a misaligned block": (raw(lo=1, hi=2), "OUT-N210"),
    "a block of no known size": (raw(lo=0, hi=2), "OUT-N210"),
    "a block that runs backwards": (raw(lo=3, hi=0), "OUT-N210"),
    "a partial block": (raw(lo=0, hi=1, part=3), "OUT-N210"),
    "part zero": (raw(part=0), "OUT-N210"),
    "part beyond final": (raw(part=2**31), "OUT-N210"),
    "an unknown kind": (raw(s="secrets/-/-"), "OUT-N210"),
    "a stream with a path in it": (raw(s="inference/../../x"), "OUT-N210"),
    "times in the wrong order": (raw(t0=20, t1=10), "OUT-N210"),
    "more answers than a window can hold": (
        raw(n=10**12, b=to_wire(inference(10**12))), "OUT-N210",
    ),
    "n that is not the sum of the body": (raw(n=6), "OUT-N210"),
    "a body of another model": (body(manifest="sha256-" + "e" * 64), "OUT-N210"),
    "a digest that is none": (body(manifest="sha256-zz"), "OUT-N210"),
    "a body without its members": (raw(b={}), "OUT-N210"),
    "a body that is a list": (raw(b=[]), "OUT-N210"),
    "a histogram with negative counts": (body(classes=[-1, 6]), "OUT-N210"),
    "a histogram of text": (body(classes=["a"]), "OUT-N210"),
    "a histogram of 2^60": (body(classes=[2**60]), "OUT-N210"),
    "events whose sum is wrong": (event({"OUT-D201": 2}, {}, 1), "OUT-N210"),
    "details of events that did not happen": (event({"a": 1}, {"b": {}}, 1), "OUT-N210"),
    "an endless event code": (event({"x" * 1000: 1}, {}, 1), "OUT-N210"),
    "a thousand event codes": (event({f"c{i}": 1 for i in range(1000)}, {}, 1000), "OUT-N210"),
    "a state of the wrong shape": (raw(s=STATE_STREAM, n=1, b={"order": "x"}), "OUT-N210"),
    "a state that counts twice": (
        raw(s=STATE_STREAM, n=2, b={"order": 1, "agent": "a"}), "OUT-N210",
    ),
    "501 records": (
        b"\x02" + compress(json.dumps({"v": 1, "x": [to_wire(state(1))] * 501}).encode()),
        "OUT-N210",
    ),
    "oversized": (b"\x01" + b" " * 66_000, "OUT-N211"),
    "a decompression bomb": (BOMB, "OUT-N211"),
    "damaged zstd": (b"\x02" + compress(b"x" * 1000)[:-3] + b"abc", "OUT-N211"),
    "zstd that is none": (b"\x02\x00\x01", "OUT-N211"),
    "deep JSON": (b"\x01" + b"[" * 60_000, "OUT-N210"),
    "deep JSON in a detail": (
        b'\x01{"v":1,"x":[{"e":7,"s":"events/-/-","lo":0,"hi":0,"n":1,"b":{"counts":{"a":1},'
        b'"newest":{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}}}]}", "OUT-N210",
    ),
    "more labels right than came": (body(labelled=5, correct=6), "OUT-N210"),
    "more labels in bins than came": (
        body(labelled=5, correct=1, labelled_bins=[6] + [0] * 19), "OUT-N210",
    ),
    "more right in bins than right": (
        body(
            labelled=5, correct=1, labelled_bins=[5] + [0] * 19, correct_bins=[2] + [0] * 19
        ), "OUT-N210",
    ),
    "bins of right labels without any of labels": (
        body(labelled=5, correct=1, correct_bins=[1] + [0] * 19), "OUT-N210",
    ),
    "evidence of a stream that no profile has": (evidence([4097, 50]), "OUT-N210"),
    "evidence out of order": (evidence([3, 50], [2, 50]), "OUT-N210"),
    "evidence of one stream twice": (evidence([3, 50], [3, 51]), "OUT-N210"),
    "evidence above the cap": (evidence([3, 401]), "OUT-N210"),
    "evidence of 17 streams": (evidence(*([index, 50] for index in range(17))), "OUT-N210"),
    "a binary batch with something behind it": (
        encode_batch(Upload(1, (window(),))) + b"\x00", "OUT-N210",
    ),
    "a binary bomb": (b"\x03\x01" + BOMB[1:], "OUT-N211"),
    "held ranges that run backwards": (
        b'\x01{"v":1,"held":[[7,"events/-/-",5,2]]}', "OUT-N210",
    ),
    "held in a negative epoch": (b'\x01{"v":1,"held":[[-7,"events/-/-",0,2]]}', "OUT-N210"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_refused_counted_and_leaves_nothing(receiver, name):
    data, code = HOSTILE[name]
    answer = receiver.ingest.handle(UP, data)
    assert (answer.problem, answer.acks) == (code, ()), answer.why
    assert receiver.ingest.refused == {code: 1}
    assert receiver.records.stored(DEVICE) == {}
    assert receiver.contacts == {}
    receiver.receive(upload(window()))
    assert receiver.records.answers() == 5


@pytest.mark.parametrize(
    "topic, code",
    [
        (TOPICS.up("local-stranger", "records"), "OUT-N214"),
        (UP.replace("/records", "/secrets"), "OUT-N210"),
        (UP.replace("outrider", "elsewhere"), "OUT-N210"),
        ("outrider/v1/local/up/99/local-cam-1/records", "OUT-N210"),
        (UP.replace("local-cam-1", "other-cam-1"), "OUT-N210"),
        ("", "OUT-N210"),
    ],
)
def test_a_message_of_nobody_we_know_is_refused(receiver, topic, code):
    assert receiver.ingest.handle(topic, upload(window())).problem == code
    assert receiver.ingest.refused == {code: 1}


def test_the_device_is_the_one_of_the_topic_whatever_a_message_says(receiver):
    receiver.receive(raw(device="local-victim", d="local-victim"))
    assert receiver.records.answers_by_device() == {DEVICE: 5}


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_a_code(data):
    with pytest.raises(PeerError, match=r"OUT-N21[012]"):
        decode_up(data, Upload, unpack)


def test_unpacking_stops_at_the_limit():
    assert unpack(compress(b"x" * 1000), 1000) == b"x" * 1000
    with pytest.raises(ValueError, match="more than 999"):
        unpack(compress(b"x" * 1000), 999)
    with pytest.raises(ValueError, match=f"{MAX_UP_UNPACKED:,}"):
        unpack(BOMB[1:], MAX_UP_UNPACKED)


def test_an_upload_is_answered_with_what_is_stored_and_again_when_repeated(receiver):
    for _ in range(2):
        (data,) = receiver.receive(upload(window(0), window(1), state(5)))
        ack = decode(data, Ack, limit=65536)
        assert {(each.s, each.have, each.safe) for each in ack.a} == {
            (INFERENCE, ((0, 1),), ((0, 1),)),
            (STATE_STREAM, ((0, 0),), ((0, 0),)),
        }
    assert receiver.records.answers() == 10
    assert receiver.contacts == {DEVICE: 1000}


def test_a_probe_is_answered_with_the_streams_it_names_even_if_none(receiver):
    receiver.receive(upload(window(0)))
    (data,) = receiver.receive(upload(held=((7, INFERENCE, 0, 3), (8, INFERENCE, 0, 1))))
    ack = decode(data, Ack, limit=65536)
    assert [(each.e, each.have) for each in ack.a] == [(7, ((0, 0),)), (8, ())]
    (data,) = receiver.receive(upload())
    assert decode(data, Ack, limit=65536) == Ack(1)


def test_acks_too_long_for_one_message_are_several(receiver):
    held = tuple((epoch, INFERENCE, 0, 900) for epoch in range(499))
    for epoch in range(0, 499, 10):
        records = [window(lo, 1, epoch=e) for e in range(epoch, min(epoch + 10, 499))
                   for lo in range(0, 30, 2)]  # fmt: skip
        receiver.receive(encode_up(Upload(1, tuple(records)), compress))
    acks = receiver.receive(encode_up(Upload(1, (), held), compress))
    assert len(acks) > 1
    assert all(len(ack) <= 65536 for ack in acks)
    assert sum(len(decode(ack, Ack, limit=65536).a) for ack in acks) == 499


def test_back_pressure_is_part_of_the_ack(receiver):
    receiver.wait = 12.5
    (data,) = receiver.receive(upload(window()))
    assert decode(data, Ack, limit=65536).wait_s == 12.5


def test_states_reach_the_device_row_and_an_older_one_does_not_replace_it(receiver):
    receiver.receive(upload(state(9, 1), state(5, 0)))
    receiver.receive(upload(state(7, 2)))
    assert receiver.states[DEVICE].order == 9


def test_a_binary_batch_is_stored_as_json_would_have_been(receiver, tmp_path):
    records = (window(0), window(1), state(5), labels(60, 30))
    other = Receiver(RecordsFile(tmp_path / "other.db"))
    for each, encode_it in ((receiver, encode_up), (other, encode_batch)):
        each.receive(encode_it(Upload(1, records), compress))
    query = "SELECT stream, lo, hi, part, n, body FROM record ORDER BY stream, lo"
    rows = [each.file.connection().execute(query).fetchall() for each in (receiver, other)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4
    other.file.close()


def labels(answers: int, labelled: int) -> Record:
    bins = (labelled - 10, *(0,) * 19)
    counted = replace(inference(answers), labelled=labelled, correct=3, labelled_bins=bins)
    return Record(7, INFERENCE, 9, 9, answers, to_wire(counted), FINAL, 10, 20)


def test_labels_without_a_confidence_are_in_no_bin(receiver):
    receiver.receive(upload(labels(60, 30)))
    assert receiver.records.answers() == 60


def test_a_greeting_says_which_codecs_are_read(receiver):
    hello = decode(receiver.ingest.hellos([0])[0].data, Hello, limit=1000)
    assert hello.codecs == (1, 2, 3)


def test_a_want_goes_to_the_publisher_and_is_not_stored(receiver):
    data = b"\x01" + json.dumps({"v": 1, "payload": MANIFEST, "ranges": [[0, 5]]}).encode()
    answer = receiver.ingest.handle(TOPICS.up(DEVICE, "want"), data)
    assert (answer.problem, answer.acks) == (None, ())
    ((device, want),) = receiver.wants
    assert (device, want.payload, want.ranges) == (DEVICE, MANIFEST, ((0, 5),))
    assert receiver.ingest.handle(TOPICS.up(DEVICE, "want"), b"\x01{}").problem == "OUT-N210"


def test_a_failing_callable_means_no_commit_and_no_ack(receiver, monkeypatch):
    def fails(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(receiver.ingest, "_on_contact", fails)
    with pytest.raises(RuntimeError):
        receiver.ingest.handle(UP, upload(window()))
    assert receiver.records.answers() == 0


def test_a_locked_store_is_unavailable_so_that_the_message_stays_with_the_broker(receiver):
    receiver.file.connection().execute("PRAGMA busy_timeout=0")
    other = sqlite3.connect(receiver.file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as failure:
        receiver.ingest.handle(UP, upload(window()))
    assert failure.value.code == "OUT-S161"
    other.execute("ROLLBACK")
    other.close()
    receiver.receive(upload(window()))
    assert receiver.records.answers() == 5


def test_every_start_greets_all_shards_with_a_new_generation(tmp_path):
    file = RecordsFile(tmp_path / "store.db")
    first, second = (Receiver(file, seed=seed).ingest.hellos() for seed in (1, 2))
    assert {each.topic for each in first} == {TOPICS.ingest(shard) for shard in range(16)}
    generations = {decode(each.data, Hello, limit=1000).g for each in (*first, *second)}
    assert len(generations) == 2
    file.close()


def test_newer_members_of_a_message_are_ignored(receiver):
    data = json.loads(raw()[1:])
    data["later"] = 1
    data["x"][0]["later"] = {"a": [1]}
    receiver.receive(b"\x01" + json.dumps(data).encode())
    assert receiver.records.answers() == 5


def test_event_details_may_hold_anything_small(receiver):
    detail = {"big": 1.5e300, "text": "\u2603 \U0001f600", "nested": [{"a": None}]}
    receiver.receive(event({"OUT-D201": 1}, {"OUT-D201": detail}, 1))
    (stored,) = receiver.records.events(DEVICE)
    assert stored.detail == detail


INGESTER = """
import pathlib, sys
from tests.fakes.receiver import Receiver, RecordsFile
from tests.control_plane.test_ingest import upload, window
receiver = Receiver(RecordsFile(pathlib.Path(sys.argv[1])))
lo = int(sys.argv[2])
while True:
    receiver.receive(upload(window(lo, lo + 1)))
    print(lo, flush=True)
    lo += 1
"""


def test_kill_nine_of_an_ingester_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "store.db"
    RecordsFile(path).close()
    start = acknowledged = 0
    for lines in (5, 9):
        process = subprocess.Popen(
            [sys.executable, "-c", INGESTER, str(path), str(start)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent.parent,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        process.kill()
        process.wait()
        process.stdout.close()
        file = RecordsFile(path)
        receiver = Receiver(file)
        stored = receiver.records.windows(DEVICE)
        assert [w.lo for w in stored] == list(range(len(stored)))
        assert len(stored) > acknowledged
        # The device resends what it heard no ack for: a lost ack costs nothing else.
        receiver.receive(upload(*(window(lo, lo + 1) for lo in range(acknowledged, len(stored)))))
        assert receiver.records.answers() == sum(range(1, len(stored) + 1))
        start = len(stored)
        file.close()

"""The binary batch says what JSON says, is small, and refuses everything that is none."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.unpack import unpack
from edge_agent.packing import pack
from protocol.batch import PLAIN, ZSTD, encode_batch, read_upload
from protocol.codec import MAX_UP_UNPACKED, decode_up, encode_up, to_wire
from protocol.errors import PeerError
from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS
from protocol.reported import ReportedState
from protocol.telemetry import (
    EVENT_STREAM,
    FINAL,
    STATE_STREAM,
    DriftWindow,
    EventWindow,
    InferenceWindow,
    Record,
    Upload,
    stream_name,
)
from tests.fakes.telemetry import MANIFEST, PROFILE, compress, drift, inference

HEAD = bytes((3, PLAIN))

counts = st.integers(0, 2**53)
digests = st.sampled_from([f"sha256-{letter * 64}" for letter in "abc"])
tables = st.lists(st.one_of(st.just(0), st.integers(0, 300), counts), max_size=40).map(tuple)


def bins(length: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.one_of(st.just(()), st.lists(counts, min_size=length, max_size=length).map(tuple))


inferences = st.builds(
    InferenceWindow, digests, digests, counts, counts, counts, counts, counts,
    bins(LATENCY_SLOTS), bins(CONFIDENCE_BINS), tables, counts, counts, counts, counts,
    bins(CONFIDENCE_BINS), bins(CONFIDENCE_BINS), tables,
)  # fmt: skip
evidences = st.dictionaries(st.integers(0, 4096), st.integers(0, 400), max_size=16).map(
    lambda found: tuple(sorted(found.items()))
)
drifts = st.builds(
    DriftWindow, digests, digests, counts, st.lists(tables, max_size=5).map(tuple), tables,
    counts, evidences,
)  # fmt: skip
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=9)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(["inference", "drift", "events", "state"]))
    epoch, start, lasts = draw(counts), draw(st.integers(0, 2**50)), draw(st.integers(0, 2**50))
    if kind == "state":
        body: Any = draw(st.dictionaries(st.text(max_size=9), json_values, max_size=3))
        lo = draw(counts)
        return Record(epoch, STATE_STREAM, lo, lo, 1, body, FINAL, start, start + lasts)
    part = draw(st.one_of(st.just(FINAL), st.integers(1, FINAL)))
    size = draw(st.sampled_from([1, 2, 24, 1344])) if part == FINAL else 1
    lo = draw(st.integers(0, 2**40)) * size
    if kind == "events":
        body, stream, n = draw(json_values.map(lambda x: {"x": x})), EVENT_STREAM, draw(counts)
        return Record(epoch, stream, lo, lo + size - 1, n, body, part, start, start + lasts)
    window: InferenceWindow | DriftWindow
    if kind == "inference":
        window = counted = draw(inferences)
        n = counted.answers
    else:
        window = looked = draw(drifts)
        n = looked.rows
    stream = stream_name(kind, window.manifest, window.profile)
    wire = to_wire(window)
    odd = draw(st.integers(0, 9))
    if odd == 0:
        n = draw(counts)
    elif odd == 1:
        stream = stream_name(kind, PROFILE, MANIFEST)
    elif odd == 2:
        wire = {**wire, "later": 5}
    elif odd == 3:
        wire = {**wire, "manifest": "nobody"}
    return Record(epoch, stream, lo, lo + size - 1, n, wire, part, start, start + lasts)


helds = st.tuples(
    counts, st.sampled_from([STATE_STREAM, stream_name("drift", MANIFEST, PROFILE)]), counts
).map(lambda held: (*held, held[2]))
uploads = st.builds(
    lambda x, held: Upload(1, tuple(x), tuple(held)),
    st.lists(records(), max_size=4),
    st.lists(helds, max_size=3),
)


@settings(deadline=None)
@given(uploads, st.booleans())
def test_binary_and_json_say_the_same(upload, packs):
    packed = compress if packs else None
    as_json = decode_up(encode_up(upload, packed), Upload, unpack)
    assert read_upload(encode_batch(upload, packed), unpack) == as_json


def test_what_is_json_is_still_read():
    upload = Upload(1, (window(),))
    assert read_upload(encode_up(upload), unpack) == upload
    assert read_upload(encode_up(upload, compress), unpack) == upload


def window(at: int = 0, n: int = 1000, features: int = 30) -> Record:
    """A closed drift window over deciles of independent features, with evidence of some."""
    rng = random.Random(at)
    rows = []
    for _ in range(features):
        slots = [0] * 12
        for _ in range(n):
            slots[rng.randrange(10)] += 1
        rows.append(tuple(slots))
    manifest, profile = (f"sha256-{random.Random(k).randbytes(32).hex()}" for k in (1, 2))
    body = DriftWindow(manifest, profile, n, tuple(rows), (), 70 + at, ((3, 41), (17, 33)))
    hour, start = 3_600_000, 1_795_000_000_000
    name = stream_name("drift", manifest, profile)
    return Record(2**52 + 5, name, at, at, n, to_wire(body), FINAL, start, start + hour)


def test_30_features_and_1_000_rows_take_at_most_450_bytes():
    for at in range(5):
        assert len(encode_batch(Upload(1, (window(at),)), pack)) <= 450
    day = Upload(1, tuple(map(window, range(24))))
    assert len(encode_batch(day, pack)) <= 24 * 300
    assert len(encode_batch(day, pack)) < 0.75 * len(encode_up(day, pack))


SOME = Upload(
    1,
    (
        Record(7, stream_name("inference", MANIFEST, PROFILE), 0, 0, 60, to_wire(inference(60))),
        Record(7, stream_name("drift", MANIFEST, PROFILE), 3, 3, 60, to_wire(drift(60)), 4, 5, 900),
        Record(7, EVENT_STREAM, 0, 0, 1, to_wire(EventWindow({"OUT-D601": 1}))),
        Record(7, STATE_STREAM, 2, 2, 1, to_wire(ReportedState(9, "0.1.0"))),
    ),
    ((7, EVENT_STREAM, 0, 3),),
)


def test_a_record_whose_body_this_version_does_not_know_whole_travels_as_json():
    later = replace(SOME.x[1], b={**SOME.x[1].b, "later": [1]})
    data = encode_batch(Upload(1, (later,)))
    assert b'"later":[1]' in data
    assert read_upload(data, unpack).x == (later,)


@pytest.mark.parametrize("packs", [None, compress], ids=["plain", "zstd"])
def test_every_truncated_batch_is_refused(packs):
    data = encode_batch(Upload(1, SOME.x * 3), packs)
    assert data[1] == (PLAIN if packs is None else ZSTD)
    for length in range(1, len(data)):
        with pytest.raises(PeerError, match=r"OUT-N21[01]"):
            read_upload(data[:length], unpack)


@pytest.mark.parametrize("packs", [None, compress], ids=["plain", "zstd"])
def test_a_changed_byte_is_refused_or_another_upload_never_anything_else(packs):
    data = encode_batch(SOME, packs)
    for at in range(len(data)):
        for flip in (1, 0x80, 0xFF):
            changed = data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :]
            try:
                read = read_upload(changed, unpack)
            except PeerError:
                continue
            assert isinstance(read, Upload)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_an_upload(data):
    for head in (HEAD, HEAD + b"\x01\x00", b"\x03\x01"):
        with contextlib.suppress(PeerError):
            assert read_upload(head + data, unpack).v == 1


def uv(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def one_drift(table: bytes, digest_count: int = 2) -> bytes:
    """A batch of one drift record whose features are written in `table`."""
    ids = b"".join(bytes((k,)) * 32 for k in range(digest_count))
    return (
        HEAD + b"\x01" + uv(digest_count) + ids + uv(0) + uv(1) + b"\x02"
        + bytes(7) + uv(0) + uv(1) + table + uv(0) + uv(0) + uv(0) + uv(0)
    )  # fmt: skip


def test_a_batch_by_hand_is_read():
    (record,) = read_upload(one_drift(uv(1) + uv(4) + b"\x05\x00\x01\x07"), unpack).x
    assert record.b["counts"] == [[5, 0, 0, 7]]
    assert (record.part, record.n, record.s) == (
        FINAL, 0, "drift/0000000000000000/0101010101010101",
    )  # fmt: skip


def hostile() -> Iterator[tuple[str, bytes, str]]:
    good = one_drift(uv(1) + uv(4) + b"\x05\x00\x01\x07")
    yield "nothing after the codec", b"\x03", "OUT-N210"
    yield "an unknown packing", b"\x03\x02abc", "OUT-N212"
    yield "a later version", HEAD + b"\x02", "OUT-N212"
    yield "no zstd", b"\x03\x01abc", "OUT-N211"
    yield "something behind it", good + b"\x00", "OUT-N210"
    yield "too long for a message", HEAD + bytes(70_000), "OUT-N211"
    yield "more zeros than slots", one_drift(uv(1) + uv(4) + b"\x05\x00\x03"), "OUT-N210"
    yield "a histogram of 10,004 slots", one_drift(uv(1) + uv(10_004)), "OUT-N210"
    yield "4,097 features", one_drift(uv(4097)), "OUT-N210"
    yield "2^53 + 1", one_drift(uv(1) + uv(1) + uv(2**53 + 1)), "OUT-N210"
    yield "a number of nine bytes", one_drift(uv(1) + uv(1) + b"\x80" * 8 + b"\x01"), "OUT-N210"
    yield "a digest that is not there", one_drift(uv(0), 1), "OUT-N210"
    yield "a digest twice", HEAD + b"\x01" + uv(2) + bytes(64) + bytes(3), "OUT-N210"
    yield "1,001 digests", HEAD + b"\x01" + uv(1001), "OUT-N210"
    yield "501 records", HEAD + b"\x01\x00\x00" + uv(501), "OUT-N210"
    yield "an unknown kind", HEAD + b"\x01\x00\x00\x01\x03" + bytes(7), "OUT-N210"
    yield "a body that is no object", (
        HEAD + b"\x01\x00\x00\x01\x00" + bytes(7) + uv(10) + b"events/-/-" + uv(2) + b"[]\x00"
    ), "OUT-N210"  # fmt: skip
    yield "text that is not UTF-8", (
        HEAD + b"\x01\x00\x00\x01\x00" + bytes(7) + uv(1) + b"\xff" + uv(2) + b"{}\x00"
    ), "OUT-N210"  # fmt: skip
    # 4,096 features of 10,003 zeros each, in 20 kB.
    zeros = uv(10_003) + b"\x00" + uv(10_002)
    yield "40 million zeros", one_drift(uv(4096) + zeros * 4096), "OUT-N210"


@pytest.mark.parametrize("data, code", [pytest.param(d, c, id=name) for name, d, c in hostile()])
def test_a_hostile_batch_is_refused(data, code):
    with pytest.raises(PeerError) as refused:
        read_upload(data, unpack)
    assert refused.value.code == code


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = bytes((3, ZSTD)) + zstandard.ZstdCompressor(level=19).compress(bytes(200_000_000))
    asked = []

    def bounded(packed: bytes, limit: int) -> bytes:
        asked.append(limit)
        return unpack(packed, limit)

    with pytest.raises(PeerError, match="OUT-N211"):
        read_upload(bomb, bounded)
    assert asked == [MAX_UP_UNPACKED]

"""The uplink: probes, then sends what is missing, until the other side says that it has it."""

import math
import os
import random

import pytest

from control_plane.unpack import unpack
from edge_agent.buffer import Outbox
from edge_agent.uplink import Uplink
from protocol.batch import read_upload
from protocol.codec import CODEC_BINARY, MAX_UP_PACKED, decode_up, encode
from protocol.errors import PeerError, Unavailable
from protocol.reported import ReportedState
from protocol.telemetry import Ack, Hello, StreamAck, Upload
from tests.fakes.telemetry import Counts, Take, compress, drift, inference, take


class Zero(random.Random):
    """No jitter: every pause has its upper bound halved."""

    def random(self) -> float:
        return 0.5


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "outbox.db", window_s=0.0, min_window_n=0)


@pytest.fixture
def uplink(outbox):
    return Uplink(outbox, rng=Zero(), compress=compress, resend_s=2.0, spread_s=4.0)


def sent(uplink: Uplink, now: float) -> Upload | None:
    message = uplink.due(now)
    return None if message is None else decode_up(message, Upload, unpack)


def ack(upload: Upload, *, wait_s: float | None = None, safe: bool = True) -> bytes:
    """The coverage of a store that took the upload."""
    streams: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for record in upload.x:
        streams.setdefault((record.e, record.s), []).append((record.lo, record.hi))
    covered = []
    for (epoch, stream), ranges in streams.items():
        whole = ((min(ranges)[0], max(ranges)[1]),)
        covered.append(StreamAck(epoch, stream, whole, whole if safe else ()))
    return encode(Ack(1, tuple(covered), wait_s))


def batch(uplink: Uplink, now: float) -> Upload:
    """What is sent now; something must be."""
    upload = sent(uplink, now)
    assert upload is not None
    return upload


def answer_probe(uplink: Uplink, now: float) -> None:
    probe = sent(uplink, now)
    assert probe is not None
    assert probe.x == ()
    uplink.on_ack(now, encode(Ack(1)))


def events(outbox: Outbox, count: int, size: int = 10) -> None:
    for at in range(count):
        text = os.urandom(size // 2).hex()
        outbox.put_event("OUT-D201", {"text": text}, at)


def test_nothing_is_due_without_a_link(outbox, uplink):
    events(outbox, 1)
    assert uplink.due(1e9) is None
    assert uplink.next_at == math.inf


def test_a_probe_says_what_is_held_before_anything_is_sent(outbox, uplink):
    events(outbox, 3)
    outbox.commit_take(take(1, 30), 0.0, 9)
    uplink.on_connected(100.0)
    assert uplink.due(101.9) is None
    assert uplink.next_at == 102.0
    probe = sent(uplink, 102.0)
    assert probe is not None
    assert probe.x == ()
    assert sorted((stream.split("/")[0], low, high) for _, stream, low, high in probe.held) == [
        ("events", 0, 2),
        ("inference", 0, 0),
    ]
    assert uplink.due(102.5) is None, "one message in flight"


def test_batches_go_one_by_one_until_nothing_is_left(outbox, uplink):
    outbox.put_state(ReportedState(order=0, agent="1"), 5)
    events(outbox, 120, 4000)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    arrived = []
    for turn in range(40):
        message = uplink.due(11.0 + turn)
        if message is None:
            break
        assert len(message) <= MAX_UP_PACKED
        upload = decode_up(message, Upload, unpack)
        arrived += [(r.kind, r.lo) for r in upload.x]
        assert uplink.due(11.0 + turn) is None
        uplink.on_ack(11.0 + turn, ack(upload))
    assert arrived[0] == ("state", 0)
    assert arrived[1:] == [("events", lo) for lo in range(120)]
    assert outbox.state().records == 0
    assert uplink.next_at > 1000.0
    events(outbox, 1)
    assert uplink.next_at <= 60.0
    assert uplink.due(60.0) is not None


def test_an_agent_speaks_binary_only_to_whom_understands_it(outbox, uplink):
    events(outbox, 1)
    uplink.on_connected(0.0)
    said = []
    for at, codecs in enumerate((None, (1, 2), (1, 2, 3), (1, 2))):
        if codecs is not None:
            uplink.on_hello(1000.0 * at, encode(Hello(at, 0.0, codecs)))
        for step in (1, 2):
            message = uplink.due(1000.0 * at + 30.0 * step)
            assert message is not None
            said.append(message[0] == CODEC_BINARY)
            answer = read_upload(message, unpack)
            uplink.on_ack(1000.0 * at + 30.0 * step, ack(answer, safe=False))
    assert said == [False] * 4 + [True] * 2 + [False] * 2, "probes and batches alike"
    uplink.on_hello(5000.0, encode(Hello(5, 0.0, (1, 2, 3))))
    uplink.on_disconnected()
    uplink.on_connected(6000.0)
    message = uplink.due(6030.0)
    assert message is not None
    assert message[0] != CODEC_BINARY, "another ingester may answer now"


def test_an_unanswered_batch_is_sent_again_after_a_doubling_pause(outbox, uplink):
    events(outbox, 1)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    first = batch(uplink, 10.0)
    assert uplink.due(10.9) is None
    assert sent(uplink, 11.0) == first
    assert uplink.due(12.9) is None
    assert sent(uplink, 13.0) == first


def test_what_is_stored_is_not_sent_again_but_kept_until_it_is_safe(outbox, uplink):
    events(outbox, 2)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    upload = batch(uplink, 10.0)
    uplink.on_ack(10.0, ack(upload, safe=False))
    assert uplink.due(20.0) is None
    assert outbox.state().records == 2
    uplink.on_ack(30.0, ack(upload))
    assert outbox.state().records == 0


def test_an_ack_that_a_full_disk_does_not_take_comes_again(outbox, uplink, monkeypatch):
    events(outbox, 2)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    first = batch(uplink, 11.0)

    def full(acks):
        raise Unavailable("OUT-D501", "database or disk is full")

    with monkeypatch.context() as while_full:
        while_full.setattr(outbox, "delete_safe", full)
        with pytest.raises(Unavailable):
            uplink.on_ack(11.0, ack(first))
    again = batch(uplink, 30.0)
    assert again.x == first.x
    uplink.on_ack(30.0, ack(again))
    assert outbox.state().records == 0


@pytest.mark.parametrize(
    "forgets",
    [
        lambda uplink: uplink.on_hello(50.0, encode(Hello(7, 0.0))),
        lambda uplink: (uplink.on_disconnected(), uplink.on_connected(48.0)),
        lambda uplink: uplink.due(6 * 3600.0 + 1),
    ],
    ids=["a new ingester", "a new link", "six hours"],
)
def test_what_the_other_side_has_is_asked_for_again_after(outbox, uplink, forgets):
    events(outbox, 2)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    uplink.on_ack(10.0, ack(batch(uplink, 10.0), safe=False))
    assert uplink.due(20.0) is None
    forgets(uplink)
    later = 6 * 3600.0 + 60.0
    uplink.due(later)
    uplink.on_ack(later, encode(Ack(1)))
    again = sent(uplink, later)
    assert again is not None
    assert len(again.x) == 2


def test_the_same_ingester_s_hello_changes_nothing(outbox, uplink):
    events(outbox, 2)
    uplink.on_connected(0.0)
    uplink.on_hello(0.0, encode(Hello(7, 2.0)))
    answer_probe(uplink, 10.0)
    uplink.on_ack(10.0, ack(batch(uplink, 10.0), safe=False))
    uplink.on_hello(11.0, encode(Hello(7, 2.0)))
    assert uplink.due(500.0) is None


def test_back_pressure_replaces_the_timer(outbox, uplink):
    events(outbox, 60, 4000)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    upload = batch(uplink, 10.0)
    uplink.on_ack(10.0, ack(upload, wait_s=100.0))
    assert uplink.next_at == 110.0
    assert uplink.due(109.9) is None
    assert uplink.due(110.0) is not None


def test_a_late_ack_of_an_earlier_batch_does_not_pass_for_this_one(outbox, uplink):
    events(outbox, 60, 4000)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    first = batch(uplink, 10.0)
    uplink.on_ack(10.0, ack(first))
    second = batch(uplink, 10.0)
    uplink.on_ack(10.1, ack(first))
    assert uplink.due(10.2) is None
    uplink.on_ack(10.3, ack(second))
    assert uplink.next_at <= 10.3 or outbox.state().records == 0


def test_one_record_that_is_never_answered_does_not_block_the_others(outbox, uplink):
    events(outbox, 8)
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    arrived: set[int] = set()
    while len(arrived) < 7:
        now = uplink.next_at
        assert now < 3600.0
        upload = sent(uplink, now)
        if upload is None or any(record.lo == 0 for record in upload.x):
            continue
        arrived |= {record.lo for record in upload.x}
        uplink.on_ack(now, ack(upload))
    assert arrived == set(range(1, 8))
    again = sent(uplink, 3600.0)
    assert again is not None
    assert again.x[0].lo == 0, "its turn comes again"


def test_a_window_too_large_to_travel_goes_without_its_histograms(outbox, uplink):
    rng = random.Random(5)
    wide = drift(50)
    table = tuple(tuple(rng.getrandbits(53) for _ in range(14)) for _ in range(1200))
    wide = type(wide)(wide.manifest, wide.profile, 50, table)
    outbox.commit_take(Take("r", 1, (Counts(inference(50), wide),)), 0.0, 1)
    outbox.close_all()
    uplink.on_connected(0.0)
    answer_probe(uplink, 10.0)
    kinds = []
    for turn in range(4):
        message = uplink.due(11.0 + turn)
        if message is None:
            break
        assert len(message) <= MAX_UP_PACKED
        upload = decode_up(message, Upload, unpack)
        kinds += [(r.kind, r.n, "counts" in r.b) for r in upload.x]
        uplink.on_ack(11.0 + turn, ack(upload))
    assert sorted(kinds) == [("drift", 50, False), ("inference", 50, False)]
    assert outbox.state().thinned == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"v":2}', b'{"v":1,"a":[{"e":-1,"s":"x"}]}', b"[" * 60_000,
     b'{"v":1,"a":' + b" " * 70_000 + b"[]}"],
    ids=["empty", "cut", "list", "future", "negative", "deep", "large"],
)  # fmt: skip
def test_a_hostile_ack_is_refused_and_changes_nothing(outbox, uplink, data):
    events(outbox, 1)
    uplink.on_connected(0.0)
    with pytest.raises(PeerError):
        uplink.on_ack(0.0, data)
    with pytest.raises(PeerError):
        uplink.on_hello(0.0, data if b"v" not in data else b'{"g":-5}')
    assert outbox.state().records == 1
    answer_probe(uplink, 10.0)

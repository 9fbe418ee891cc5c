"""Payloads: one name checks every frame, and nothing is allocated on a stranger's word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, payload
from protocol.errors import PeerError
from protocol.payload import FRAME_SIZE, Header, Hint, HintEntry

DIGEST = "sha256-" + "1" * 64


def entry(size=100_000, **changes):
    values = {
        "payload": DIGEST,
        "size": size,
        "frames": payload.frame_count(size),
        "features": payload.FEATURE_ZSTD,
        "decode_memory": 1000,
    } | changes
    return HintEntry(**values)


@given(st.integers(1, payload.MAX_PAYLOAD))
def test_the_lengths_of_all_frames_add_up_to_the_payload(size):
    frames = payload.frame_count(size)
    last = payload.frame_length(size, frames - 1)
    assert 0 < last <= FRAME_SIZE
    assert (frames - 1) * FRAME_SIZE + last == size


def test_lists_give_the_digest_of_every_frame():
    frames = [bytes([n % 256]) * 100 for n in range(payload.DIGESTS_PER_LIST + 3)]
    name, lists = payload.build_lists(frames)
    assert [len(part) for part in lists] == [payload.DIGESTS_PER_LIST * 32, 3 * 32]
    size = (len(frames) - 1) * FRAME_SIZE + 1
    digests = payload.check_lists(entry(size, payload=name), lists)
    assert list(digests) == [payload.frame_digest(frame) for frame in frames]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lists: lists[:-1],
        lambda lists: [*lists, b"\0" * 32],
        lambda lists: [lists[0][:-1] + b"\xff"],
        lambda lists: [lists[0][32:] + lists[0][:32]],
        lambda lists: [b""],
    ],
    ids=["a list is missing", "one too many", "one bit off", "other order", "empty"],
)
def test_lists_that_do_not_give_the_payload_are_refused(spoil):
    name, lists = payload.build_lists([b"a", b"b"])
    with pytest.raises(PeerError):
        payload.check_lists(entry(FRAME_SIZE + 1, payload=name), spoil(lists))


@given(
    st.integers(0, payload.MAX_PAYLOAD),
    st.sampled_from([(payload.FEATURE_ZSTD, None), (payload.FEATURE_PATCH, DIGEST)]),
)
def test_a_header_survives_the_wire(size, encoding):
    features, base = encoding
    header = Header(features, base, DIGEST, size, payload.MAX_BLOCK)
    assert Header.unpack(header.pack() + b"rest") == (header, payload.HEADER_SIZE)


GOOD = Header(payload.FEATURE_RAW, None, DIGEST, 10, payload.MAX_BLOCK).pack()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(GOOD[:-1], id="cut short"),
        pytest.param(b"OAD2" + GOOD[4:], id="other magic"),
        pytest.param(GOOD[:4] + b"\x02" + GOOD[5:], id="other version"),
        pytest.param(GOOD[:5] + b"\x01" + GOOD[6:], id="a flag"),
        pytest.param(GOOD[:8] + b"\x80\0\0\0" + GOOD[12:], id="unknown encoding"),
        pytest.param(GOOD[:8] + b"\0\0\0\0" + GOOD[12:], id="no encoding"),
        pytest.param(GOOD[:8] + b"\x03\0\0\0" + GOOD[12:], id="two encodings"),
        pytest.param(GOOD[:8] + b"\x08\0\0\0" + GOOD[12:], id="streams of nothing"),
        pytest.param(GOOD[:-4] + b"\0\0\0\0", id="blocks of nothing"),
        pytest.param(GOOD[:-4] + b"\xff\xff\xff\xff", id="blocks of 4 GiB"),
        pytest.param(GOOD[:-12] + b"\xff" * 8 + GOOD[-4:], id="a target of 16 EiB"),
    ],
)
def test_an_unknown_header_is_refused(data):
    with pytest.raises(PeerError) as caught:
        Header.unpack(data)
    assert caught.value.code == "OUT-F110"


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 0, "frames": 0},
        {"size": payload.MAX_PAYLOAD + 1, "frames": payload.MAX_FRAMES + 1},
        {"frames": 3},
        {"payload": "sha256:" + "1" * 64},
        {"base": "x"},
        {"urls": ("https://mirror.example/",) * 5},
        {"urls": ("https://mirror.example/" + "x" * 512,)},
    ],
)
def test_an_entry_that_cannot_be_is_refused_on_construction(bad):
    with pytest.raises(ValueError):
        entry(**bad)


def test_an_agent_skips_encodings_it_does_not_know_and_payloads_larger_than_honest_ones():
    assert entry().usable(100_000)
    assert not entry(features=1 << 7).usable(100_000)
    assert not entry(300_000).usable(100_000)


def test_who_does_not_say_what_a_device_can_gets_what_every_device_can():
    segments = entry(features=payload.FEATURE_SEGMENTS)
    assert not segments.usable(100_000)
    assert segments.usable(100_000, payload.FEATURE_SEGMENTS)
    assert not entry(features=1 << 7).usable(100_000, payload.KNOWN_FEATURES)


def test_names_of_encodings_become_bits_and_back():
    assert payload.features_named(["payload/1", "unknown/9"]) == payload.PLAIN_FEATURES
    for features in payload.FEATURE_SETS - {payload.FEATURE_RAW, payload.FEATURE_ZSTD}:
        assert payload.features_named(payload.names_of(features)) == features
    assert payload.names_of(payload.PLAIN_FEATURES) == ("payload/1",)


def test_a_proof_is_for_one_device_and_one_payload():
    assert (
        payload.payload_proof_bytes("cam-1", DIGEST)
        == b"outrider-payload-v1\0cam-1\0" + DIGEST.encode()
    )


def test_a_hint_of_too_many_entries_is_refused():
    many = codec.encode({"entries": [codec.to_wire(entry())] * 33})
    with pytest.raises(PeerError):
        codec.decode(many, Hint, limit=codec.MAX_HINT)

"""Files are encoded once, into frames that give back exactly their payload."""

from __future__ import annotations

import random

import pytest

from control_plane.encode import encode, reopen
from control_plane.encode.payload import WINDOW_LOG
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_RAW,
    FEATURE_ZSTD,
    FRAME_SIZE,
    HEADER_SIZE,
    MAX_DECODE_MEMORY,
    MAX_WINDOW,
    check_lists,
)

RANDOM = random.Random(3).randbytes(5 * FRAME_SIZE + 17)
TEXT = b"one line like the other\n" * 30_000


def encoded(tmp_path, data):
    file = tmp_path / "file"
    file.write_bytes(data)
    return encode(file, digest_of(data), tmp_path / "payloads")


def test_what_can_be_packed_is_packed(tmp_path):
    entry = encoded(tmp_path, TEXT).entry
    assert entry.features == FEATURE_ZSTD
    assert entry.size < len(TEXT) / 100


def test_what_cannot_be_packed_travels_raw(tmp_path):
    entry = encoded(tmp_path, RANDOM).entry
    assert (entry.features, entry.size) == (FEATURE_RAW, len(RANDOM) + HEADER_SIZE)


@pytest.mark.parametrize("data", [RANDOM, TEXT, b"x"], ids=["random", "text", "one byte"])
def test_frames_and_lists_give_the_payload_that_the_hint_names(tmp_path, data):
    payload = encoded(tmp_path, data)
    entry = payload.entry
    frames = [payload.frame(n) for n in range(entry.frames)]
    lists = [payload.frame_list(n) for n in range(payload.list_count)]
    assert [digest_of(frame)[7:] for frame in frames] == [
        d.hex() for d in check_lists(entry, lists)
    ]
    assert b"".join(frames) == payload.path.read_bytes()
    assert entry.usable(len(data))


def test_encoding_again_gives_the_same_payload(tmp_path):
    assert encoded(tmp_path, TEXT) == encoded(tmp_path, TEXT)


def test_a_payload_is_found_again_by_its_name(tmp_path):
    payload = encoded(tmp_path, RANDOM)
    assert reopen(tmp_path / "payloads", payload.entry.payload) == payload
    payload.remove()
    assert reopen(tmp_path / "payloads", payload.entry.payload) is None
    assert list((tmp_path / "payloads").iterdir()) == []


def test_a_payload_that_is_cut_short_is_not_found(tmp_path):
    payload = encoded(tmp_path, RANDOM)
    payload.path.write_bytes(payload.path.read_bytes()[:-1])
    assert reopen(tmp_path / "payloads", payload.entry.payload) is None
    with pytest.raises(OSError, match="cut short"):
        payload.frame(payload.entry.frames - 1)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(InvalidRequest):
        encoded(tmp_path, b"")


def test_a_file_that_changed_meanwhile_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"changed")
    with pytest.raises(InvalidRequest):
        encode(tmp_path / "file", digest_of(b"before"), tmp_path / "payloads")
    assert list((tmp_path / "payloads").iterdir()) == []


def test_agents_grant_what_decoding_needs(tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(40_000_000)
    payload = encode(large, digest_of(bytes(40_000_000)), tmp_path / "payloads")
    assert payload.entry.decode_memory <= MAX_DECODE_MEMORY
    assert 1 << WINDOW_LOG <= MAX_WINDOW

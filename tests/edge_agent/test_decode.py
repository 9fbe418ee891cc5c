"""Payload files become exactly the signed file, or an error."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.encode import encode
from edge_agent.decode import decode
from protocol.errors import PeerError, TrustError
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_RAW, FEATURE_ZSTD, MAX_BLOCK, Header

FILE = b"The bytes of a model. " * 40_000
DIGEST = digest_of(FILE)
RAW = Header(FEATURE_RAW, None, DIGEST, len(FILE), MAX_BLOCK)
ZSTD = replace(RAW, features=FEATURE_ZSTD)


def packed(data: bytes, **options: int) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)  # type: ignore[arg-type]


def decoded(directory: Path, payload: bytes) -> bytes:
    source, target = directory / "payload", directory / "model.onnx"
    source.write_bytes(payload)
    decode(source, target, DIGEST, len(FILE))
    return target.read_bytes()


GOOD = {"raw": RAW.pack() + FILE, "zstd": ZSTD.pack() + packed(FILE)}


@pytest.mark.parametrize("payload", GOOD.values(), ids=GOOD)
def test_a_payload_becomes_the_file(tmp_path, payload):
    assert decoded(tmp_path, payload) == FILE


def window_of(log: int) -> bytes:
    """A frame that claims a window of 2^log bytes and holds little."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(FILE) + packer.flush()


BAD = {
    "empty": b"",
    "cut inside the header": RAW.pack()[:50],
    "nothing after the header": RAW.pack(),
    "raw, cut short": RAW.pack() + FILE[:-1],
    "raw, too long": RAW.pack() + FILE + b"x",
    "zstd, cut short": ZSTD.pack() + packed(FILE)[:-20],
    "zstd, not zstd": ZSTD.pack() + FILE,
    "decompression bomb": ZSTD.pack() + packed(bytes(400_000_000)),
    "window of 128 MiB": ZSTD.pack() + window_of(27),
    "another file": replace(RAW, target=digest_of(b"other")).pack() + FILE,
    "another size": replace(RAW, target_size=len(FILE) + 1).pack() + FILE,
    "a base that nobody asked for": replace(RAW, base=digest_of(b"base")).pack() + FILE,
    "raw and zstd": replace(RAW, features=FEATURE_RAW | FEATURE_ZSTD).pack() + FILE,
    "features from the future": replace(RAW, features=1 << 7).pack() + FILE,
    "blocks larger than granted": replace(RAW, max_block=MAX_BLOCK + 1).pack() + FILE,
    "another magic": b"XAD1" + RAW.pack()[4:] + FILE,
    "another version": RAW.pack()[:4] + b"\x02" + RAW.pack()[5:] + FILE,
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD)
def test_a_malformed_payload_is_refused_and_leaves_nothing(tmp_path, payload):
    with pytest.raises(PeerError) as caught:
        decoded(tmp_path, payload)
    assert caught.value.code == "OUT-F110"
    assert [path.name for path in tmp_path.iterdir()] == ["payload"]


def test_other_bytes_of_the_right_length_are_not_accepted(tmp_path):
    with pytest.raises(TrustError) as caught:
        decoded(tmp_path, RAW.pack() + FILE[:-1] + b"!")
    assert caught.value.code == "OUT-T103"
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_that_was_there_before_stays_when_decoding_fails(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"before")
    with pytest.raises(PeerError):
        decoded(tmp_path, RAW.pack())
    assert (tmp_path / "model.onnx").read_bytes() == b"before"


@given(
    kind=st.sampled_from(["random", "text", "zeros"]),
    size=st.integers(1, 3 * MAX_BLOCK),
    seed=st.integers(0, 2**32),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_the_control_plane_encodes_the_agent_decodes(tmp_path, kind, size, seed):
    data = {
        "random": lambda: random.Random(seed).randbytes(size),
        "text": lambda: (hashlib.sha256(b"%d" % seed).hexdigest().encode() * (size // 64 + 1))[
            :size
        ],
        "zeros": lambda: bytes(size),
    }[kind]()
    file, target = tmp_path / "file", tmp_path / "out"
    file.write_bytes(data)
    encoded = encode(file, digest_of(data), tmp_path / "payloads")
    decode(encoded.path, target, digest_of(data), size)
    assert target.read_bytes() == data

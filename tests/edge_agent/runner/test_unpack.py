"""Compressed bodies: two encodings, and no more bytes than a plain body may have."""

import gzip
import zlib

import pytest

from edge_agent.runner.http11 import MAX_BODY
from edge_agent.runner.unpack import unpack
from protocol.errors import InvalidRequest

BODY = b'{"inputs":[]}' * 100
RAW = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    "encoding, packed",
    [
        (None, BODY),
        ("identity", BODY),
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
    ],
    # Named, since gzip writes the time into what would be their names.
    ids=["none", "identity", "gzip", "upper case", "deflate"],
)
def test_known_encodings_are_unpacked(encoding, packed):
    assert unpack(packed, encoding) == BODY
    assert unpack(bytearray(packed), encoding) == BODY


@pytest.mark.parametrize(
    "encoding, packed, code",
    [
        pytest.param("br", BODY, "OUT-I116", id="unknown"),
        pytest.param("", BODY, "OUT-I116", id="empty"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(BODY)), "OUT-I116", id="twice"),
        pytest.param("gzip", BODY, "OUT-I106", id="plain"),
        pytest.param("gzip", b"", "OUT-I106", id="nothing"),
        pytest.param("gzip", zlib.compress(BODY), "OUT-I106", id="the other one"),
        pytest.param("deflate", RAW.compress(BODY) + RAW.flush(), "OUT-I106", id="raw deflate"),
        pytest.param("gzip", gzip.compress(BODY)[:-9], "OUT-I106", id="cut off"),
        pytest.param("gzip", gzip.compress(BODY)[:-8] + bytes(8), "OUT-I106", id="wrong checksum"),
        pytest.param("gzip", gzip.compress(BODY) + b"x", "OUT-I106", id="trailing byte"),
        pytest.param("gzip", gzip.compress(BODY) * 2, "OUT-I106", id="two members"),
        pytest.param("gzip", gzip.compress(bytes(MAX_BODY + 1)), "OUT-I105", id="bomb"),
    ],
)
def test_everything_else_is_refused(encoding, packed, code):
    with pytest.raises(InvalidRequest) as caught:
        unpack(packed, encoding)
    assert caught.value.code == code


def test_a_body_may_be_as_large_unpacked_as_plain():
    assert len(unpack(gzip.compress(bytes(MAX_BODY)), "gzip")) == MAX_BODY

"""Bytes to types: bounded, and honest about the future."""

from dataclasses import dataclass

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.device import DeviceDocument
from protocol.errors import NotUnderstood, PeerError
from protocol.plan import DenyList, Plan
from protocol.telemetry import Upload


def unpack(packed: bytes, limit: int) -> bytes:
    try:
        data = zstandard.ZstdDecompressor().stream_reader(packed).read(limit + 1)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(data) > limit:
        raise ValueError("more than allowed")
    return data


pack = zstandard.ZstdCompressor().compress


@pytest.mark.parametrize(
    "data, code",
    [
        pytest.param(b"", "OUT-N210", id="empty"),
        pytest.param(b"\x01", "OUT-N210", id="no JSON"),
        pytest.param(b"\x01{", "OUT-N210", id="cut JSON"),
        pytest.param(b'\x01{"v":1,"v":', "OUT-N210", id="cut in a value"),
        pytest.param(b"\x01[]", "OUT-N210", id="a list"),
        pytest.param(b"\x01\xff\xfe", "OUT-N210", id="not UTF-8"),
        pytest.param(b'\x01{"v":2}', "OUT-N210", id="a future schema"),
        pytest.param(b'\x01{"v":"1"}', "OUT-N210", id="text for a number"),
        pytest.param(b'\x01{"v":9007199254740994}', "OUT-N210", id="beyond 2^53"),
        pytest.param(b"\x02not zstd", "OUT-N211", id="not zstd"),
        pytest.param(b"\x02" + pack(b" " * (2 << 20)), "OUT-N211", id="a bomb"),
        pytest.param(b"\x03", "OUT-N212", id="binary batches come later"),
        pytest.param(b"{}", "OUT-N212", id="no codec byte"),
        pytest.param(b"\x01" + b" " * 65_536, "OUT-N211", id="too large"),
        pytest.param(b"\x01" + b"[" * 60_000, "OUT-N210", id="nested without end"),
    ],
)
def test_a_message_that_is_none_gets_its_code(data, code):
    with pytest.raises(PeerError) as caught:
        codec.decode_up(data, Upload, unpack)
    assert caught.value.code == code


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_decoder(data):
    for into in (Upload, Plan, DeviceDocument, DenyList):
        try:
            codec.decode_up(data, into, unpack)
        except PeerError:
            continue


def test_a_large_message_is_packed_and_a_small_one_is_not():
    small, large = {"v": 1, "a": "x"}, {"v": 1, "a": "x" * 5000}
    assert codec.encode_up(small, pack)[0] == codec.CODEC_JSON
    packed = codec.encode_up(large, pack)
    assert packed[0] == codec.CODEC_ZSTD_JSON
    assert codec.decode_up(packed, dict[str, object], unpack) == large


@pytest.mark.parametrize("into", [Plan, DeviceDocument, DenyList])
def test_what_is_not_understood_is_said_before_the_shape_is_looked_at(into):
    future = b'{"must_understand":["plan/1","teleport/1"],"shape":"unknown"}'
    with pytest.raises(NotUnderstood) as caught:
        codec.decode_signed(future, into, limit=1000)
    assert caught.value.names == ("teleport/1",)
    assert caught.value.code == "OUT-D330"


@pytest.mark.parametrize("value", [b'"plan/1"', b"[1]", b"{}", b"null"])
def test_a_must_understand_that_is_no_list_of_names_is_malformed(value):
    with pytest.raises(PeerError):
        codec.decode_signed(b'{"must_understand":' + value + b"}", Plan, limit=1000)


def test_must_understand_is_always_written():
    assert b'"must_understand":["deny/1"]' in codec.encode(DenyList("north", 1))


def test_unknown_fields_are_ignored_and_equal_values_give_equal_bytes():
    data = b'{"version":3,"fleet":"north","later":{"x":1},"must_understand":["deny/1"]}'
    deny = codec.decode_signed(data, DenyList, limit=1000)
    assert deny == DenyList("north", 3)
    assert codec.encode(deny) == codec.encode(DenyList("north", 3))


@dataclass(frozen=True, slots=True)
class Inner:
    n: int = 0


@dataclass(frozen=True, slots=True)
class Outer:
    a: Inner = Inner()
    b: tuple[Inner, ...] = ()


def test_defaults_are_left_out_at_every_level():
    assert codec.encode(Outer(b=(Inner(), Inner(2)))) == b'{"b":[{},{"n":2}]}'

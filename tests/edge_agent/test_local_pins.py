"""Pins of technicians: in force once they are on disk, and never in the way of a start."""

from dataclasses import replace

import pytest

from edge_agent import durable
from edge_agent.local_pins import LocalPins
from protocol.device import Pin
from protocol.errors import Unavailable
from protocol.identifiers import digest_of
from protocol.reported import LocalPin

NOW_MS = 1_795_000_000_000
V1, V2 = digest_of(b"v1"), digest_of(b"v2")
PIN = LocalPin(V1, None, "wrong labels", "tom", NOW_MS)
ENDING = replace(PIN, until_ms=NOW_MS + 1000)


def test_a_pin_survives_a_restart_with_who_and_why(tmp_path):
    LocalPins(tmp_path).put("digits", PIN)
    again = LocalPins(tmp_path)
    assert again.pins == {"digits": PIN}
    assert again.order("digits", NOW_MS) == Pin(V1, None)
    assert again.order("faces", NOW_MS) is None


def test_the_last_pin_of_a_model_holds(tmp_path):
    pins = LocalPins(tmp_path)
    pins.put("digits", PIN)
    pins.put("digits", replace(PIN, digest=V2))
    assert LocalPins(tmp_path).order("digits", NOW_MS) == Pin(V2, None)


def test_a_pin_that_was_taken_back_is_forgotten_for_good(tmp_path):
    pins = LocalPins(tmp_path)
    pins.put("digits", PIN)
    assert pins.take_back("digits") == PIN
    assert pins.take_back("digits") is None
    assert LocalPins(tmp_path).pins == {}


def test_a_pin_ends_by_itself_in_trusted_time_and_says_so_once(tmp_path):
    pins = LocalPins(tmp_path)
    pins.put("digits", ENDING)
    pins.put("faces", PIN)
    assert pins.ended(NOW_MS + 999) == ()
    assert pins.holding("digits", NOW_MS + 999) == ENDING
    assert pins.holding("digits", NOW_MS + 1000) is None
    assert pins.ended(NOW_MS + 1000) == ("digits",)
    assert pins.ended(NOW_MS + 1000) == ()
    assert LocalPins(tmp_path).pins == {"faces": PIN}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"v":2,"pins":{}}',
        b'{"v":1,"pins":{"digits":{"digest":"x"}}}',
        b"\xff" * 70_000,
    ],
)
def test_a_file_that_cannot_be_read_pins_nothing_and_is_told(tmp_path, content):
    (tmp_path / "local-pins.json").write_bytes(content)
    pins = LocalPins(tmp_path)
    assert pins.pins == {}
    assert "local-pins.json" in pins.problem
    pins.put("digits", PIN)
    assert pins.problem == ""
    assert LocalPins(tmp_path).pins == {"digits": PIN}


def test_a_pin_that_cannot_be_written_is_not_in_force(tmp_path, monkeypatch):
    pins = LocalPins(tmp_path)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "replace", full)
    with pytest.raises(Unavailable) as raised:
        pins.put("digits", PIN)
    assert raised.value.code == "OUT-D201"
    assert pins.pins == {}

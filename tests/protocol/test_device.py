"""Device documents: a closed list of settings with hard ranges."""

from dataclasses import fields

import pytest

from protocol.codec import MAX_DEVICE_DOCUMENT, decode_signed, encode, to_wire
from protocol.device import DeviceDocument, Pin, Settings, TransferWindow
from protocol.errors import PeerError

D = "sha256-" + "e" * 64
DOCUMENT = DeviceDocument(
    "north",
    "north-cam-1",
    29_400_000,
    since=3,
    labels={"site": "leeds", "fact/arch": "aarch64"},
    pins={"digits": Pin(D, 1_800_000_000_000)},
    allow={"digits": {D: 2}},
    settings=Settings(state_interval_s=600, transfer_windows=(TransferWindow(60, 300),)),
)


def test_a_document_survives_the_wire():
    data = encode(DOCUMENT)
    assert decode_signed(data, DeviceDocument, limit=MAX_DEVICE_DOCUMENT) == DOCUMENT


def test_the_name_is_selectable_and_cannot_be_relabelled():
    assert DOCUMENT.selectable["id"] == "cam-1"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"device": "south-cam-1"}, id="another fleet's device"),
        pytest.param({"labels": {"Site": "x"}}, id="a label key of other form"),
        pytest.param({"labels": {"site": "x" * 129}}, id="a label value too long"),
        pytest.param({"labels": {f"l{n}": "" for n in range(201)}}, id="too many labels"),
        pytest.param({"pins": {"digits": {"digest": "v1"}}}, id="a pin to a name"),
        pytest.param({"allow": {"digits": {D: -1}}}, id="a negative allowance"),
        pytest.param({"version": 1.5}, id="a version that is no integer"),
        pytest.param({"settings": {"state_interval_s": 59}}, id="reports too often"),
        pytest.param({"settings": {"state_interval_s": 21_601}}, id="reports too rarely"),
        pytest.param({"settings": {"buffer_bytes": 3_999_999}}, id="a buffer too small"),
        pytest.param({"settings": {"buffer_bytes": 10**9 + 1}}, id="a buffer too large"),
        pytest.param({"settings": {"drift_ln_threshold": 8.9}}, id="an alarm too eager"),
        pytest.param(
            {"settings": {"transfer_windows": [{"start_minute": 0, "stop_minute": 1441}]}},
            id="a minute after midnight",
        ),
    ],
)
def test_out_of_range_refuses_the_whole_document(change):
    with pytest.raises(PeerError):
        decode_signed(encode(to_wire(DOCUMENT) | change), DeviceDocument, limit=100_000)


def test_settings_can_switch_capture_off_and_nothing_can_switch_it_on():
    """Capture is granted by approvers; the one setting about it only subtracts."""
    about = [field for field in fields(Settings) if "capture" in field.name]
    assert [(field.name, field.default) for field in about] == [("capture_off", False)]
    wire = to_wire(DOCUMENT)
    for on in ({"capture_off": False, "capture": True}, {"capture_on": True, "capture_rows": 9}):
        # Unknown names change nothing: what is read is what no setting at all gives.
        read = decode_signed(
            encode(wire | {"settings": on}), DeviceDocument, limit=MAX_DEVICE_DOCUMENT
        )
        assert read.settings == Settings()
    for wrong in (None, "on", 0, -1):
        with pytest.raises(PeerError):
            decode_signed(
                encode(wire | {"settings": {"capture_off": wrong}}),
                DeviceDocument,
                limit=MAX_DEVICE_DOCUMENT,
            )

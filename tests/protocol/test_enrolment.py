"""What joins and renews: valid on construction, the same bytes on both sides."""

import base64

import pytest

from protocol.codec import decode, encode, to_wire
from protocol.enrolment import (
    MAX_ANSWER,
    MAX_CSR,
    MAX_REQUEST,
    Broker,
    OfflineAnswer,
    OfflineRequest,
    RenewAnswer,
    RenewRequest,
    proof_bytes,
)
from protocol.errors import PeerError
from protocol.identifiers import digest_of

PROOF = base64.b64encode(b"signature").decode()
RENEW = RenewRequest("north-cam-1", "csr", PROOF)
RENEWED = RenewAnswer("crt", "bca", "aca", Broker("broker", 8883), "https://plane:8400")
ROOT = '{"naïve":1}'
ANSWER = OfflineAnswer(
    "north-cam-1",
    "north",
    "crt",
    "bca",
    Broker("broker", 8883),
    ROOT,
    "https://[::1]:8400",
    "aca",
    digest_of(ROOT.encode()),
    labels={"site": "x"},
)


@pytest.mark.parametrize(
    "value",
    [
        RENEW,
        RENEWED,
        ANSWER,
        OfflineRequest("csr", "cam-1"),
        OfflineRequest("csr"),
        OfflineRequest("csr", None, "north-cam-1", PROOF),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_survives_the_wire(value):
    assert decode(encode(value), type(value), limit=MAX_ANSWER) == value


def test_a_proof_says_what_it_is_for():
    """Fixed for ever: both sides compute it, and they are of different versions."""
    assert proof_bytes("north-cam-1", "csr") == b"outrider-renew-v1\0north-cam-1\0csr"


def test_a_proof_of_one_device_is_none_of_another():
    assert proof_bytes("north-cam-1", "csr") != proof_bytes("north-cam-2", "csr")


def test_the_signature_is_what_the_proof_carries():
    assert RENEW.signature == b"signature"


def test_the_largest_request_fits_the_limit_of_its_body():
    assert len(encode(RenewRequest("north-cam-1", "x" * MAX_CSR, "A" * 256))) < MAX_REQUEST


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"device": "north"}, id="a fleet"),
        pytest.param({"device": "north-../x"}, id="a path"),
        pytest.param({"device": "north-cam\0"}, id="a zero byte"),
        pytest.param({"csr": "x" * (MAX_CSR + 1)}, id="a request too long"),
        pytest.param({"proof": ""}, id="no proof"),
        pytest.param({"proof": "A" * 257}, id="a proof too long"),
        pytest.param({"proof": "_-=="}, id="another alphabet"),
        pytest.param({"proof": "é==="}, id="no ASCII"),
    ],
)
def test_a_renewal_of_another_form_is_refused(change):
    with pytest.raises(PeerError):
        decode(encode(to_wire(RENEW) | change), RenewRequest, limit=10 * MAX_REQUEST)


@pytest.mark.parametrize("url", ["http://plane:8400", "https://plane/x", "https://plane:0", ""])
def test_the_control_plane_is_found_at_an_https_address(url):
    with pytest.raises(PeerError):
        decode(encode(to_wire(RENEWED) | {"url": url}), RenewAnswer, limit=MAX_ANSWER)
    with pytest.raises(PeerError):
        decode(encode(to_wire(ANSWER) | {"url": url}), OfflineAnswer, limit=MAX_ANSWER)


def test_a_request_on_a_stick_enrols_or_renews():
    assert OfflineRequest("csr", "cam-1").renewal is None
    assert OfflineRequest("csr", None, "north-cam-1", PROOF).renewal == RENEW


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"device": "north-cam-1"}, id="a device without its proof"),
        pytest.param({"proof": PROOF}, id="a proof of nobody"),
        pytest.param({"device": "north-cam-1", "proof": "!"}, id="no base64"),
        pytest.param({"name": "Cam 1"}, id="a name of other form"),
        pytest.param({"csr": "x" * (MAX_CSR + 1)}, id="a request too long"),
    ],
)
def test_a_request_on_a_stick_is_whole(change):
    with pytest.raises(PeerError):
        decode(encode({"csr": "csr"} | change), OfflineRequest, limit=10 * MAX_REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"device": "south-cam-1"}, id="another fleet's device"),
        pytest.param({"root": "{}"}, id="another root than its digest says"),
        pytest.param({"labels": {"Site": "x"}}, id="a label key of other form"),
    ],
)
def test_an_answer_on_a_stick_agrees_with_itself(change):
    with pytest.raises(PeerError):
        decode(encode(to_wire(ANSWER) | change), OfflineAnswer, limit=MAX_ANSWER)

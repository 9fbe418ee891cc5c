"""Who may read a payload over HTTP: devices of the fleet, with keys that are still theirs."""

from __future__ import annotations

import pytest

from control_plane.fleet.enrolment import Enrolment
from control_plane.fleet.reading import require_reader
from protocol.enrolment import Broker, EnrolRequest, decode_token, proof_bytes
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.payload import payload_proof_bytes
from tests.fakes.device_keys import Key, csr, new_key, renewal, signed

NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000
PAYLOAD, OTHER = digest_of(b"payload"), digest_of(b"other")
CAM = "local-cam-1"


@pytest.fixture
def enrolment(authority, store):
    api, broker = "https://127.0.0.1:8400", Broker("127.0.0.1", 8883)
    return Enrolment("local", authority, store, api, broker, lambda: b"{}")


@pytest.fixture(params=["P-256", "Ed25519"])
def key(request, enrolment) -> Key:
    """Of a device cam-1, enrolled."""
    made = new_key(request.param)
    enrol(enrolment, made, "cam-1")
    return made


def enrol(enrolment: Enrolment, key: Key, name: str) -> None:
    token = decode_token(enrolment.create_token(NOW_MS)).t
    enrolment.enrol(EnrolRequest(token, csr(key), name), NOW_MS)


def proof(key: Key, device: str = CAM, payload: str = PAYLOAD) -> str:
    return signed(key, payload_proof_bytes(device, payload))


def refused(store, device: str, payload: str, signature: str) -> str:
    with pytest.raises(InvalidRequest) as said:
        require_reader(store, device, payload, signature)
    return said.value.code


def test_a_device_reads_what_it_has_a_proof_for(store, key):
    require_reader(store, CAM, PAYLOAD, proof(key))
    assert refused(store, CAM, OTHER, proof(key)) == "OUT-A211"


def test_a_proof_is_of_one_device_and_by_its_own_key(store, enrolment, key):
    other = new_key()
    enrol(enrolment, other, "cam-2")
    assert refused(store, CAM, PAYLOAD, proof(other)) == "OUT-A211"
    assert refused(store, "local-cam-2", PAYLOAD, proof(key)) == "OUT-A211"
    assert refused(store, "local-cam-2", PAYLOAD, proof(key, "local-cam-2")) == "OUT-A211"
    assert refused(store, "local-cam-9", PAYLOAD, proof(key, "local-cam-9")) == "OUT-A211"
    assert refused(store, "cam-1", PAYLOAD, proof(key, "cam-1")) == "OUT-A211"


@pytest.mark.parametrize("signature", ["", "%", "AAAA", "ü", "A" * 100])
def test_what_is_no_signature_is_refused_like_a_wrong_one(store, key, signature):
    assert refused(store, CAM, PAYLOAD, signature) == "OUT-A211"


def test_a_signature_for_something_else_is_no_proof(store, key):
    """The key also signs renewals: one cannot be made into the other."""
    renewing = proof_bytes(CAM, csr(key))
    assert refused(store, CAM, PAYLOAD, signed(key, renewing)) == "OUT-A211"
    assert not renewing.startswith(payload_proof_bytes(CAM, ""))


def test_a_retired_device_reads_nothing_at_once(store, key):
    store.devices.retire(CAM, NOW_MS)
    assert refused(store, CAM, PAYLOAD, proof(key)) == "OUT-A212"


def test_a_key_that_was_revoked_reads_nothing_and_its_successor_does(store, enrolment, key):
    new = new_key()
    enrolment.renew(renewal(key, new), NOW_MS + DAY_MS)
    # Both count until the device has shown which of them it uses.
    require_reader(store, CAM, PAYLOAD, proof(key))
    require_reader(store, CAM, PAYLOAD, proof(new))
    enrolment.renew(renewal(new), NOW_MS + 2 * DAY_MS)
    assert refused(store, CAM, PAYLOAD, proof(key)) == "OUT-A212"
    require_reader(store, CAM, PAYLOAD, proof(new))

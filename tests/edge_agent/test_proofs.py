"""What a device shows to its control plane when it reads a payload there."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.enrol import device_key
from edge_agent.identity import KEY, Enrolled, Identity
from edge_agent.proofs import SCHEME, Proofs
from edge_agent.renew import signing_key
from protocol.enrolment import Broker
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, digest_of
from protocol.payload import payload_proof_bytes

DEVICE = "local-cam-1"
PAYLOAD, OTHER = digest_of(b"payload"), digest_of(b"other")


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    device_key(tmp_path / KEY)
    root = digest_of(b"root")
    enrolled = Enrolled(
        DEVICE, "local", Broker("broker", 8883), root, url="https://plane:8443", api_ca="authority"
    )
    return Identity(tmp_path, enrolled, b"root")


def shown(identity: Identity, said: str, payload: Digest, device: str = DEVICE) -> bool:
    """Whether a header's value proves that this device asks for this payload."""
    scheme, _, rest = said.partition(" ")
    named, _, signature = rest.rpartition(":")
    assert (scheme, named) == (SCHEME, DEVICE)
    public = signing_key(identity.folder).public_key()
    signed = payload_proof_bytes(device, payload)
    try:
        public.verify(base64.b64decode(signature), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def test_a_proof_opens_one_payload_to_one_device(identity):
    said = Proofs(identity).proof(PAYLOAD)
    assert shown(identity, said, PAYLOAD)
    assert not shown(identity, said, OTHER)
    assert not shown(identity, said, PAYLOAD, device="local-cam-2")


def test_each_payload_has_its_own_and_one_is_enough_for_all_requests(identity):
    proofs = Proofs(identity)
    first = proofs.proof(PAYLOAD)
    assert proofs.proof(PAYLOAD) == first
    assert shown(identity, proofs.proof(OTHER), OTHER)
    assert shown(identity, proofs.proof(PAYLOAD), PAYLOAD)


def test_a_proof_fits_into_a_header(identity):
    said = Proofs(identity).proof(PAYLOAD)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 300


def test_a_device_without_a_key_proves_nothing(identity):
    (identity.folder / KEY).unlink()
    with pytest.raises(InvalidRequest, match="D403"):
        Proofs(identity).proof(PAYLOAD)


def test_renewal_says_where_the_control_plane_is_now(identity):
    proofs = Proofs(identity)
    moved = replace(identity, enrolled=replace(identity.enrolled, url="https://elsewhere"))
    proofs.follow(moved)
    server = proofs.server()
    assert server is not None
    assert (server.host, server.port, server.authority) == ("elsewhere", 443, "authority")


def test_a_device_that_was_never_told_of_a_server_has_none(identity):
    old = replace(identity, enrolled=replace(identity.enrolled, url="", api_ca=""))
    assert Proofs(old).server() is None

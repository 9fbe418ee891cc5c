"""Certificates that follow certificates: for the key that a device has, and for nobody else."""

from __future__ import annotations

import pytest
from cryptography import x509

from control_plane.fleet.authority import LEAF_LIFE, fingerprint
from control_plane.fleet.enrolment import Enrolment
from control_plane.fleet.renewal import DAY_MS, MOST_PER_DAY
from protocol.enrolment import (
    Broker,
    EnrolRequest,
    OfflineRequest,
    RenewRequest,
    decode_token,
    proof_bytes,
)
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from tests.fakes.device_keys import Key, csr, new_key, renewal, signed

NOW_MS = 1_795_000_000_000
LIFE_MS = LEAF_LIFE.days * DAY_MS
ROOT = b"{}"


@pytest.fixture
def enrolment(authority, store):
    api, broker = "https://127.0.0.1:8400", Broker("127.0.0.1", 8883)
    return Enrolment("local", authority, store, api, broker, lambda: ROOT)


@pytest.fixture(params=["P-256", "Ed25519"])
def key(request, enrolment):
    """Of a device cam-1, enrolled."""
    made = new_key(request.param)
    enrol(enrolment, made, "cam-1")
    return made


def enrol(enrolment: Enrolment, key: Key, name: str) -> bytes:
    token = decode_token(enrolment.create_token(NOW_MS)).t
    return enrolment.enrol(EnrolRequest(token, csr(key), name), NOW_MS).certificate.encode()


def test_enrolment_records_its_certificate(enrolment, store):
    pem = enrol(enrolment, new_key(), "cam-1")
    (kept,) = store.certificates.of("local-cam-1")
    certificate = x509.load_pem_x509_certificate(pem)
    assert int(kept.serial, 16) == certificate.serial_number
    assert kept.fingerprint == fingerprint(pem)
    assert kept.not_after_ms == NOW_MS + LIFE_MS
    assert (kept.issued_ms, kept.revoked_ms) == (NOW_MS, None)


@pytest.mark.parametrize(
    "later_ms", [LIFE_MS // 2, LIFE_MS + DAY_MS, 20 * LIFE_MS], ids=["half", "expired", "long ago"]
)
def test_the_holder_of_the_key_gets_the_next_certificate_also_after_the_last_has_expired(
    enrolment, store, key, later_ms
):
    now_ms = NOW_MS + later_ms
    answer = enrolment.renew(renewal(key), now_ms)
    pem = answer.certificate.encode()
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.subject.rfc4514_string() == "CN=local-cam-1"
    assert certificate.public_key() == key.public_key()
    assert certificate.not_valid_after_utc.timestamp() * 1000 == now_ms + LIFE_MS
    assert store.devices.get("cam-1").certificate == fingerprint(pem)
    assert len(store.certificates.of("local-cam-1")) == 2
    assert not any(each.revoked_ms for each in store.certificates.of("local-cam-1"))
    assert answer.url == "https://127.0.0.1:8400"
    assert answer.broker == Broker("127.0.0.1", 8883)
    x509.load_pem_x509_certificate(answer.api_ca.encode())
    x509.load_pem_x509_certificate(answer.broker_ca.encode())


def test_a_new_key_follows_and_a_lost_answer_is_asked_for_again_with_the_old_one(
    enrolment, store, key
):
    new = new_key()
    enrolment.renew(renewal(key, new), NOW_MS + 1)
    enrolment.renew(renewal(key, new), NOW_MS + 2)
    enrolment.renew(renewal(new), NOW_MS + 3)
    old, *_ = reversed(store.certificates.of("local-cam-1"))
    assert (old.revoked_ms, old.reason) == (NOW_MS + 3, "superseded")
    assert_refused("A212", enrolment, renewal(key))
    assert_refused("A212", enrolment, renewal(new, key))


def assert_refused(code: str, enrolment: Enrolment, request: RenewRequest) -> None:
    before = enrolment.store.certificates.of(request.device)
    with pytest.raises(InvalidRequest, match=code):
        enrolment.renew(request, NOW_MS + 10)
    assert enrolment.store.certificates.of(request.device) == before


def wrong(key: Key) -> dict[str, RenewRequest]:
    right, thief = renewal(key), new_key()
    other = renewal(key, device="local-cam-2")
    stray = signed(key, csr(key).encode())
    return {
        "another key": renewal(thief),
        "a proof for another request": RenewRequest(right.device, csr(thief), right.proof),
        "a proof for another device": RenewRequest(right.device, other.csr, other.proof),
        "a signature over other bytes": RenewRequest(right.device, right.csr, stray),
        "no signature": RenewRequest(right.device, right.csr, "AAAA"),
        "another device": other,
        "no device": renewal(key, device="local-cam-9"),
        "another fleet": renewal(key, device="north-cam-1"),
    }


@pytest.mark.parametrize("what", sorted(wrong(new_key())))
def test_without_the_proof_of_its_own_key_nothing_is_renewed(enrolment, key, what):
    enrol(enrolment, new_key(), "cam-2")
    assert_refused("A211", enrolment, wrong(key)[what])


def test_an_unknown_device_and_a_wrong_proof_are_answered_in_the_same_words(enrolment, key):
    said = set()
    for request in (wrong(key)["another key"], wrong(key)["no device"]):
        with pytest.raises(InvalidRequest) as caught:
            enrolment.renew(request, NOW_MS)
        said.add(caught.value.why)
    assert len(said) == 1


def test_a_retired_device_gets_no_certificate(enrolment, store, key):
    store.devices.retire("local-cam-1", NOW_MS)
    assert_refused("A212", enrolment, renewal(key))
    store.certificates.revoke("local-cam-1", NOW_MS, "retired")
    assert_refused("A212", enrolment, renewal(key))


def test_a_revoked_key_gets_no_certificate(enrolment, store, key):
    assert store.certificates.revoke("local-cam-1", NOW_MS, "stolen") == 1
    assert_refused("A212", enrolment, renewal(key))


def test_a_request_that_cannot_be_used_is_refused_and_changes_nothing(enrolment, key):
    data = proof_bytes("local-cam-1", "nonsense")
    request = RenewRequest("local-cam-1", "nonsense", signed(key, data))
    assert_refused("A210", enrolment, request)


def test_a_device_that_renews_again_and_again_has_to_wait(enrolment, key):
    for number in range(MOST_PER_DAY - 1):
        enrolment.renew(renewal(key), NOW_MS + number)
    assert_refused("A103", enrolment, renewal(key))
    enrolment.renew(renewal(key), NOW_MS + DAY_MS + 1)


# --- devices without network ------------------------------------------------------------------


def test_a_request_that_was_brought_is_answered_once_with_all_that_a_token_would_have_said(
    enrolment, store, authority
):
    request = OfflineRequest(csr(new_key()), "cam-9")
    answer = enrolment.enrol_offline(request, {"site": "x"}, NOW_MS)
    assert (answer.device, answer.labels) == ("local-cam-9", {"site": "x"})
    assert answer.root_digest == digest_of(ROOT)
    assert answer.api_ca.encode() == authority.api_ca
    assert len(store.certificates.of("local-cam-9")) == 1
    with pytest.raises(InvalidRequest, match=r"A210.*answered already"):
        enrolment.enrol_offline(request, {}, NOW_MS)
    again = OfflineRequest(request.csr, "cam-10")
    with pytest.raises(InvalidRequest, match="A210"):
        enrolment.enrol_offline(again, {}, NOW_MS)
    assert store.devices.get("cam-10") is None


def test_an_answer_that_was_lost_is_given_again_after_the_device_was_retired(enrolment, store):
    request = OfflineRequest(csr(new_key()), "cam-9")
    enrolment.enrol_offline(request, {}, NOW_MS)
    store.devices.retire("local-cam-9", NOW_MS)
    with pytest.raises(InvalidRequest, match="A203"):
        enrolment.enrol_offline(request, {}, NOW_MS)
    again = OfflineRequest(request.csr, "cam-10")
    assert enrolment.enrol_offline(again, {}, NOW_MS).device == "local-cam-10"


@pytest.mark.parametrize("labels", [{"id": "x"}, {"fact/arch": "x"}, {"Site": "x"}])
def test_labels_of_a_brought_request_are_checked_like_those_of_a_token(enrolment, labels):
    with pytest.raises(InvalidRequest, match="S120"):
        enrolment.enrol_offline(OfflineRequest(csr(new_key())), labels, NOW_MS)

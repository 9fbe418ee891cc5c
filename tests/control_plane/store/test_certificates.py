"""Certificates on record, and devices that leave: what is forgotten and what is not."""

from __future__ import annotations

import pytest

from control_plane.store import Store
from control_plane.store.certificates import Certificate
from protocol.device import Pin
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.reported import ModelState, ReportedState

A, B = "north-a", "north-b"
PRINT = digest_of(b"certificate")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


def certificate(serial: str, device: str = A, key: str = "key", issued_ms: int = 1) -> Certificate:
    return Certificate(serial, device, PRINT, key, 1000, issued_ms)


def test_certificates_of_a_device_are_given_newest_first(store):
    for serial, issued_ms in (("1", 5), ("2", 9), ("3", 7)):
        store.certificates.add(certificate(serial, issued_ms=issued_ms))
    store.certificates.add(certificate("4", B))
    assert [each.serial for each in store.certificates.of(A)] == ["2", "3", "1"]
    assert store.certificates.of(A)[0] == certificate("2", issued_ms=9)


def test_a_revocation_spares_some_keys_and_keeps_what_was_said_first(store):
    for serial, key in (("1", "old"), ("2", "used"), ("3", "new")):
        store.certificates.add(certificate(serial, key=key))
    store.certificates.add(certificate("4", B, key="old"))
    assert store.certificates.revoke(A, 10, "superseded", but_keys=("used", "new")) == 1
    assert store.certificates.revoke(A, 20, "retired") == 2
    assert store.certificates.revoked(0) == (("1", 10), ("2", 20), ("3", 20))
    reasons = {each.serial: each.reason for each in store.certificates.of(A)}
    assert reasons == {"1": "superseded", "2": "retired", "3": "retired"}


def test_a_certificate_that_has_expired_is_on_no_list(store):
    store.certificates.add(certificate("1"))
    store.certificates.revoke(A, 10, "retired")
    assert store.certificates.revoked(999) == (("1", 10),)
    assert store.certificates.revoked(1000) == ()


def test_owners_of_a_key_are_found(store):
    for serial, device, key in (("1", B, "k"), ("2", A, "k"), ("3", A, "k"), ("4", A, "other")):
        store.certificates.add(certificate(serial, device, key))
    assert store.certificates.owners("k") == (A, B)
    assert store.certificates.owners("nobody's") == ()


# --- devices that leave ---------------------------------------------------------------------------


@pytest.fixture
def fleet(store):
    for device in (A, B):
        store.devices.enrol(device, {"site": "x"}, PRINT, 60_000)
        models = {"digits": ModelState(serving=digest_of(b"v1"))}
        store.devices.put_state(device, ReportedState(1, "0.1", models=models), 5)
    return store


def names(devices) -> list[str]:
    return [each.local for each in devices]


def test_a_retired_device_is_in_no_list_and_counts_nowhere(fleet):
    assert fleet.devices.retire(A, 70_000)
    devices = fleet.devices
    assert names(devices.all()) == names(devices.page().items) == ["b"]
    assert names(devices.unpublished()) == names(devices.changed_after(0)) == ["b"]
    assert (devices.count(), devices.count(lambda _: True)) == (1, 1)
    assert devices.running("digits") == {digest_of(b"v1"): 1}
    assert (devices.is_member(A), devices.is_member(B)) == (False, True)


def test_it_is_found_by_whoever_asks_for_it(fleet):
    fleet.devices.retire(A, 70_000)
    devices = fleet.devices
    assert names(devices.all(retired=True)) == names(devices.page(retired=True).items) == ["a"]
    assert devices.count(retired=True) == 1
    found = devices.need("a")
    assert (found.retired_ms, found.labels) == (70_000, {"site": "x"})
    assert found.state is not None


def test_its_name_is_never_given_again(fleet):
    fleet.devices.retire(A, 70_000)
    with pytest.raises(InvalidRequest, match="A203"):
        fleet.devices.enrol(A, {}, None, 80_000)


def test_retiring_twice_is_retiring_once(fleet):
    assert fleet.devices.retire(A, 70_000)
    assert not fleet.devices.retire(A, 80_000)
    assert not fleet.devices.retire("north-ghost", 80_000)
    assert fleet.devices.need(A).retired_ms == 70_000


def test_what_it_says_afterwards_changes_nothing(fleet):
    fleet.devices.retire(A, 70_000)
    models = {"digits": ModelState(serving=digest_of(b"v2"))}
    assert not fleet.devices.put_state(A, ReportedState(9, "0.1", models=models), 80_000)
    assert fleet.devices.running("digits") == {digest_of(b"v1"): 1}


def test_its_document_is_withdrawn_once_for_each_publisher(fleet):
    fleet.devices.retire(A, 70_000)
    assert fleet.devices.to_withdraw() == (A,)
    fleet.devices.set_withdrawn(A)
    assert fleet.devices.to_withdraw() == ()
    fleet.devices.unpublish_all()
    assert fleet.devices.to_withdraw() == (A,)


def test_an_id_is_preferred_to_a_local_name_that_looks_like_it(store):
    store.devices.enrol("north-north-a", {}, None, 1)
    store.devices.enrol("north-a", {}, None, 1)
    assert store.devices.need("north-a").id == "north-a"
    assert store.devices.need("north-north-a").id == "north-north-a"


def test_a_renewed_certificate_makes_a_new_document_and_no_new_labels(fleet):
    before = fleet.devices.need(A)
    after = fleet.devices.certify(A, digest_of(b"next"), 60_000)
    assert after.certificate == digest_of(b"next")
    assert after.version == before.version + 1
    assert after.since == before.since


def test_pins_of_a_token_are_in_the_first_document(store):
    pins = {"digits": Pin(digest_of(b"v1"), 9)}
    store.tokens.create("hash", {"site": "x"}, "c", 100, pins)
    token = store.tokens.consume("hash", 50)
    assert token is not None
    assert token.pins == pins
    device = store.devices.enrol("north-c", token.labels, None, 1, token.pins)
    assert device.pins == pins

"""Retiring, replacing, renewing, and answering requests that were brought: over the API."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509

from control_plane.fleet.authority import fingerprint
from control_plane.web.attempts import Limits
from protocol.codec import to_wire
from protocol.device import Pin
from protocol.enrolment import decode_token
from protocol.identifiers import digest_of
from tests.control_plane.web.conftest import Api
from tests.fakes.device_keys import Key, csr, new_key, renewal


@pytest.fixture
def fleet(api: Api) -> Api:
    api.enrol("a-1", site="a")
    api.enrol("a-2", site="a")
    return api


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def enrolled(api: Api, name: str, **labels: str) -> Key:
    """A device that joined by a token; its key."""
    token = decode_token(api.post("tokens", {"name": name, "labels": labels}).json()["token"])
    key = new_key()
    assert api.post("/v1/enrol", {"token": token.t, "csr": csr(key)}).status_code == 201
    return key


def names(answer) -> list[str]:
    return [device["name"] for device in answer.json()["items"]]


def history(api: Api, about: str) -> list[tuple[str, str, str]]:
    records = api.store.audit.page(about=about, limit=50).items
    return [(each.who, each.what, each.why) for each in records]


# --- retiring ------------------------------------------------------------------------------------


def test_a_retired_device_is_gone_from_the_lists_and_found_among_the_retired(fleet):
    answer = fleet.post("devices/a-1/retire", {"why": "stolen"})
    assert answer.status_code == 200
    assert answer.json()["retired"]
    found = fleet.get("devices")
    assert (names(found), found.json()["count"]) == (["a-2"], 1)
    gone = fleet.get("devices", retired=True)
    assert (names(gone), gone.json()["count"]) == (["a-1"], 1)
    assert fleet.get("devices/a-1").json()["device"]["retired"]
    assert fleet.get("devices/a-2").json()["device"]["retired"] is None


def test_its_certificates_are_revoked_and_somebody_is_told(api):
    enrolled(api, "c-1")
    told: list[None] = []
    wakes = len(api.wakes)
    swap(api, told)
    api.post("devices/c-1/retire", {"why": "stolen"})
    (certificate,) = api.store.certificates.of("north-c-1")
    assert (certificate.revoked_ms, certificate.reason) == (api.clock[0], "retired")
    assert len(told) == 1
    assert len(api.wakes) > wakes
    api.post("devices/c-1/retire", {"why": "again"})
    assert len(told) == 1


def swap(api: Api, told: list[None]) -> None:
    """Have `parts.revoked` note that it was called."""
    api.parts = replace(api.parts, revoked=lambda: told.append(None))
    app = api.client.app
    app.state.parts = api.parts  # type: ignore[attr-defined]  # it is a FastAPI


def test_who_retired_it_and_why_is_on_record(fleet):
    fleet.post("devices/a-1/retire", {"why": "stolen"})
    ((who, what, why),) = history(fleet, "devices/a-1")
    assert (who, what, why) == ("local", "device.retired", "stolen")


@pytest.mark.parametrize("body", [{}, {"why": ""}, {"why": "  "}])
def test_a_reason_belongs_to_it(fleet, body):
    assert code(fleet.post("devices/a-1/retire", body)) == (422, "OUT-S120")
    assert fleet.store.devices.is_member("north-a-1")


def test_nothing_can_be_changed_about_a_retired_device(fleet):
    fleet.approved()
    fleet.post("devices/a-1/retire", {"why": "stolen"})
    for answer in (
        fleet.patch("devices/a-1", {"labels": {"site": "b"}}),
        fleet.put("devices/a-1/pins/digits", {"version": "v1"}),
        fleet.delete("devices/a-1/pins/digits"),
        fleet.post("devices/a-1/allow", {"model": "digits", "version": "v1"}),
    ):
        assert code(answer) == (403, "OUT-A212")


def test_an_unknown_device_cannot_be_retired(fleet):
    assert code(fleet.post("devices/a-9/retire", {"why": "x"})) == (404, "OUT-S110")


def test_a_rollout_starts_without_retired_devices(fleet):
    fleet.approved()
    fleet.post("devices/a-1/retire", {"why": "stolen"})
    started = fleet.post("rollouts", {"version": "digits/v1", "waves": ["100%"]})
    assert started.json()["targeted"] == 1


# --- replacing -----------------------------------------------------------------------------------


def test_a_replacement_inherits_labels_and_pins_under_a_new_name(fleet):
    bundle = fleet.approved()
    fleet.put("devices/a-1/pins/digits", {"version": "v1"})
    fleet.patch("devices/a-1", {"labels": {"line": "3"}})
    labels = fleet.store.devices.need("a-1").labels
    assert labels == {"site": "a", "line": "3"}
    answer = fleet.post("devices/a-1/replace")
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["name"], body["replaces"], body["labels"]) == ("a-1-2", "a-1", labels)
    assert fleet.store.devices.need("a-1").retired_ms is not None
    token = decode_token(body["token"])
    joined = fleet.post("/v1/enrol", {"token": token.t, "csr": csr(new_key())}).json()
    assert (joined["device"], joined["labels"]) == ("north-a-1-2", labels)
    assert fleet.store.devices.need("a-1-2").pins == {"digits": Pin(bundle.digest)}


def test_what_a_device_was_itself_is_not_inherited(fleet):
    row = fleet.store.devices.need("a-1")
    labels = {**row.labels, "fact/arch": "armv7", "runs/digits": "v1"}
    fleet.store.devices.change(replace(row, labels=labels), 1)
    assert fleet.post("devices/a-1/replace").json()["labels"] == {"site": "a"}


def test_a_replacement_of_a_replacement_counts_on(fleet):
    for old, new in (("a-1", "a-1-2"), ("a-1-2", "a-1-3"), ("a-2", "a-2-2")):
        body = fleet.post(f"devices/{old}/replace").json()
        assert body["name"] == new
        token = decode_token(body["token"])
        fleet.post("/v1/enrol", {"token": token.t, "csr": csr(new_key())})


def test_a_token_that_was_not_used_in_time_is_made_again(fleet):
    first = fleet.post("devices/a-1/replace", {"name": "door"}).json()
    second = fleet.post("devices/a-1/replace", {"name": "door"}).json()
    assert second["name"] == first["name"] == "door"
    assert second["token"] != first["token"]
    retirements = [what for _, what, _ in history(fleet, "devices/a-1")]
    assert retirements == ["device.retired"]


def test_a_name_that_is_taken_leaves_everything_as_it_was(fleet):
    answer = fleet.post("devices/a-1/replace", {"name": "a-2"})
    assert code(answer) == (409, "OUT-A203")
    assert fleet.store.devices.is_member("north-a-1")


# --- renewing ------------------------------------------------------------------------------------


def test_a_device_renews_its_certificate_without_any_token(api):
    key = enrolled(api, "c-1")
    del api.client.headers["authorization"]
    api.clock[0] += 800 * 86_400_000
    answer = api.post("/v1/renew", to_wire(renewal(key, device="north-c-1")))
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    pem = answer.json()["certificate"].encode()
    assert api.store.devices.need("c-1").certificate == fingerprint(pem)
    assert x509.load_pem_x509_certificate(pem).public_key() == key.public_key()
    assert ("device:north-c-1", "device.renewed", "") in history(api, "devices/c-1")


def test_others_do_not_and_nothing_is_changed(api):
    key, other = enrolled(api, "c-1"), enrolled(api, "c-2")
    before = api.store.devices.need("c-1")
    del api.client.headers["authorization"]
    wrong = to_wire(renewal(other, device="north-c-1"))
    assert code(api.post("/v1/renew", wrong)) == (403, "OUT-A211")
    assert api.store.devices.need("c-1") == before
    assert api.post("/v1/renew", to_wire(renewal(key, device="north-c-1"))).status_code == 201


def test_a_retired_device_is_told_that_it_is(api):
    key = enrolled(api, "c-1")
    api.post("devices/c-1/retire", {"why": "stolen"})
    answer = api.post("/v1/renew", to_wire(renewal(key, device="north-c-1")))
    assert code(answer) == (403, "OUT-A212")
    wrong = to_wire(renewal(new_key(), device="north-c-1"))
    assert code(api.post("/v1/renew", wrong)) == (403, "OUT-A211")


@pytest.mark.parametrize(
    "body, expected",
    [
        ({"device": "north-c-1", "csr": "x", "proof": "AAAA"}, (403, "OUT-A211")),
        ({"device": "north-c-1", "csr": "x"}, (422, "OUT-S120")),
        ({"device": "c 1", "csr": "x", "proof": "AAAA"}, (422, "OUT-S120")),
        ({"device": "north-c-1", "csr": "x" * 100_000, "proof": "AAAA"}, (413, "OUT-N211")),
    ],
)
def test_what_is_no_renewal_is_refused(api, body, expected):
    if body["csr"] == "x" and "proof" in body and " " not in body["device"]:
        body = {**body, "csr": csr(new_key())}
    assert code(api.post("/v1/renew", body)) == expected


def test_whoever_keeps_guessing_at_renewals_has_to_wait(api):
    api.parts.attempts.limits = Limits(most=3, most_together=3)
    body = to_wire(renewal(new_key(), device="north-c-1"))
    codes = [api.post("/v1/renew", body).json()["code"] for _ in range(6)]
    assert codes[0] == "OUT-A211"
    assert codes[-1] == "OUT-A103"


# --- devices without network ---------------------------------------------------------------------


def test_a_brought_request_is_answered_with_an_identity_and_the_digest_of_the_root(api):
    body = {"request": {"csr": csr(new_key()), "name": "c-9"}, "labels": {"site": "c"}}
    answer = api.post("enrolments", body)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    assert (said["device"], said["name"], said["renewal"]) == ("north-c-9", "c-9", None)
    assert said["root_digest"] == digest_of(said["enrolment"]["root"].encode())
    assert said["enrolment"]["root_digest"] == said["root_digest"]
    assert api.store.devices.need("c-9").labels == {"site": "c"}
    assert code(api.post("enrolments", body)) == (422, "OUT-A210")
    ((who, what, _),) = history(api, "devices/c-9")
    assert what == "device.enrolled"
    assert not who.startswith("device:")


def test_a_brought_renewal_is_answered_like_one_over_the_network(api):
    key = enrolled(api, "c-1")
    asked = renewal(key, device="north-c-1")
    answer = api.post("enrolments", {"request": to_wire(asked)})
    assert answer.status_code == 201
    said = answer.json()
    assert (said["name"], said["enrolment"]) == ("c-1", None)
    pem = said["renewal"]["certificate"].encode()
    assert api.store.devices.need("c-1").certificate == fingerprint(pem)
    wrong = renewal(new_key(), device="north-c-1")
    assert code(api.post("enrolments", {"request": to_wire(wrong)})) == (403, "OUT-A211")
    labelled = {"request": to_wire(asked), "labels": {"site": "x"}}
    assert code(api.post("enrolments", labelled)) == (422, "OUT-S120")


@pytest.mark.parametrize(
    "request_body",
    [{}, {"csr": "x", "device": "north-c-1"}, {"csr": "x", "name": "C 9"}, {"csr": "x" * 20_000}],
)
def test_what_is_no_request_is_refused(api, request_body):
    answer = api.post("enrolments", {"request": request_body})
    assert code(answer) == (422, "OUT-S120")
    assert answer.json()["errors"]

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from protocol.reported import ModelState, Note, Outcome

HOURS = {"start_minute": 60, "stop_minute": 300}


def names(answer):
    return [device["name"] for device in answer.json()["items"]]


@pytest.fixture
def fleet(api):
    for number in (1, 2, 3):
        api.enrol(f"a-{number}", site="a")
    api.enrol("b-1", site="b", line="3")
    return api


def test_devices_are_listed_by_id_page_by_page_with_the_whole_count(fleet):
    first = fleet.get("devices", limit=3)
    assert names(first) == ["a-1", "a-2", "a-3"]
    assert first.json()["count"] == 4
    last = fleet.get("devices", limit=3, cursor=first.json()["next_cursor"])
    assert (names(last), last.json()["next_cursor"]) == (["b-1"], None)


@pytest.mark.parametrize(
    "selector, found",
    [
        ("site = a", ["a-1", "a-2", "a-3"]),
        ("site = a and not a-2*", ["a-1", "a-3"]),
        ("line >= 3", ["b-1"]),
        ("all", ["a-1", "a-2", "a-3", "b-1"]),
        ("runs.digits = v1", ["a-2"]),
        ("site = nowhere", []),
    ],
)
def test_a_selector_chooses_devices(fleet, selector, found):
    bundle = fleet.pushed()
    fleet.report("a-2", digits=ModelState(serving=bundle.digest, current=bundle.digest))
    answer = fleet.get("devices", selector=selector)
    assert names(answer) == found
    assert answer.json()["count"] == len(found)


def test_a_selector_that_cannot_be_read_says_where(fleet):
    answer = fleet.get("devices", selector="site = leeds and line =")
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S101")
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["offset"]) == ("?selector", 23)


def test_a_cursor_of_another_selector_is_refused(fleet):
    cursor = fleet.get("devices", selector="site = a", limit=1).json()["next_cursor"]
    answer = fleet.get("devices", selector="site = b", limit=1, cursor=cursor)
    assert (answer.status_code, answer.json()["code"]) == (400, "OUT-S130")


@pytest.mark.parametrize("limit", [0, 501, "many"])
def test_a_limit_is_a_number_within_bounds(fleet, limit):
    answer = fleet.get("devices", limit=limit)
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S120")
    assert answer.json()["errors"][0]["pointer"] == "?limit"


def test_a_device_is_found_by_its_name_and_by_its_id(fleet):
    assert fleet.get("devices/a-1").json() == fleet.get("devices/north-a-1").json()
    answer = fleet.get("devices/a-9")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")
    assert answer.json()["help"].startswith("a similar name: a-")


def test_a_device_that_was_never_heard_is_shown_as_that(fleet):
    shown = fleet.get("devices/a-1").json()
    assert shown["reported"] is None
    assert shown["device"]["last_contact"] is None
    assert shown["device"]["models"] == []


REASON = Note("OUT-D310", "confidence 0.31", definite=True, activated=True)


@pytest.mark.parametrize(
    "word, state",
    [
        ("healthy", {}),
        ("unexercised", {"committed_unexercised": True}),
        ("on probation", {"phase": "probation"}),
        ("fetching", {"phase": "fetching"}),
        ("no model", {"serving": None}),
    ],
)
def test_what_a_device_reports_becomes_one_word(fleet, word, state):
    bundle = fleet.pushed()
    fleet.report("a-1", digits=replace(ModelState(serving=bundle.digest), **state))
    (model,) = fleet.get("devices/a-1").json()["device"]["models"]
    assert model["state"] == word


def test_a_device_that_rolled_back_says_why(fleet):
    good, bad = fleet.pushed("v1"), fleet.pushed("v2", weights_seed=1)
    ended = Outcome(1, "digits", bad.digest, "rolled_back", "OUT-D310", "confidence 0.31")
    notes = {bad.digest: REASON}
    state = ModelState(serving=good.digest, current=good.digest, notes=notes, last=ended)
    fleet.report("a-1", digits=state)
    (model,) = fleet.get("devices/a-1").json()["device"]["models"]
    assert (model["runs"], model["state"]) == ("digits/v1", "rolled back")
    assert (model["why"], model["detail"]) == ("OUT-D310", "confidence 0.31")
    reported = fleet.get("devices/a-1").json()["reported"]
    assert reported["models"]["digits"]["last"]["result"] == "rolled_back"


def test_a_pin_is_set_and_taken_away(fleet):
    bundle = fleet.approved()
    until = datetime(2030, 1, 1, tzinfo=UTC)
    before = fleet.get("devices/a-1").headers["etag"]
    wakes = len(fleet.wakes)
    body = {"version": "v1", "until": until.isoformat(), "why": "glare test"}
    answer = fleet.put("devices/a-1/pins/digits", body)
    assert answer.status_code == 200
    assert answer.headers["etag"] != before
    assert len(fleet.wakes) > wakes
    (pin,) = answer.json()["pins"]
    assert (pin["version"], pin["digest"]) == ("v1", bundle.digest)
    assert pin["until"] == "2030-01-01T00:00:00Z"
    assert fleet.store.devices.need("a-1").pins["digits"].until == int(until.timestamp() * 1000)
    assert fleet.delete("devices/a-1/pins/digits").json()["pins"] == []
    events = fleet.get("events", topic="devices/a-1").json()["items"]
    assert [event["type"] for event in events] == ["device.pinned", "device.unpinned"]
    assert events[0]["data"]["why"] == "glare test"


def test_the_same_pin_again_is_no_new_document(fleet):
    fleet.approved()
    first = fleet.put("devices/a-1/pins/digits", {"version": "v1"})
    second = fleet.put("devices/a-1/pins/digits", {"version": "v1"})
    assert first.headers["etag"] == second.headers["etag"]


@pytest.mark.parametrize(
    "body, status, code, pointer",
    [
        ({"version": "v9"}, 404, "OUT-S110", None),
        ({"version": "v1", "until": "2001-01-01T00:00:00Z"}, 422, "OUT-S120", "#/until"),
        ({"version": "v1", "until": "2030-01-01T00:00:00"}, 422, "OUT-S120", "#/until"),
        ({"version": "v1", "because": "x"}, 422, "OUT-S120", "#/because"),
        ({}, 422, "OUT-S120", "#/version"),
        ({"version": 7}, 422, "OUT-S120", "#/version"),
        ({"version": "../v1"}, 422, "OUT-S120", "#/version"),
    ],
)
def test_a_pin_that_makes_no_sense_is_refused(fleet, body, status, code, pointer):
    fleet.approved()
    answer = fleet.put("devices/a-1/pins/digits", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if pointer:
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_only_what_is_approved_can_be_pinned(fleet):
    fleet.pushed()
    answer = fleet.put("devices/a-1/pins/digits", {"version": "v1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T104")
    assert answer.json()["help"] == "an approver runs: outrider model approve digits/v1"


def test_a_change_that_is_based_on_something_older_is_refused(fleet):
    fleet.approved()
    tag = fleet.get("devices/a-1").headers["etag"]
    fresh = {"headers": {"If-Match": tag}}
    assert fleet.put("devices/a-1/pins/digits", {"version": "v1"}, **fresh).status_code == 200
    for answer in (
        fleet.put("devices/a-1/pins/digits", {"version": "v1"}, **fresh),
        fleet.delete("devices/a-1/pins/digits", **fresh),
        fleet.patch("devices/a-1", {"labels": {"site": "b"}}, **fresh),
    ):
        assert (answer.status_code, answer.json()["code"]) == (412, "OUT-S145")
    any_tag = {"headers": {"If-Match": "*"}}
    assert fleet.delete("devices/a-1/pins/digits", **any_tag).status_code == 200


def test_settings_are_set_as_a_whole_and_make_a_new_document(fleet):
    before = fleet.get("devices/a-1").json()["document"]["version"]
    settings = {"bytes_per_day": 2_000_000, "transfer_windows": [HOURS]}
    assert fleet.put("devices/a-1/settings", settings).status_code == 200
    document = fleet.get("devices/a-1").json()["document"]
    assert document["version"] > before
    assert document["settings"]["bytes_per_day"] == 2_000_000
    assert document["settings"]["transfer_windows"] == [HOURS]
    fleet.put("devices/a-1/settings", {"state_interval_s": 600})
    assert fleet.get("devices/a-1").json()["document"]["settings"]["bytes_per_day"] is None


@pytest.mark.parametrize(
    "settings",
    [{"state_interval_s": 5}, {"buffer_bytes": 1}, {"bytes_per_day": -1},
     {"transfer_windows": [{"start_minute": 60, "stop_minute": 60}]}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(fleet, settings):
    assert fleet.put("devices/a-1/settings", settings).status_code == 422


def test_labels_are_set_and_removed_one_by_one(fleet):
    answer = fleet.patch("devices/b-1", {"labels": {"line": None, "zone": "west"}})
    assert answer.json()["labels"] == {"site": "b", "zone": "west"}


@pytest.mark.parametrize(
    "label, pointer",
    [
        ("id", "#/labels/id"),
        ("fact/arch", "#/labels/fact~1arch"),
        ("runs/digits", "#/labels/runs~1digits"),
        ("Upper", "#/labels/Upper"),
    ],
)
def test_labels_that_are_not_the_operators_are_refused(fleet, label, pointer):
    answer = fleet.patch("devices/a-1", {"labels": {label: "x"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S120")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_document_that_could_not_be_sent_is_refused_before_it_is_stored(fleet):
    labels = {f"label-{number}": "x" * 128 for number in range(150)}
    answer = fleet.patch("devices/a-1", {"labels": labels})
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S120")
    assert fleet.store.devices.need("a-1").labels == {"site": "a"}


def test_allowing_raises_the_number_above_what_the_device_noted(fleet):
    bundle = fleet.approved()
    note = Note("OUT-D310", definite=True, activated=True, allow=4)
    fleet.report("a-1", digits=ModelState(notes={bundle.digest: note}))
    body = {"model": "digits", "version": "v1"}
    assert fleet.post("devices/a-1/allow", body).status_code == 200
    document = fleet.get("devices/a-1").json()["document"]
    assert document["allow"] == {"digits": {bundle.digest: 5}}
    fleet.post("devices/a-1/allow", body)
    document = fleet.get("devices/a-1").json()["document"]
    assert document["allow"] == {"digits": {bundle.digest: 6}}


def test_a_token_enrols_one_device_without_the_operators_token(fleet):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from protocol.enrolment import decode_token

    answer = fleet.post("tokens", {"labels": {"site": "c"}, "name": "c-1"})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    token = decode_token(answer.json()["token"])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    del fleet.client.headers["authorization"]
    body = {"token": token.t, "csr": csr}
    enrolled = fleet.post("/v1/enrol", body)
    assert enrolled.status_code == 201
    assert enrolled.json()["device"] == "north-c-1"
    assert enrolled.json()["labels"] == {"site": "c"}
    again = fleet.post("/v1/enrol", body)
    assert (again.status_code, again.json()["code"]) == (403, "OUT-A202")
    assert fleet.store.devices.need("c-1").labels == {"site": "c"}
    huge = fleet.post("/v1/enrol", {"token": token.t, "csr": "x" * 100_000})
    assert (huge.status_code, huge.json()["code"]) == (413, "OUT-N211")


def test_a_token_for_a_name_that_is_taken_is_refused(fleet):
    answer = fleet.post("tokens", {"name": "a-1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-A203")

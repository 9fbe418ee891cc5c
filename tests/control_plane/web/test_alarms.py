import json

import pytest

from control_plane.drift.alarms import Alarm
from control_plane.drift.findings import FoundFeature
from control_plane.people import new_token
from protocol.identifiers import digest_of
from protocol.reported import ModelState

HOUR = 3_600_000
SENTENCE = "sensor broken on device cam-0117: temperature (2 of the last 3 windows, 61 peers)"


def opened(api, number=1, model="digits", **more):
    digest = digest_of(f"{model}{number}".encode())
    features = (FoundFeature(0, "temperature", 3e-9, 0.61, ""),)
    given = {
        "kind": "peer",
        "subject": f"north-cam-{number}",
        "verdict": "sensor broken",
        "sentence": SENTENCE,
        "features": features,
        "opened_ms": api.clock[0],
        "changed_ms": api.clock[0],
        "seen_ms": api.clock[0],
        "by": "drift watch",
        **more,
    }
    alarm = Alarm("", 0, f"device/{model}/{number}", model, digest, digest, digest, **given)
    return api.store.alarms.add(alarm)


def recorded(api, alarm, previous=""):
    body = json.dumps({"verdict": alarm.verdict, "previous": previous})
    digest = digest_of(body.encode())
    api.store.alarms.add_record(alarm.id, digest, body, api.clock[0])
    return digest


def as_(api, role):
    token = new_token()
    api.store.people.create(digest_of(token.encode()), f"a-{role}", role, api.clock[0])
    return {"headers": {"authorization": f"Bearer {token}"}}


def test_alarms_are_listed_newest_first_without_those_that_are_resolved(api):
    opened(api, 1)
    opened(api, 2, state="acknowledged", by="ana")
    opened(api, 3, state="resolved", by="ana")
    shown = api.get("alarms").json()
    assert [each["id"] for each in shown["items"]] == ["alarm-2", "alarm-1"]
    assert shown["count"] == 2
    every = api.get("alarms", state="open,acknowledged,snoozed,resolved").json()
    assert every["count"] == 3
    (first,) = api.get("alarms", state="resolved").json()["items"]
    assert first["id"] == "alarm-3"


def test_an_alarm_says_what_was_found_and_how_sure(api):
    opened(api)
    (shown,) = api.get("alarms").json()["items"]
    assert (shown["verdict"], shown["sentence"]) == ("sensor broken", SENTENCE)
    assert shown["features"] == [
        {"name": "temperature", "value": 3e-9, "unit": "p", "psi": 0.61, "what": ""}
    ]
    assert (shown["subject"], shown["version"], shown["until"]) == ("north-cam-1", None, None)


def test_alarms_of_one_model_page_by_page(api):
    api.pushed()
    for number in range(5):
        opened(api, number)
    opened(api, 9, model="other")
    first = api.get("alarms", model="digits", limit=3).json()
    assert (len(first["items"]), first["count"]) == (3, 5)
    rest = api.get("alarms", model="digits", limit=3, cursor=first["next_cursor"]).json()
    assert (len(rest["items"]), rest["next_cursor"]) == (2, None)
    other = api.get("alarms", limit=3, cursor=first["next_cursor"])
    assert other.json()["code"] == "OUT-S130"
    assert api.get("alarms", model="digit").json()["help"] == "a similar name: digits"


def test_a_word_that_is_no_state_is_refused(api):
    refused = api.get("alarms", state="open,closed")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "?state")


def test_one_alarm_is_shown_with_its_chain_of_records(api):
    alarm = opened(api)
    first = recorded(api, alarm)
    second = recorded(api, alarm, first)
    shown = api.get("alarms/alarm-1").json()
    assert [(each["digest"], each["previous"]) for each in shown["records"]] == [
        (first, None),
        (second, first),
    ]
    assert api.get("alarms/alarm-2").json()["code"] == "OUT-S110"


@pytest.mark.parametrize(
    "verb, body, state",
    [
        ("acknowledge", {"why": "on my way"}, "acknowledged"),
        ("snooze", {"until": "2027-01-01T00:00:00Z", "why": "known"}, "snoozed"),
        ("resolve", {"why": "cleaned"}, "resolved"),
    ],
)
def test_acknowledge_snooze_and_resolve_are_in_the_audit_trail(api, verb, body, state):
    opened(api, evidence="sha256-" + "e" * 64)
    answer = api.post(f"alarms/alarm-1/{verb}", body)
    assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert (answer.json()["by"], answer.json()["why"]) == ("local", body["why"])
    assert api.store.alarms.get("alarm-1").state == state
    noted = api.store.audit.page().items[0]
    assert (noted.who, noted.what, noted.about) == ("local", f"alarm.{state}", "alarms/alarm-1")
    assert (noted.why, noted.evidence) == (body["why"], "sha256-" + "e" * 64)
    (event,) = api.store.events.after(0, ["alarms"])
    assert (event.type, event.data["sentence"]) == (f"alarm.{state}", SENTENCE)


def test_resolved_is_final(api):
    opened(api)
    api.post("alarms/alarm-1/resolve")
    for verb, body in (
        ("acknowledge", {}),
        ("resolve", {}),
        ("snooze", {"until": "2027-01-01T00:00:00Z"}),
    ):
        refused = api.post(f"alarms/alarm-1/{verb}", body)
        assert (refused.status_code, refused.json()["code"]) == (409, "OUT-D610")


def test_a_snooze_ends_in_the_future(api):
    opened(api)
    refused = api.post("alarms/alarm-1/snooze", {"until": "2020-01-01T00:00:00Z"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/until")
    assert api.post("alarms/alarm-1/snooze", {}).status_code == 422
    assert api.post("alarms/alarm-1/resolve", {"because": "x"}).status_code == 422


def test_the_same_key_acts_once(api):
    opened(api)
    key = {"headers": {"Idempotency-Key": "one"}}
    first = api.post("alarms/alarm-1/resolve", **key)
    again = api.post("alarms/alarm-1/resolve", **key)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"


def test_technicians_look_after_alarms_and_viewers_look_at_them(api):
    opened(api)
    viewer, technician = as_(api, "viewer"), as_(api, "technician")
    assert api.call("GET", "alarms", **viewer).status_code == 200
    assert api.post("alarms/alarm-1/resolve", **viewer).status_code == 403
    assert api.post("alarms/alarm-1/resolve", **technician).json()["by"] == "a-technician"


# --- the budget -----------------------------------------------------------------------------------


def test_the_budget_says_every_threshold_and_what_it_assumes(api):
    shown = api.get("drift/budget").json()
    assert (shown["per_year"], shown["by"], shown["number"]) == (1.0, None, 1)
    assert [(each["part"], each["share"]) for each in shown["parts"]] == [
        ("detectors", 0.5),
        ("peers", 0.25),
        ("cohorts", 0.25),
    ]
    assert [each["threshold"]["unit"] for each in shown["parts"]] == ["ln e", "p", "q"]
    assert all(each["assumes"] for each in shown["parts"])


def test_a_larger_budget_lowers_the_bar(api):
    bundle = api.pushed()
    for number in range(30):
        api.enrol(f"cam-{number}")
        api.report(f"cam-{number}", digits=ModelState(serving=bundle.digest))
    before = api.get("drift/budget").json()["parts"]
    assert before[0]["streams"] == 30 * bundle.profile.streams
    after = api.put("drift/budget", {"per_year": 100, "by": "site"}).json()
    assert (after["per_year"], after["by"], after["number"]) == (100, "site", 2)
    assert after["parts"][0]["threshold"]["value"] < before[0]["threshold"]["value"]
    assert after["parts"][2]["threshold"]["value"] > before[2]["threshold"]["value"]


def test_a_change_of_the_budget_is_in_the_audit_trail_and_no_change_is_not(api):
    for _ in range(2):
        api.put("drift/budget", {"per_year": 2.0, "by": "site"})
    (noted,) = api.store.audit.page(about="drift").items
    assert (noted.what, noted.before["per_year"], noted.after["per_year"]) == (
        "budget.changed", 1.0, 2.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [{"per_year": 0}, {"per_year": 1001}, {"per_year": 1, "by": "NO"}, {"per_year": 1, "x": 1}, {}],
)
def test_a_budget_out_of_range_is_refused(api, body):
    assert api.put("drift/budget", body).status_code == 422


def test_only_operators_set_the_budget(api):
    body = {"per_year": 2.0, "by": None}
    assert api.put("drift/budget", body, **as_(api, "technician")).status_code == 403
    assert api.put("drift/budget", body, **as_(api, "operator")).status_code == 200

import json
from dataclasses import dataclass
from typing import Any

import pytest

from control_plane.judging import Judge
from control_plane.moving import Moving
from protocol.reported import ModelState


@pytest.fixture
def fleet(api):
    for number in range(1, 5):
        api.enrol(f"a-{number}", site="a")
    api.approved()
    return api


SPEC = {"version": "digits/v1", "to": "site = a", "waves": ["1", "100 %"]}


def test_a_preview_changes_nothing(fleet):
    answer = fleet.call("POST", "rollouts", params={"dry_run": "true"}, json=SPEC)
    assert answer.status_code == 200
    assert (answer.json()["targeted"], answer.json()["matched"]) == (4, 4)
    assert [wave["devices"] for wave in answer.json()["waves"]] == [1, 4]
    assert fleet.get("rollouts").json()["count"] == 0


def test_a_rollout_is_started_paused_resumed_and_aborted(fleet):
    wakes = len(fleet.wakes)
    started = fleet.post("rollouts", SPEC)
    assert started.status_code == 201
    assert started.headers["location"] == "/v1/fleets/north/rollouts/digits-1"
    assert (started.json()["id"], started.json()["status"]) == ("digits-1", "preparing")
    assert started.json()["targeted"] == 4
    paused = fleet.post("rollouts/digits-1/pause", {"why": "look first"})
    assert (paused.json()["status"], paused.json()["why"]) == ("paused", "look first")
    assert fleet.post("rollouts/digits-1/resume").json()["status"] == "preparing"
    aborted = fleet.post("rollouts/digits-1/abort", {"why": "no"})
    assert (aborted.status_code, aborted.json()["status"]) == (202, "aborted")
    assert aborted.json()["returning"] == {"confirmed": 0, "of": 0, "not_linked": 0}
    assert len(fleet.wakes) >= wakes + 4
    again = fleet.post("rollouts/digits-1/abort")
    assert (again.status_code, again.json()["code"]) == (409, "OUT-R202")
    types = [
        event["type"] for event in fleet.get("events", topic="rollouts/digits-1").json()["items"]
    ]
    assert types == ["rollout.started", "rollout.paused", "rollout.resumed", "rollout.aborted"]


def test_one_rollout_shows_what_was_asked_for_and_its_devices(fleet):
    fleet.post("rollouts", SPEC)
    shown = fleet.get("rollouts/digits-1").json()
    assert shown["spec"]["to"] == "site = a"
    assert (shown["verdict"], shown["evidence"]) == (None, None)
    members = fleet.get("rollouts/digits-1/devices").json()["items"]
    assert [member["device"] for member in members] == [f"north-a-{n}" for n in range(1, 5)]
    assert sorted(member["wave"] for member in members) == [1, 2, 2, 2]


def test_rollouts_are_listed_newest_first(fleet):
    fleet.post("rollouts", SPEC)
    fleet.post("rollouts/digits-1/abort")
    fleet.clock[0] += 1000
    fleet.post("rollouts", SPEC)
    first = fleet.get("rollouts", model="digits", limit=1).json()
    assert ([each["id"] for each in first["items"]], first["count"]) == (["digits-2"], 2)
    last = fleet.get("rollouts", model="digits", limit=1, cursor=first["next_cursor"]).json()
    assert [each["id"] for each in last["items"]] == ["digits-1"]
    other = fleet.get("rollouts", limit=1, cursor=first["next_cursor"])
    assert other.json()["code"] == "OUT-S130"


@pytest.mark.parametrize(
    "change, status, code, pointer",
    [
        ({"version": "digits/v9"}, 404, "OUT-S110", None),
        ({"version": "digit/v1"}, 404, "OUT-S110", None),
        ({"to": "site = "}, 422, "OUT-S101", "#/to"),
        ({"to": "site = nowhere"}, 409, "OUT-R203", None),
        ({"soak_time": "24h"}, 422, "OUT-S120", "#/soak_time"),
        ({"waves": [{"devices": 1, "soak_time": "1h"}]}, 422, "OUT-S120", "#/waves/0/soak_time"),
        ({"soak": "soon"}, 422, "OUT-S120", "#/soak"),
        ({"error_condition": {"bad": "many"}}, 422, "OUT-S121", "#/error_condition/bad"),
    ],
)
def test_a_spec_that_cannot_be_carried_out_is_refused_with_its_place(
    fleet, change, status, code, pointer
):
    answer = fleet.post("rollouts", {**SPEC, **change})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    if pointer:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert fleet.get("rollouts").json()["count"] == 0


def test_only_what_is_approved_is_rolled_out(fleet):
    fleet.pushed("v2", weights_seed=3)
    answer = fleet.post("rollouts", {**SPEC, "version": "digits/v2"})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T104")


def test_a_second_rollout_over_the_same_devices_is_in_conflict(fleet):
    fleet.post("rollouts", SPEC)
    answer = fleet.post("rollouts", SPEC)
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-R201")


def test_a_rollout_that_is_repeated_with_its_key_starts_once(fleet):
    headers = {"Idempotency-Key": "k"}
    first = fleet.post("rollouts", SPEC, headers=headers)
    second = fleet.post("rollouts", SPEC, headers=headers)
    assert (second.status_code, second.json()) == (201, first.json())
    assert second.headers["location"] == first.headers["location"]
    assert fleet.get("rollouts").json()["count"] == 1


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "approve", "retry", "abort"])
def test_there_is_no_rollout_of_another_name(fleet, verb):
    fleet.post("rollouts", SPEC)
    answer = fleet.post(f"rollouts/digits-7/{verb}")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")
    assert answer.json()["help"] == "a similar name: digits-1"


# --- judged rollouts ------------------------------------------------------------------------------


@dataclass
class Running:
    """An API whose rollouts are moved as the ticker moves them; devices report by hand."""

    api: Any
    bundle: Any
    order: int = 1

    def __post_init__(self) -> None:
        store = self.api.store
        self.moving = Moving(store, Judge(store), lambda: 0)

    def move(self, seconds: float = 1.0) -> None:
        self.api.clock[0] += int(seconds * 1000)
        approvals = self.api.parts.repository.approvals()
        self.moving.collect(self.api.clock[0])
        with self.api.store.write():
            self.moving.move(approvals, {self.bundle.digest}, self.api.clock[0])

    def report(self, name: str, **state: Any) -> None:
        self.order += 1
        digits = ModelState(serving=self.bundle.digest, target=self.bundle.digest, **state)
        self.api.report(name, self.order, digits=digits)
        self.api.store.devices.contact(f"north-{name}", self.api.clock[0])

    def first(self) -> str:
        """Name of the device of wave 1."""
        members = self.api.store.rollouts.members.of("digits-1")
        (only,) = (member.device for member in members if member.wave == 1)
        return str(only).removeprefix("north-")


@pytest.fixture
def running(api):
    for number in range(1, 5):
        api.enrol(f"a-{number}", site="a")
    made = Running(api, api.approved())
    assert api.post("rollouts", {**SPEC, "soak": "1h"}).status_code == 201
    made.move()
    return made


def test_evidence_is_a_chain_that_is_listed_in_pages(running):
    running.move()
    running.report(running.first(), current=running.bundle.digest)
    running.move()
    running.move(4000)
    listed = running.api.get("rollouts/digits-1/evidence").json()
    assert listed["count"] == len(listed["items"]) >= 2
    assert [each["number"] for each in listed["items"]] == list(range(1, listed["count"] + 1))
    assert [each["previous"] for each in listed["items"]] == [
        None, *(each["digest"] for each in listed["items"][:-1]),
    ]  # fmt: skip
    told = [(each["wave"], each["verdict"]) for each in listed["items"]]
    assert told[-2:] == [(1, "pass"), (2, "insufficient")]
    page = running.api.get("rollouts/digits-1/evidence", limit=1).json()
    behind = running.api.get(
        "rollouts/digits-1/evidence", limit=1, cursor=page["next_cursor"]
    ).json()
    assert [behind["items"][0]["number"], page["count"]] == [2, listed["count"]]
    elsewhere = running.api.get("rollouts", cursor=page["next_cursor"])
    assert elsewhere.json()["code"] == "OUT-S130"


def test_any_verdict_is_explained_by_computing_it_again_from_its_record(running):
    running.move()
    running.report(running.first(), current=running.bundle.digest)
    running.move(4000)
    for each in running.api.get("rollouts/digits-1/evidence").json()["items"]:
        shown = running.api.get("rollouts/digits-1/explanation", evidence=each["digest"]).json()
        assert shown["record"] == each
        assert shown["replayed"]["same"] is True
        assert shown["replayed"]["sentence"] == each["sentence"]
        assert shown["replayed"]["recorded_rules"] == shown["replayed"]["rules"]
        if (each["wave"], each["verdict"]) == (1, "pass"):
            assert (shown["counts"]["targeted"], shown["counts"]["healthy"]) == (1, 1)
    newest = running.api.get("rollouts/digits-1/explanation").json()
    assert newest["record"] == each


def test_a_record_that_was_tampered_with_no_longer_explains_its_verdict(running):
    running.move()
    store = running.api.store
    (kept,) = store.evidence.list_records("digits-1", limit=1)
    body = {**json.loads(kept.body), "verdict": "pass", "sentence": "all is well"}
    store.connection().execute(
        "UPDATE evidence_record SET body = ? WHERE digest = ?", (json.dumps(body), kept.digest)
    )
    shown = running.api.get("rollouts/digits-1/explanation", evidence=kept.digest).json()
    assert shown["replayed"]["same"] is False
    assert shown["replayed"]["verdict"] == "insufficient"
    assert "differs" in shown["replayed"]["said"]


def test_a_record_is_drawn(running):
    running.move()
    digest = running.api.get("rollouts/digits-1").json()["evidence"]
    answer = running.api.get(f"rollouts/digits-1/evidence/{digest}/picture.svg")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert answer.text.startswith("<svg")


@pytest.mark.parametrize(
    "path", ["explanation", "explanation?evidence=sha256-00", "evidence/sha256-00/picture.svg"]
)
def test_a_record_that_is_not_there_is_not_found(fleet, path):
    fleet.post("rollouts", SPEC)
    answer = fleet.get(f"rollouts/digits-1/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")


# --- what people do -------------------------------------------------------------------------------


def test_promote_begins_the_next_wave_and_the_last_one_completes(running):
    wakes = len(running.api.wakes)
    shown = running.api.post("rollouts/digits-1/promote", {"why": "seen enough"})
    assert (shown.status_code, shown.json()["wave"]) == (200, 2)
    done = running.api.post("rollouts/digits-1/promote").json()
    assert (done["status"], done["pending"]) == ("completed", 4)
    assert len(running.api.wakes) == wakes + 2


@pytest.mark.parametrize(
    "verb, status, code",
    [("approve", 409, "OUT-R204"), ("retry", 409, "OUT-R207"), ("resume", 409, "OUT-R204")],
)
def test_what_makes_no_sense_now_is_in_conflict(running, verb, status, code):
    answer = running.api.post(f"rollouts/digits-1/{verb}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_wave_is_approved(api):
    api.enrol("a-1", site="a")
    running = Running(api, api.approved())
    api.post("rollouts", {**SPEC, "waves": [{"percent": 100, "approve": True}]})
    running.move()
    waits = api.get("rollouts/digits-1").json()["waits_for"]
    assert (waits["code"], waits["wave"]) == ("OUT-R205", 1)
    answer = api.post("rollouts/digits-1/approve", {"why": "go"})
    assert (answer.status_code, answer.json()["status"]) == (200, "preparing")
    running.move()
    assert api.get("rollouts/digits-1").json()["wave"] == 1


def test_an_abort_may_keep_what_devices_run(running):
    answer = running.api.post("rollouts/digits-1/abort", {"keep": True, "why": "good enough"})
    assert (answer.status_code, answer.json()["kept"]) == (202, True)
    wrong = running.api.post("rollouts/digits-1/abort", {"kept": True})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "OUT-S120")


def test_a_start_is_refused_when_other_devices_match_than_were_seen(fleet):
    answer = fleet.post("rollouts", {**SPEC, "expect_devices": 3})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-R206")
    assert answer.json()["detail"] == "4 devices match now, not 3"
    wrong = fleet.post("rollouts", {**SPEC, "expect_devices": "4"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "#/expect_devices")
    assert fleet.post("rollouts", {**SPEC, "expect_devices": 4}).status_code == 201


def test_one_rollout_supersedes_another(fleet):
    fleet.post("rollouts", SPEC)
    conflict = fleet.post("rollouts", SPEC).json()
    assert conflict["help"].endswith("--supersede digits-1")
    started = fleet.post("rollouts", {**SPEC, "supersedes": "digits-1"})
    assert (started.status_code, started.json()["id"]) == (201, "digits-2")
    ended = fleet.get("rollouts/digits-1").json()
    assert (ended["status"], ended["superseded_by"]) == ("aborted", "digits-2")


def test_devices_return_to_an_approved_version_in_one_call(running):
    api = running.api
    preview = api.call("POST", "models/digits/return", params={"dry_run": "true"},
                       json={"version": "v1"})  # fmt: skip
    assert preview.status_code == 200
    assert (preview.json()["targeted"], preview.json()["supersedes"]) == (4, ["digits-1"])
    assert api.get("rollouts").json()["count"] == 1
    headers = {"Idempotency-Key": "back"}
    body = {"version": "v1", "why": "glare", "expect_devices": 4}
    answer = api.post("models/digits/return", body, headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (201, "digits-2")
    assert answer.headers["location"] == "/v1/fleets/north/rollouts/digits-2"
    assert api.post("models/digits/return", body, headers=headers).json() == answer.json()
    assert api.get("rollouts/digits-1").json()["superseded_by"] == "digits-2"
    assert api.post("models/digit/return", body).json()["code"] == "OUT-S110"


def test_what_a_person_does_is_in_the_audit_trail_with_its_reason(running):
    running.api.post("rollouts/digits-1/pause", {"why": "look first"})
    running.api.post("rollouts/digits-1/resume", {"why": "seen"})
    running.api.post("rollouts/digits-1/promote", {"why": "hurry"})
    records = running.api.get("audit", about="rollouts/digits-1").json()["items"]
    by_people = [(r["what"], r["why"]) for r in reversed(records) if r["who"] == "local"]
    assert by_people == [
        ("rollout.started", ""), ("rollout.paused", "look first"), ("rollout.resumed", "seen"),
        ("rollout.wave", "hurry"),
    ]  # fmt: skip

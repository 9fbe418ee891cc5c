import pytest


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
    assert aborted.json()["returning"] == {"confirmed": 0, "of": 0}
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
    assert shown["judgement"] is None
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


@pytest.mark.parametrize("verb", ["pause", "resume", "abort"])
def test_there_is_no_rollout_of_another_name(fleet, verb):
    fleet.post("rollouts", SPEC)
    answer = fleet.post(f"rollouts/digits-7/{verb}")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")
    assert answer.json()["help"] == "a similar name: digits-1"

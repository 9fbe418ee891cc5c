"""What the control plane gives for a stick."""

from __future__ import annotations

import json

import pytest

from control_plane.stick_folder import payload_digest
from control_plane.store.plans import DenyRow, PlanRow
from protocol import codec, stick
from protocol.identifiers import digest_of
from protocol.payload import Hint
from protocol.plan import DenyList, Plan, PlanTerms, Rule
from protocol.stick import Stick


@pytest.fixture
def fleet(api):
    """Two devices; v1 is stable for all."""
    bundle = api.approved("v1")
    api.enrol("cam-1", site="leeds")
    api.enrol("cam-2", site="york")
    plan = codec.encode(Plan("north", "digits", 1, 1, (Rule(None, bundle.digest),)))
    deny = codec.encode(DenyList("north", 2))
    api.store.plans.put(PlanRow("digits", 1, 1, plan))
    api.store.plans.put_deny_list(DenyRow(2, deny))
    api.clock[0] += 60_000
    api.parts.repository.publish({"digits": (plan, PlanTerms())}, deny, api.clock[0])
    return bundle


def test_everything_that_a_device_needs_is_there_and_fits_together(api, fleet):
    answer = api.post("exports", {"devices": ["cam-1"]})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    note = codec.decode(json.dumps(said["note"]).encode(), Stick, limit=stick.MAX_NOTE)
    assert (note.fleet, note.devices, note.models) == ("north", ("north-cam-1",), ("digits",))
    assert note.versions["root"] == 1
    files = {name: text.encode() for name, text in said["files"].items()}
    targets = json.loads(files["tuf/rollouts.json"])["signed"]["targets"]
    for path, name in (
        ("rollouts/plan-digits", "plans/digits.json"),
        ("rollouts/deny-list", "deny.json"),
    ):
        assert digest_of(files[name]) == "sha256-" + targets[path]["hashes"]["sha256"]
    assert {name for name in files if name.startswith("documents/")} == {
        "documents/north-cam-1.dsse"
    }
    assert digest_of(files[f"manifests/{fleet.digest}"]) == fleet.digest
    assert f"manifests/{fleet.manifest}" in files
    offered = {each["payload"]: each["size_bytes"] for each in said["payloads"]}
    for member in fleet.variant.members:
        hint = files["/".join(stick.hint("digits", member.digest))]
        entries = codec.decode(hint, Hint, limit=codec.MAX_HINT).entries
        assert [each.base for each in entries] == [None]
        assert offered[entries[0].payload] == entries[0].size
    assert said["versions"] == [{"model": "digits", "version": "v1", "digest": fleet.digest}]


def test_a_payload_is_what_its_name_says(api, fleet, tmp_path):
    for each in api.post("exports", {"devices": ["cam-1"]}).json()["payloads"]:
        answer = api.get(f"payloads/{each['payload']}")
        file = tmp_path / "payload"
        file.write_bytes(answer.content)
        assert len(answer.content) == each["size_bytes"]
        assert payload_digest(file) == each["payload"]


def test_a_selector_chooses_devices_and_is_said_on_the_stick(api, fleet):
    said = api.post("exports", {"selector": "site in (leeds, york)"}).json()
    assert said["note"]["devices"] == ["north-cam-1", "north-cam-2"]
    assert said["note"]["chosen"] == "site in (leeds, york)"


def test_an_export_is_on_record(api, fleet):
    api.post("exports", {"devices": ["cam-2"]})
    events = [each for each in api.store.events.after(0) if each.type == "stick.exported"]
    assert [each.data["names"] for each in events] == [["cam-2"]]


@pytest.mark.parametrize(
    "body, status, code",
    [
        ({}, 422, "OUT-S120"),
        ({"devices": ["cam-1"], "selector": "site = leeds"}, 422, "OUT-S120"),
        ({"devices": ["cam-9"]}, 404, "OUT-S110"),
        ({"selector": "site = hull"}, 404, "OUT-S110"),
        ({"selector": "site ="}, 422, "OUT-S101"),
    ],
)
def test_a_choice_of_nobody_is_refused(api, fleet, body, status, code):
    answer = api.post("exports", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_plans_that_are_not_signed_yet_are_waited_for_and_then_refused(api, fleet, monkeypatch):
    monkeypatch.setattr("control_plane.web.export.TRY_S", 0.0)
    newer = codec.encode(Plan("north", "digits", 2, 2, (Rule(None, fleet.digest),)))
    api.store.plans.put(PlanRow("digits", 2, 2, newer))
    answer = api.post("exports", {"devices": ["cam-1"]})
    assert (answer.status_code, answer.json()["code"]) == (503, "OUT-T109")


@pytest.mark.parametrize("name", ["sha256-" + "0" * 64, "nothing", "..%2Fkeys"])
def test_a_payload_that_is_none_is_not_found(api, fleet, name):
    assert api.get(f"payloads/{name}").status_code == 404

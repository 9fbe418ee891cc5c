"""From inputs that drift to a signed notice at somebody's door, and back to the numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from control_plane import cli, settings
from control_plane.demo.fleet import wait_until
from control_plane.demo.traffic import Application, Row
from control_plane.drift.notices import read_secret, signature
from tests.fakes.command_line import ran
from tests.fakes.hooks import TRUST, Receiver
from tests.fakes.whole_fleet import (
    LIMIT_S,
    MODEL,
    RATE,
    FleetHere,
    Operator,
    ready,
    short_folder,
)

pytestmark = pytest.mark.e2e

STUCK = (Row((3.0, 3.0, 3.0, 3.0), 0),)
"""Above all that the reference has."""


@pytest.fixture
def receiver(tmp_path, monkeypatch) -> Iterator[Receiver]:
    with Receiver(tmp_path / "receiver") as made:
        monkeypatch.setenv(TRUST, str(made.authority))
        yield made


@pytest.fixture
def operator(receiver) -> Iterator[Operator]:
    """A fleet of two whose webhooks may lie on this machine."""
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        settings.write(replace(settings.read({}, fleet.home), webhook_private=True))
        fleet.start_control_plane()
        fleet.enrol({"x": ("d-1", "d-2")})
        operator = Operator(fleet)
        operator.ship("v1")
        operator.roll_out("v1")
        yield operator


def test_a_device_that_drifts_is_told_to_a_webhook_and_its_alarm_is_recomputed(operator, receiver):
    fleet = operator.fleet
    added = fleet.client.post("webhooks", {"url": receiver.url, "topics": ["alarms"]})
    secret = read_secret(added["secret"])
    for device in fleet.devices.values():
        fleet.start_agent(device)
        operator.until(device, lambda d=device: ready(d), "ready")
    stuck = fleet.devices["d-1"]
    stuck.application = Application(stuck.port, MODEL, "pixels", STUCK, RATE)
    stuck.application.start()
    wait_until(lambda: receiver.took, "a notice", 3 * LIMIT_S, 0.1)

    took = receiver.took[0]
    notice = json.loads(took.body)
    at_s = int(took.headers["webhook-timestamp"])
    assert took.headers["webhook-id"] == notice["id"]
    assert took.headers["webhook-signature"] == signature(secret, notice["id"], at_s, took.body)
    assert notice["type"] == "dev.outrider.alarm.opened.v1"
    assert notice["source"] == "/v1/fleets/local"
    alarm = notice["subject"]
    said = notice["data"]
    assert (said["subject"], said["verdict"], said["kind"]) == (
        "local-d-1",
        "device drifted",
        "detector",
    )

    explained = ran(cli.run, ["drift", "explain", alarm, "--json", "--home", str(fleet.home)])
    assert explained.exit == 0, explained.err
    replayed = json.loads(explained.out)["replayed"]
    assert (replayed["same"], replayed["found"]) == (True, True)
    (listed,) = fleet.client.get("alarms")["items"]
    assert (listed["id"], listed["evidence"]) == (alarm, said["evidence"])
    assert fleet.client.get("/v1/health")["ready"]

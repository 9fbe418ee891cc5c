"""Devices that leave, on a real fleet: ignored while they are connected, refused afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.demo.fleet import Device, wait_until
from control_plane.fleet.authority import Authority
from protocol.enrolment import decode_token
from tests.fakes.device_keys import csr, new_key
from tests.fakes.whole_fleet import (
    LIMIT_S,
    NearFleet,
    Operator,
    application,
    ready,
    short_folder,
    tails,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    """A control plane in a process of its own; v1 is the stable version of each device."""
    with short_folder() as folder, NearFleet(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("i-1", "i-2")})
        operator = Operator(fleet)
        operator.ship("v1")
        operator.roll_out("v1")
        yield operator


def refused(operator: Operator) -> int:
    """Messages that ingest has refused since the control plane started."""
    detail = operator.fleet.client.get("/v1/health")["parts"]["ingest"]["detail"]
    found = re.search(r"refused (\d+)", detail)
    assert found is not None, detail
    return int(found[1])


def link(operator: Operator, device: Device) -> dict[str, Any]:
    """As the device sees it: `connected`, and `why` it is not."""
    found: dict[str, Any] = (operator.fleet.status(device) or {}).get("link") or {}
    return found


def is_connected(operator: Operator, device: Device) -> bool:
    return bool(link(operator, device).get("connected"))


def serials(operator: Operator) -> frozenset[str]:
    """What is on the revocation list in force."""
    found = Authority(operator.fleet.home / "ca", "local").revocation_list()
    return found.serials if found else frozenset()


def test_a_retired_device_is_ignored_while_connected_and_refused_when_it_comes_again(operator):
    device, other = operator.fleet.devices["i-1"], operator.fleet.devices["i-2"]
    for each in (device, other):
        operator.fleet.start_agent(each)
        operator.until(each, lambda each=each: ready(each), "ready")
        application(each)
        operator.until_runs(each, "v1")
    operator.until(device, lambda: operator.stored(device) > 0, "heard")
    assert is_connected(operator, device)

    operator.fleet.client.post(f"devices/{device.name}/retire", {"why": "stolen"})
    heard = refused(operator)
    wait_until(lambda: len(serials(operator)) == 1, "it is on the list", LIMIT_S)
    wait_until(lambda: refused(operator) > heard, "it talks, and is refused", LIMIT_S)
    before = operator.stored(device)
    assert is_connected(operator, device), tails(operator.fleet)
    answered = operator.counted(device)
    assert device.application is not None
    operator.until_more(device.application)
    operator.until(device, lambda: operator.counted(device) > answered, "counting on")
    assert operator.stored(device) == before
    listed = operator.fleet.client.get("devices")
    assert [each["name"] for each in listed["items"]] == ["i-2"]

    # Its connection ends for whatever reason: it does not come in again, and answers go on.
    assert device.process is not None
    device.process.terminate()
    device.process.wait()
    operator.fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    operator.until(device, lambda: bool(link(operator, device).get("why")), "refused")
    assert not is_connected(operator, device)
    answering = application(device)
    operator.until_more(answering)
    operator.until(other, lambda: is_connected(operator, other), "connected still")
    assert operator.stored(device) == before


def test_a_replacement_joins_with_the_labels_of_the_one_before(operator):
    answer = operator.fleet.client.post("devices/i-2/replace", {"name": "i-3"})
    token = decode_token(answer["token"])
    body = {"token": token.t, "csr": csr(new_key())}
    joined = operator.fleet.client.post("/v1/enrol", body)
    assert (joined["device"], joined["labels"]["site"]) == ("local-i-3", "x")
    wait_until(lambda: len(serials(operator)) == 2, "the old one is on the list", LIMIT_S)

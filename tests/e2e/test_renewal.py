"""Certificates that grow old, on a real fleet: renewed under traffic, and after they expired."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from control_plane.demo.fleet import Device, free_port, wait_until
from control_plane.fleet.authority import Authority
from edge_agent import offline
from edge_agent.enrol import make_csr
from edge_agent.identity import CERTIFICATE, FOLDER, KEY, certificate_until_ms
from tests.fakes.renewals import DAY_MS, pair
from tests.fakes.whole_fleet import (
    LIMIT_S,
    NearFleet,
    Operator,
    application,
    ready,
    short_folder,
)

pytestmark = pytest.mark.e2e

TWO_YEARS_MS = 729 * DAY_MS


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    """A control plane in a process of its own; v1 is the stable version of each device."""
    with short_folder() as folder, NearFleet(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("r-1", "r-2", "r-3")})
        operator = Operator(fleet)
        operator.ship("v1")
        operator.roll_out("v1")
        yield operator


def aged(operator: Operator, name: str, days: int) -> Device:
    """A device whose certificate was issued so long ago, by the fleet's own authority."""
    device = operator.fleet.devices[name]
    folder = device.home / FOLDER
    key = load_pem_private_key((folder / KEY).read_bytes(), None)
    authority = Authority(operator.fleet.home / "ca", "local")
    then_ms = time.time_ns() // 1_000_000 - days * DAY_MS
    csr = make_csr(key).encode()  # type: ignore[arg-type]  # the agent makes this kind only
    (folder / CERTIFICATE).write_bytes(authority.sign_csr(csr, f"local-{name}", then_ms))
    return device


def renewed(device: Device) -> bool:
    """Whether the certificate on disk is a new one, for the key on disk."""
    own, certified = pair(device.home / FOLDER)
    assert own == certified
    left_ms = certificate_until_ms(device.home / FOLDER) - time.time_ns() // 1_000_000
    return left_ms > TWO_YEARS_MS


def shown_until_ms(operator: Operator, device: Device) -> int:
    return int((operator.fleet.status(device) or {}).get("certificate_until_ms", 0))


def test_past_half_of_its_life_a_certificate_is_renewed_under_traffic(operator):
    device = aged(operator, "r-1", 500)
    key = (device.home / FOLDER / KEY).read_bytes()
    operator.fleet.start_agent(device)
    operator.until(device, lambda: renewed(device), "renewed")
    operator.until(device, lambda: ready(device), "ready")
    answering = application(device)
    operator.until_runs(device, "v1")
    assert (device.home / FOLDER / KEY).read_bytes() == key

    # It is told to technicians, and the link was made again, once, with the new certificate.
    until_ms = certificate_until_ms(device.home / FOLDER)
    wait_until(lambda: shown_until_ms(operator, device) == until_ms, "status shows it", LIMIT_S)
    status = operator.fleet.status(device) or {}
    assert status["link"]["connected"]
    assert status["state"]["counters"]["connected"] == 2
    assert status.get("renewal", {}).get("failures", 0) == 0

    # Records flow as before.
    operator.until_more(answering)
    device.application = None
    answering.stop()
    operator.until(device, lambda: operator.delivered(device), "delivered")
    assert answering.tally.failed == 0
    wait_until(
        lambda: operator.stored(device) == operator.counted(device), "all counts are there", LIMIT_S
    )


def test_a_renewal_while_the_model_serves_fails_no_request(operator):
    device = operator.fleet.devices["r-2"]
    operator.fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    answering = application(device)
    operator.until_runs(device, "v1")
    # The running agent sees the file change, as when a technician brings one, and asks at once.
    aged(operator, "r-2", 500)
    operator.until(device, lambda: renewed(device), "renewed")
    operator.until_more(answering)
    device.application = None
    answering.stop()
    assert answering.tally.failed == 0
    operator.until(device, lambda: operator.delivered(device), "delivered")


def test_an_expired_certificate_is_renewed_by_proof_of_its_key(operator):
    device = aged(operator, "r-3", 800)
    loaded = x509.load_pem_x509_certificate((device.home / FOLDER / CERTIFICATE).read_bytes())
    assert loaded.not_valid_after_utc.timestamp() < time.time()
    operator.fleet.start_agent(device)
    operator.until(device, lambda: renewed(device), "renewed")
    operator.until(device, lambda: bool(operator.reported(device)), "heard")
    operator.until(device, lambda: ready(device), "ready")


def test_a_device_joins_and_renews_with_files_alone(operator, tmp_path):
    fleet, home, stick = operator.fleet, operator.fleet.folder / "r-4", tmp_path
    home.mkdir()
    answered, digest = sign(operator, offline.write_request(home, stick, "r-4"), {"site": "x"})
    made = offline.take_answer(home, answered, digest)
    assert (made.device, made.labels) == ("local-r-4", {"site": "x"})
    fleet.devices["r-4"] = device = Device("r-4", "x", home, free_port())
    fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    operator.until(device, lambda: bool(operator.reported(device)), "heard")

    before_ms = certificate_until_ms(home / FOLDER)
    answered, _ = sign(operator, offline.write_renewal(home, stick), {})
    offline.take_renewal(home, answered)
    until_ms = certificate_until_ms(home / FOLDER)
    assert until_ms > before_ms
    wait_until(lambda: shown_until_ms(operator, device) == until_ms, "the agent saw it", LIMIT_S)


def sign(operator: Operator, request: Path, labels: dict[str, str]) -> tuple[Path, str]:
    """What `outrider device sign-request` does with a file, and the digest that it shows."""
    body = {"request": json.loads(request.read_bytes()), "labels": labels}
    answer = operator.fleet.client.post("enrolments", body)
    file = request.with_name("answer.json")
    file.write_text(json.dumps(answer["enrolment"] or answer["renewal"]))
    return file, str(answer["root_digest"])

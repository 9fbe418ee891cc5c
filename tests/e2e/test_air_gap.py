"""Devices that no link reaches: what a stick brings them, and what no stick can make them do.

Broker, agents and runners are real processes. The link is a cable that is cut; the stick is a
folder, written and read by the commands that people type.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import cli
from control_plane.demo.fleet import Device, wait_until
from control_plane.rollout.plan import terms
from control_plane.signing.repository import Repository
from control_plane.wiring import now_ms
from edge_agent import cli as agent_cli
from protocol import codec
from protocol.identifiers import Digest
from protocol.plan import Plan, Rule
from tests.fakes.bundles import BundleOnDisk
from tests.fakes.command_line import Ran, ran
from tests.fakes.whole_fleet import (
    LIMIT_S,
    MODEL,
    FleetHere,
    Operator,
    application,
    ready,
    short_folder,
)

pytestmark = pytest.mark.e2e

DAY_MS = 86_400_000


class Site(Operator):
    """A technician with sticks, and an operator at the control plane."""

    def export(self, to: str, *devices: str) -> Path:
        stick = self.fleet.folder / to
        home = f"--home={self.fleet.home}"
        result = ran(cli.run, ["export", "usb", "--to", str(stick), *devices, home])
        assert result.exit == 0, result.err
        return stick

    def install(self, device: Device, stick: Path) -> Ran:
        words = ["install", "--from", str(stick), f"--home={device.home}"]
        return ran(agent_cli.run_command, words)

    def copied(self, stick: Path, name: str) -> Path:
        to = stick.with_name(name)
        shutil.copytree(stick, to)
        return to

    def forger(self, name: str) -> Repository:
        """The fleet's repository in the hands of somebody who has stolen the online keys."""
        stolen = self.fleet.folder / name
        shutil.copytree(self.fleet.home / "tuf", stolen)
        assert isinstance(self.fleet, FleetHere)
        assert self.fleet.control is not None
        return Repository.open(stolen, self.fleet.home / "keys", "local")

    def resigned(self, stick: Path, repository: Repository, at_ms: int, plan: bytes) -> None:
        """Another plan on the stick, and metadata that names it."""
        deny = (stick / "deny.json").read_bytes()
        understood = terms(codec.decode_signed(plan, Plan, limit=codec.MAX_PLAN))
        repository.publish({MODEL: (plan, understood)}, deny, at_ms)
        (stick / f"plans/{MODEL}.json").write_bytes(plan)
        for role, data in repository.metadata().items():
            (stick / f"tuf/{role}.json").write_bytes(data)

    def trusts(self, device: Device) -> dict[str, Any]:
        status = self.fleet.status(device)
        assert status is not None
        found: dict[str, Any] = status["state"]["trust"]
        return found


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"leeds": ("u-1", "u-2", "u-3")})
        yield Site(fleet)
        fleet.stop()


@pytest.fixture(scope="module")
def away(site: Site) -> tuple[Device, Path, BundleOnDisk]:
    """`u-1` has run v1 under traffic, then lost its link; v2 came and is on the stick."""
    device = site.fleet.devices["u-1"]
    cable = site.fleet.lay_cable(device)
    site.ship("v1")
    site.roll_out("v1", to="id = u-1")
    site.fleet.start_agent(device)
    site.until(device, lambda: ready(device), "ready")
    application(device)
    site.until_runs(device, "v1")
    cable.cut()
    bundle = site.ship("v2", scale=1.0001)
    started = site.roll_out("v2", to="id = u-1")

    def planned() -> bool:
        return bool(site.fleet.client.get(f"rollouts/{started}")["wave"])

    wait_until(planned, "the plan says v2", LIMIT_S)
    return device, site.export("stick", "u-1"), bundle


def test_a_stick_brings_what_no_link_could_and_the_evidence_follows_later(site, away):
    device, stick, bundle = away
    before = sorted(path for path in stick.rglob("*"))
    result = site.install(device, stick)
    assert result.exit == 0, result.err
    said = result.out.splitlines()
    assert said[0].startswith("stick      made ")
    assert said[1].startswith("trust      1 of 1 signatures, versions newer than here")
    assert any(line.startswith(f"{MODEL}/v2") and "digest matches" in line for line in said)
    assert "8 of 8 golden vectors" in result.out
    assert "activated, on probation for 1 s" in result.out
    site.until_serves(device, bundle)
    assert not site.delivered(device), "without a link nothing can have been confirmed"
    assert sorted(path for path in stick.rglob("*")) == before, "nothing is written to a stick"
    answering = device.application
    site.until_more(answering)
    # Once more is no harm.
    again = site.install(device, stick)
    assert (again.exit, "runs here already" in again.out) == (0, True), again

    device.cable.restore()
    site.until_runs(device, "v2")
    site.until(device, lambda: site.delivered(device), "rid of its records")
    assert answering.tally.failures == []
    last = site.reported(device)["models"][MODEL]["last"]
    assert (last["result"], last["digest"]) == ("committed", bundle.digest)


def test_an_older_stick_changes_nothing(site, away):
    device, stick, bundle = away
    before = site.trusts(device)
    old = site.copied(stick, "old")
    site.ship("v3", scale=1.0002)
    wanted = json.loads((site.export("newer", "u-1") / "outrider-stick.json").read_bytes())
    site.until(device, lambda: site.trusts(device) != before, "trusting newer metadata")
    assert wanted["versions"]["models"] == site.trusts(device)["models"]
    result = site.install(device, old)
    assert result.exit == 6
    assert result.err.startswith("error[OUT-T110]: the stick is older than this device\n")
    assert "; this device trusts " in result.err
    site.until_serves(device, bundle)


# --- sticks that are damaged, or that somebody has made ------------------------------------------


@pytest.fixture(scope="module")
def carried(site: Site, away: tuple[Device, Path, BundleOnDisk]) -> tuple[Device, Path]:
    """`u-1` has lost its link again, and this stick brings v4."""
    device = away[0]
    assert device.cable is not None
    device.cable.cut()
    site.ship("v4", scale=1.0003)
    site.pin(device, "v4")
    return device, site.export("v4-stick", "u-1")


def flipped(path: Path) -> None:
    """One bit in the middle is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def linked(path: Path) -> None:
    """Somebody else's file, by another name."""
    path.unlink()
    path.symlink_to("/etc/hostname")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a bit of the timestamp": ("tuf/timestamp.json", flipped, "OUT-T101"),
    "a bit of the approvals": ("tuf/models.json", flipped, "OUT-T101"),
    "a bit of the document": ("documents/local-u-1.dsse", flipped, "OUT-T102"),
    "a bit of the plan": (f"plans/{MODEL}.json", flipped, "OUT-T106"),
    "a bit of the manifests": ("manifests/*", flipped, "OUT-T107"),
    "a bit of the payloads": ("payloads/*", flipped, "OUT-T103"),
    "payloads that are cut short": ("payloads/*", cut_short, "OUT-T103"),
    "payloads that are links": ("payloads/*", linked, "OUT-T103"),
    "hints that are links": ("hints/*/*", linked, "OUT-T119"),
    "a link in the place of the metadata": ("tuf/snapshot.json", linked, "OUT-T119"),
    "no description": ("outrider-stick.json", Path.unlink, "OUT-T119"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stick_is_refused_and_what_runs_goes_on(site, carried, damage):
    device, stick = carried
    pattern, change, code = DAMAGES[damage]
    before = site.fleet.status(device)["state"]["models"][MODEL]["current"]
    damaged = site.copied(stick, "damaged")
    for path in [*damaged.glob(pattern)]:
        change(path)
    result = site.install(device, damaged)
    shutil.rmtree(damaged)
    assert result.err.startswith(f"error[{code}]"), result
    assert result.exit == (2 if code == "OUT-T119" else 6)
    site.until_more(device.application)
    assert site.fleet.status(device)["state"]["models"][MODEL]["current"] == before


def test_the_honest_stick_is_taken_after_all_of_them(site, carried):
    device, stick = carried
    result = site.install(device, stick)
    assert (result.exit, result.err) == (0, "")
    assert f"{MODEL}/v4" in result.out
    site.until_more(device.application)
    assert device.application.tally.failures == []


def test_a_stick_for_another_device_is_refused(site, carried):
    device, _ = carried
    other = site.export("other-stick", "u-3")
    result = site.install(device, other)
    assert (result.exit, result.out) == (2, "")
    assert "it was made for u-3, this is u-1" in result.err


def test_a_stick_of_thirty_days_is_taken_by_a_device_that_was_never_connected(site):
    device = site.fleet.devices["u-2"]
    site.fleet.lay_cable(device).cut()
    started = site.roll_out("v4", to="id = u-2")

    def planned() -> bool:
        return bool(site.fleet.client.get(f"rollouts/{started}")["wave"])

    wait_until(planned, "the plan says v4", LIMIT_S)
    stick = site.export("thirty-days", "u-2")
    plan = (stick / f"plans/{MODEL}.json").read_bytes()
    site.resigned(stick, site.forger("thirty"), now_ms() - 30 * DAY_MS, plan)
    site.fleet.start_agent(device)
    site.until(device, lambda: site.fleet.status(device) is not None, "running")
    result = site.install(device, stick)
    assert (result.exit, result.err) == (0, ""), result
    site.until(device, lambda: ready(device), "ready")
    trusted = site.trusts(device)
    assert trusted["fresh_until"] < site.trusts(site.fleet.devices["u-1"])["fresh_until"]


def test_stolen_online_keys_cannot_bring_an_unapproved_bundle_on_a_stick(site, carried):
    device, stick = carried
    evil = site.push("v9", scale=3.0)
    forged = site.copied(stick, "forged")
    honest = codec.decode_signed(
        (forged / f"plans/{MODEL}.json").read_bytes(), Plan, limit=codec.MAX_PLAN
    )
    _unpinned(site, device, forged)
    plan = Plan("local", MODEL, honest.version + 1, 99, (Rule(None, evil.digest),))
    site.resigned(forged, site.forger("stolen"), now_ms(), codec.encode(plan))
    _put(forged, evil)
    result = site.install(device, forged)
    assert result.exit == 6
    assert "refused: OUT-T104" in result.out
    assert result.err.startswith("error[OUT-T104]")
    site.until_more(device.application)
    model = site.fleet.status(device)["state"]["models"][MODEL]
    assert evil.digest not in (model["serving"], model["current"])
    assert device.application.tally.failures == []


def _unpinned(site: Site, device: Device, stick: Path) -> None:
    """The attacker signs documents too: nothing but the plan decides."""
    site.unpin(device)
    name = f"documents/local-{device.name}.dsse"
    (stick / name).write_bytes((site.export("unpinned", device.name) / name).read_bytes())


def _put(stick: Path, bundle: BundleOnDisk) -> None:
    """All that a bundle needs, as an honest stick has it, but for its approval."""
    digests: dict[Digest, str] = {bundle.digest: "index.json", bundle.manifest: "manifest.json"}
    for digest, name in digests.items():
        shutil.copy(bundle.path / name, stick / "manifests" / digest)

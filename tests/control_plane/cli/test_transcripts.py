"""What operators see, word for word; figures are masked. Files lie in tests/golden/cli.

`OUTRIDER_TRANSCRIPTS=write` writes what the commands in the files say now: read the difference.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from control_plane import cli
from protocol.bundle import Needs
from protocol.identifiers import digest_of
from protocol.members import Card
from tests.control_plane.cli.conftest import healthy, rolled_back
from tests.control_plane.cli.drift_scenes import alarming, drifting
from tests.control_plane.cli.rollout_scenes import FleetOfTwelve, planning, without_chance
from tests.control_plane.web.conftest import Api
from tests.fakes.command_line import Command, masked, transcript

GOLDEN = Path(__file__).parents[2] / "golden/cli"
DAY_MS = 86_400_000

CANARY = """\
kind: rollout
model: digits
version: v2
to: site in (leeds, york)
waves:
- {devices: 12, soak_time: 24h}
- {percent: 100}
"""
BROKEN = "model: digits\nversion: [v2\nto: all\n"


def versions(api: Api) -> None:
    """A bundle to push; another that is approved."""
    api.approved("v1")
    api.clock[0] += DAY_MS // 4
    api.packed(api.bundle("v2"))


def devices(api: Api) -> None:
    """Three at two sites: normal, rolled back, away since long."""
    one = api.approved("v1")
    two = api.approved("v2")
    now = api.clock[0]
    for name, site in (("cam-0031", "leeds"), ("cam-0117", "leeds"), ("cam-0204", "york")):
        api.enrol(name, site=site)
    api.report("cam-0204", digits=healthy(one, now))
    api.clock[0] = now + 17 * DAY_MS
    api.report("cam-0031", digits=healthy(one, now))
    api.report("cam-0117", digits=rolled_back(one, two.digest, api.clock[0] - 360_000))
    api.store.devices.contact("north-cam-0204", now + 8 * DAY_MS)
    for name in ("cam-0031", "cam-0117"):
        api.store.devices.contact(f"north-{name}", api.clock[0])


def many(api: Api) -> None:
    api.approved("v1")
    for number in range(120):
        api.enrol(f"cam-{number:04}", site="leeds" if number % 2 else "york")


def errors(api: Api) -> None:
    api.pushed("v2")
    api.approved("v1")
    api.enrol("cam-0031", site="leeds")
    (api.folder / "canary.yaml").write_text(CANARY)
    (api.folder / "broken.yaml").write_text(BROKEN)


def people(api: Api) -> None:
    """Two of three sign. Ana's key is encrypted and lies with her; the others' are on the server.

    Version 1 runs, version 2 is pushed, version 3 is on its way.
    """
    api.tick_by_itself()
    one = api.approved("v1", card=a_card("v1", accuracy=0.914, worst_class=0.902))
    api.enrol("cam-1", site="leeds")
    api.report("cam-1", digits=healthy(one, api.clock[0]))
    api.clock[0] += DAY_MS // 4
    needs = Needs(("aarch64", "x86_64"), "1.17", 96_000_000)
    for version, weights in (("v2", 1), ("v3", 2)):
        card = a_card(version, accuracy=0.962, worst_class=0.931)
        bundle = api.bundle(version, weights_seed=weights, needs=needs, card=card)
        if version == "v2":
            assert api.push(bundle).json()["state"] == "succeeded"
        else:
            api.packed(bundle)
    ana = load_pem_private_key((api.parts.settings.keys / "ana.pem").read_bytes(), None)
    sealed = BestAvailableEncryption(b"correct horse")
    (api.folder / "ana.pem").write_bytes(
        ana.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
    )
    (api.folder / "ana.txt").write_text("correct horse\n")
    (api.folder / "wrong.txt").write_text("correct horses\n")


def a_card(version: str, **metrics: float) -> Card:
    return Card(
        "digits",
        version,
        description="Reads digits",
        license="Apache-2.0",
        intended_use="demos",
        limitations="digits only",
        metrics=metrics,
    )


def ceremony(api: Api) -> None:
    """A passphrase; everything else is made as people watch."""
    (api.folder / "words").write_text("correct horse\n")


def access(api: Api) -> None:
    """eva is an operator, bo was one; a file with a login is missing."""
    people, now_ms = api.store.people, api.clock[0]
    people.create(digest_of(b"eva"), "eva", "operator", now_ms, now_ms + 90 * DAY_MS)
    people.create(digest_of(b"bo"), "bo", "operator", now_ms - DAY_MS)
    people.revoke("bo", now_ms)
    api.clock[0] += DAY_MS
    people.used(digest_of(b"eva"), api.clock[0] - 360_000)


SCENES: dict[str, Callable[[Api], object]] = {
    "access": access,
    "alarms": alarming,
    "approving": versions,
    "devices": devices,
    "drift": drifting,
    "rollouts": devices,
    "rollout-plan": planning,
    "rollout-waves": FleetOfTwelve,
    "rollout-abort": FleetOfTwelve,
    "many": many,
    "errors": errors,
    "people": people,
    "trust": ceremony,
}
QUORUM = {"people"}


@pytest.fixture
def new_home(request, new_home, quorum_home):
    """Scenes with several approvers are of another fleet."""
    return quorum_home if request.node.callspec.params["scene"] in QUORUM else new_home


@pytest.mark.parametrize("scene", SCENES)
def test_a_transcript_is_as_agreed(api, outrider, scene, monkeypatch):
    without_chance(monkeypatch)
    made = SCENES[scene](api)
    commands: dict[str, Command] = {"outrider": cli.run}
    if isinstance(made, FleetOfTwelve):
        commands["meanwhile"] = made.meanwhile
    path = GOLDEN / f"{scene}.txt"
    agreed = path.read_text(encoding="utf-8")
    now = transcript(commands, agreed.splitlines())
    if os.environ.get("OUTRIDER_TRANSCRIPTS") == "write":
        path.write_text(now, encoding="utf-8")
    assert masked(now) == masked(agreed)


def test_every_file_has_a_scene():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCENES)


@pytest.mark.parametrize("scene", SCENES)
def test_lines_fit_on_a_screen(scene):
    long = [
        line
        for line in (GOLDEN / f"{scene}.txt").read_text(encoding="utf-8").splitlines()
        if len(line.removeprefix("2| ")) > 80 and not line.startswith(("$ ", "2| {", "2| go on:"))
    ]
    assert long == []

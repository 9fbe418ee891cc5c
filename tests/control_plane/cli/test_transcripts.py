"""What operators see, word for word; figures are masked. Files lie in tests/golden/cli.

`OUTRIDER_TRANSCRIPTS=write` writes what the commands in the files say now: read the difference.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane import cli
from tests.control_plane.cli.conftest import healthy, rolled_back
from tests.control_plane.web.conftest import Api
from tests.fakes.command_line import masked, transcript

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


SCENES: dict[str, Callable[[Api], None]] = {
    "approving": versions,
    "devices": devices,
    "rollouts": devices,
    "many": many,
    "errors": errors,
}


@pytest.mark.parametrize("scene", SCENES)
def test_a_transcript_is_as_agreed(api, outrider, scene):
    SCENES[scene](api)
    path = GOLDEN / f"{scene}.txt"
    agreed = path.read_text(encoding="utf-8")
    now = transcript({"outrider": cli.run}, agreed.splitlines())
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

"""Plays the scenes in order on eight devices, prints the table of checks, and says 0 or 1."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Final, TextIO

from control_plane.broker import find
from control_plane.demo import scenes
from control_plane.demo.fleet import Fleet
from control_plane.demo.stage import Stage
from control_plane.demo.transcript import Transcript
from control_plane.settings import read
from control_plane.signing.quorum import quorum
from protocol.errors import OutriderError

APPROVERS: Final = ("ana", "bo", "cy")
SITES: Final = {
    "a": ("a-1", "a-2", "a-3", "a-4"),
    "b": ("b-1", "b-2", "b-3", "b-4"),
}
ON_A_CABLE: Final = "a-4"
PINNED: Final = "a-1"


def play(folder: Path, stream: TextIO, *, keep: bool = False, json_file: Path | None = None) -> int:
    """0 if every check holds, else 1. `folder` is made anew.

    With `keep` the fleet runs on after the table, until Ctrl-C.
    """
    transcript = Transcript(stream)
    shutil.rmtree(folder, ignore_errors=True)
    count = sum(map(len, SITES.values()))
    transcript.plain(
        f"outrider demo   {count} devices, sites a and b, real processes, about 3 minutes"
    )
    with Fleet(folder) as fleet:
        stage = Stage(fleet, transcript)
        try:
            _set_up(stage)
            _scenes(stage)
        except OutriderError as error:
            stage.note(0, "the demo went through", "yes", "no", ok=False, missing=str(error))
        transcript.table(stage.checks)
        if json_file is not None:
            document = {"checks": [asdict(check) for check in stage.checks]}
            json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if keep:
            _keep(stage)
    return 0 if stage.checks and all(check.ok for check in stage.checks) else 1


def _set_up(stage: Stage) -> None:
    fleet = stage.fleet
    fleet.initialise(APPROVERS)
    fleet.start_control_plane()
    stage.transcript.plain(f"broker   {_mosquitto()}, TLS, one identity per device")
    needed = quorum(read({}, fleet.home).tuf).needed
    held = f"{len(APPROVERS)} approvers, {needed} needed"
    stage.transcript.plain(f"keys     {held}, all on this machine: demo only")
    fleet.enrol(SITES)
    fleet.lay_cable(fleet.devices[ON_A_CABLE])
    fleet.start_agents()


def _scenes(stage: Stage) -> None:
    devices = stage.fleet.devices
    scenes.first_model(stage)
    scenes.better_model(stage)
    scenes.bad_model(stage)
    scenes.cut_link(stage, devices[ON_A_CABLE])
    scenes.drift_at_one_site(stage)
    scenes.pin(stage, devices[PINNED])
    scenes.power_cut(stage)


def _mosquitto() -> str:
    result = subprocess.run([str(find()), "-h"], capture_output=True, text=True, check=False)
    words = (result.stdout + result.stderr).split()
    version = words[words.index("version") + 1] if "version" in words else "of unknown version"
    return f"mosquitto {version}"


def _keep(stage: Stage) -> None:
    fleet = stage.fleet
    transcript = stage.transcript
    device = stage.devices[0]
    transcript.plain()
    transcript.plain(f"running on: {fleet.client.access.url}")
    transcript.plain(f"  export OUTRIDER_HOME={fleet.home}")
    transcript.plain("  outrider device list")
    transcript.plain("  outrider rollout status")
    transcript.plain(f"  outrider device show {device.name}")
    transcript.plain(f"  outrider-agent status --home {device.home}")
    transcript.plain(f"  curl -s localhost:{device.port}/v2/models/digits")
    transcript.plain("Ctrl-C stops everything.")
    try:
        fleet.wait()
    except KeyboardInterrupt:
        transcript.plain("stopping")

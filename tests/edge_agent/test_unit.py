"""The unit: as shipped, confined enough, and readable to systemd."""

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from edge_agent import unit
from protocol.errors import InvalidRequest

SHIPPED = Path(__file__).parents[2] / "deploy/systemd/outrider-agent.service"
EXPOSURE = 3.0
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


def settings(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_the_shipped_unit_is_the_one_that_is_installed():
    assert SHIPPED.read_text(encoding="utf-8") == unit.text(unit.Terms())


def test_what_differs_between_devices_is_in_it():
    terms = unit.Terms(
        PurePosixPath("/home/ada/venv/bin/outrider-agent"),
        PurePosixPath("/srv/outrider"),
        "edge",
        8600,
        "mq.site:8883",
    )
    text = unit.text(terms)
    assert settings(text, "ExecStart") == [
        "/home/ada/venv/bin/outrider-agent run --home /srv/outrider --port 8600 "
        "--broker mq.site:8883"
    ]
    assert settings(text, "User") == ["edge"]
    assert settings(text, "ReadWritePaths") == ["/srv/outrider"]
    assert settings(text, "StateDirectory") == []
    # A program in somebody's home must be readable.
    assert settings(text, "ProtectHome") == ["read-only"]
    assert settings(unit.text(unit.Terms()), "ProtectHome") == ["yes"]


@pytest.mark.parametrize(
    "bad",
    [
        {"user": "Ada Lovelace"},
        {"user": "x\nUser=root"},
        {"home": PurePosixPath("var/lib")},
        {"home": PurePosixPath("/var/lib/a b")},
        {"home": PurePosixPath("/var/%i")},
        {"broker": "x y"},
        {"program": PurePosixPath("/opt/x;reboot")},
    ],
)
def test_what_a_unit_cannot_say_is_refused(bad):
    with pytest.raises(InvalidRequest) as raised:
        unit.Terms(**bad)
    assert raised.value.code == "OUT-S120"


@pytest.mark.parametrize(
    "name, value",
    [
        ("KillMode", "process"),  # runners outlive their supervisor
        ("Restart", "always"),
        ("Type", "notify"),
        ("OOMPolicy", "continue"),
        ("LimitCORE", "0"),
    ],
)
def test_what_keeps_models_answering_is_set(name, value):
    assert settings(SHIPPED.read_text(encoding="utf-8"), name) == [value]


@needs_systemd
def test_it_is_confined_enough():
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(SHIPPED)],
        capture_output=True,
        text=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    ).stdout
    (overall,) = [line for line in said.splitlines() if "Overall exposure level" in line]
    assert float(overall.rpartition(": ")[2].split()[0]) <= EXPOSURE, overall


@needs_systemd
def test_systemd_finds_nothing_wrong_with_it(tmp_path):
    trial = tmp_path / SHIPPED.name
    here = unit.Terms(program=PurePosixPath("/bin/true"))  # a program that is on this machine
    trial.write_text(unit.text(here))
    said = subprocess.run(["systemd-analyze", "verify", str(trial)], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")

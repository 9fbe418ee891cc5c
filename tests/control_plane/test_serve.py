"""Real processes: the control plane and its broker, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.access import access
from control_plane.client import Client
from control_plane.fleet.authority import Authority
from control_plane.fleet.revocation import DAY_MS
from control_plane.init import init_dev
from control_plane.settings import Settings, write
from control_plane.wiring import now_ms
from edge_agent.enrol import enrol
from protocol.errors import InvalidRequest, OutriderError, Unavailable
from tests.fakes.bundles import make_bundle
from tests.fakes.operator import packed, signature
from tests.fakes.waiting import until

pytestmark = pytest.mark.e2e

PROGRAM = """
import logging, sys
from pathlib import Path
from control_plane import serve, settings, up
logging.basicConfig(level=logging.INFO)
def say(text): print(text, flush=True)
found = settings.read({}, Path(sys.argv[2]))
if sys.argv[1] == "up": up.up(found, say)
else: serve.serve(found, ready=lambda _: say("ready"))
"""


class Running:
    """`outrider up`, with what it said."""

    def __init__(self, settings: Settings, log: Path):
        self.settings = settings
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, what: str = "up") -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, what, str(self.settings.home)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        until(self._ready)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            with self.client() as client:
                return bool(client.get("/v1/health")["ready"])
        except Unavailable:
            return False

    def client(self) -> Client:
        return Client(access(self.settings.home))

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    def broker_pid(self) -> int:
        return int((self.settings.broker / "pid").read_text())


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Running]:
    running = Running(init_dev(tmp_path / "cp", api_port=0, broker_port=0), tmp_path / "log")
    yield running
    if running.process is not None:
        running.end(signal.SIGTERM)


def test_up_says_what_runs_and_ends_cleanly(control: Running):
    control.start()
    control.wait_until_ready()
    of = control.settings
    said = [line for line in control.log.read_text().splitlines() if ":root:" not in line]
    for line in (
        f"broker   mosquitto :{of.broker_port}, mutual TLS",
        f"api      https://127.0.0.1:{of.api_port}",
        "DEV KEYS threshold 1: anyone on this machine can ship a model",
        "ready    Ctrl-C stops this; devices go on",
    ):
        assert line in said
    pid = control.broker_pid()
    assert control.end(signal.SIGTERM) == 0
    assert "Traceback" not in control.log.read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_control_plane_starts_again_and_goes_on(control: Running):
    control.start()
    control.wait_until_ready()
    with control.client() as client:
        before = client.get("tuf")["roles"]["timestamp"]
        client.post("tokens", {})
    orphan = control.broker_pid()
    control.end(signal.SIGKILL)
    os.kill(orphan, 0)
    control.start()
    control.wait_until_ready()
    assert control.broker_pid() != orphan
    with control.client() as client:
        assert client.get("tuf")["roles"]["timestamp"] == before


def test_a_broker_that_dies_is_started_again(control: Running):
    control.start()
    control.wait_until_ready()
    pid = control.broker_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: control.broker_pid() != pid)
    control.wait_until_ready()


def test_a_device_enrols_over_https_with_a_token_once(control: Running, tmp_path: Path):
    control.start()
    control.wait_until_ready()
    with control.client() as client:
        token = client.post("tokens", {"labels": {"site": "home"}, "name": "a-1"})["token"]
        identity = enrol(token, tmp_path / "agent")
        assert identity.device == "local-a-1"
        shown = client.get("devices/a-1")
        assert shown["device"]["labels"] == {"site": "home"}
        until(lambda: client.get("devices/local-a-1")["document"]["published"] > 0)
        with pytest.raises(InvalidRequest) as refused:
            enrol(token, tmp_path / "other")
        assert refused.value.code == "OUT-A202"


def test_a_version_is_pushed_approved_and_published_and_its_first_wave_begins(
    control: Running, tmp_path: Path
):
    control.start()
    control.wait_until_ready()
    tar = tmp_path / "v1.tar"
    bundle = make_bundle(tmp_path / "bundles", "digits", "v1")
    tar.write_bytes(packed(bundle, tmp_path))
    with control.client() as client:
        enrol(client.post("tokens", {"name": "a-1"})["token"], tmp_path / "agent")
        pushed = client.wait(client.upload("bundles", tar))
        assert pushed["digest"] == bundle.digest
        path = "models/digits/versions/v1"
        trust, draft = client.get("tuf"), client.get(f"{path}/draft")
        body = signature(trust, draft, control.settings, tmp_path, now_ms())
        assert client.post(f"{path}/signatures", body)["complete"]
        started = client.post("rollouts", {"version": "digits/v1"})
        where = f"rollouts/{started['id']}"
        until(lambda: client.get(where)["wave"] == 1)
        rollouts = json.loads(client.get("tuf")["roles"]["rollouts"])["signed"]["targets"]
        assert "rollouts/plan-digits" in rollouts
        # In the middle of it: killed, and started again, it is where it was.
        control.end(signal.SIGKILL)
        control.start()
        control.wait_until_ready()
        assert client.get(where)["status"] == "running"
        assert client.get(where)["counts"]["targeted"] == 1


def test_a_store_older_than_the_fleet_goes_on_above_it(control: Running, tmp_path: Path):
    home = control.settings.home
    control.start()
    control.wait_until_ready()
    backup = {name: (home / name).read_bytes() for name in ("store.sqlite",)}
    with control.client() as client:
        token = client.post("tokens", {"name": "a-1"})["token"]
        enrol(token, tmp_path / "agent")
        before = client.get("tuf")["roles"]["timestamp"]
    control.end(signal.SIGTERM)
    for name in ("timestamp", "snapshot", "rollouts"):
        (control.settings.tuf / f"{name}.json").unlink()
    for name, data in backup.items():
        (home / name).write_bytes(data)
    for leftover in home.glob("store.sqlite-*"):
        leftover.unlink()
    control.start()
    control.wait_until_ready()

    def version(text: str) -> int:
        return int(json.loads(text)["signed"]["version"])

    with control.client() as client:
        after = client.get("tuf")["roles"]["timestamp"]
    assert version(after) >= version(before)


def test_without_the_file_of_the_local_token_nobody_is_local(control: Running):
    token = control.settings.operator_token.read_text()
    control.settings.operator_token.unlink()
    control.start()
    until(lambda: "ready" in control.log.read_text())
    control.settings.operator_token.write_text(token)
    with control.client() as client, pytest.raises(OutriderError) as refused:
        client.get("devices")
    assert refused.value.code == "OUT-A102"


def test_after_more_than_a_month_without_a_control_plane_devices_get_in_again(control: Running):
    """Its revocation list has expired by then, and the certificates of the servers are half old."""
    authority = Authority(control.settings.ca, control.settings.fleet)
    authority.crl.unlink()
    then_ms = now_ms() - 400 * DAY_MS
    authority.issue_servers(then_ms)
    authority.issue_crl((), then_ms)
    control.start()
    control.wait_until_ready()
    found = authority.revocation_list()
    assert found is not None
    assert found.until_ms - now_ms() > 29 * DAY_MS
    assert not authority.renewal_due(now_ms())
    with control.client() as client:
        identity = client.get("/v1/health")["parts"]["identity"]
    assert identity["ok"]
    assert identity["detail"].startswith("0 revoked")


def test_a_broker_elsewhere_gets_its_files_and_is_told_by_the_operators_command(
    control: Running, tmp_path: Path
):
    copies, note = tmp_path / "copies", tmp_path / "reloaded"
    command = [sys.executable, "-c", f"open({str(note)!r}, 'w')"]
    control.settings = replace(
        control.settings, broker_files=str(copies), broker_reload=tuple(command)
    )
    write(control.settings)
    control.start("serve")
    until(note.exists)
    ca = control.settings.ca
    assert (copies / "devices.crl").read_bytes() == (ca / "devices.crl").read_bytes()


def test_a_second_one_on_the_same_port_is_told_so(control: Running):
    control.start()
    control.wait_until_ready()
    second = subprocess.run(
        [sys.executable, "-c", PROGRAM, "serve", str(control.settings.home)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode != 0
    assert "OUT-N106" in second.stderr
    with control.client() as client:
        assert client.get("/v1/health")["ready"]


def test_without_its_token_the_api_says_nothing(control: Running):
    control.start()
    control.wait_until_ready()
    control.settings.operator_token.write_text("another\n")
    with control.client() as client, pytest.raises(OutriderError) as refused:
        client.get("devices")
    assert refused.value.code == "OUT-A101"

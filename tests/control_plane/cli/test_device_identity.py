"""`outrider device retire`, `replace`, `sign-request`, and `outrider broker config`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from protocol.codec import decode, encode
from protocol.enrolment import (
    MAX_ANSWER,
    OfflineAnswer,
    OfflineRequest,
    RenewAnswer,
    decode_token,
)
from tests.control_plane.web.conftest import Api
from tests.fakes.device_keys import csr, new_key, renewal


@pytest.fixture
def fleet(api: Api) -> Api:
    api.enrol("cam-1", site="leeds")
    api.enrol("cam-2", site="york")
    return api


def test_a_device_is_retired_with_a_reason_and_listed_among_the_retired(fleet, outrider):
    assert outrider("device", "retire", "cam-1").exit == 2
    done = outrider("device", "retire", "cam-1", "--why", "stolen")
    assert (done.exit, done.out) == (
        0,
        "retired cam-1: its certificates are revoked, its records stay\n",
    )
    assert "cam-1" not in outrider("device", "list").out
    listed = outrider("device", "list", "--retired").out.splitlines()
    assert listed[1].split()[:2] == ["cam-1", "retired"]
    assert listed[-1] == "1 device"
    assert outrider("device", "show", "cam-1").out.startswith("retired")
    assert outrider("device", "pin", "cam-1", "digits/v1").exit == 4


def test_a_replacement_is_a_token_on_stdout_and_words_on_stderr(fleet, outrider):
    done = outrider("device", "replace", "cam-1", "--name", "cam-9")
    assert done.exit == 0
    assert decode_token(done.out).u.startswith("https://")
    assert "retired cam-1; this enrols cam-9 with site=leeds within 24 h" in done.err
    assert not fleet.store.devices.is_member("north-cam-1")


def request_file(folder: Path, request: OfflineRequest, name: str = "cam-9") -> Path:
    path = folder / f"{name}.request.json"
    path.write_bytes(encode(request))
    return path


def test_a_stick_goes_out_with_a_request_and_home_with_an_answer(api, outrider):
    file = request_file(api.folder, OfflineRequest(csr(new_key()), "cam-9"))
    stick = api.folder / "stick"
    stick.mkdir()
    words = ["device", "sign-request", str(file), "--to", str(stick), "--label", "site=leeds"]
    done = outrider(*words)
    assert done.exit == 0, done.err
    path = stick / "cam-9.answer.json"
    answer = decode(path.read_bytes(), OfflineAnswer, limit=MAX_ANSWER)
    assert (answer.device, answer.labels) == ("north-cam-9", {"site": "leeds"})
    assert done.out.splitlines() == [
        "enrolled cam-9 in fleet north, site=leeds",
        f"wrote    {path}",
        f"digest   {answer.root_digest}",
    ]
    again = outrider(*words)
    assert again.exit == 2
    assert "OUT-A210" in again.err
    assert "outrider device retire" in again.err


def test_a_renewal_on_a_stick_is_answered_too(api, outrider):
    key = new_key()
    token = decode_token(api.post("tokens", {"name": "cam-9"}).json()["token"])
    api.post("/v1/enrol", {"token": token.t, "csr": csr(key)})
    asked = renewal(key, device="north-cam-9")
    request = OfflineRequest(asked.csr, None, asked.device, asked.proof)
    file = request_file(api.folder, request)
    done = outrider("device", "sign-request", str(file), "--to", str(api.folder))
    assert done.exit == 0, done.err
    data = (api.folder / "cam-9.answer.json").read_bytes()
    assert decode(data, RenewAnswer, limit=MAX_ANSWER).certificate
    assert "outrider-agent enrol --renew --answer cam-9.answer.json" in done.err


@pytest.mark.parametrize(
    "content, says", [(b"", "OUT-A210"), (b"{}", "OUT-A210"), (b"x" * 100_000, "OUT-A210")]
)
def test_a_file_that_is_no_request_is_not_sent(api, outrider, content, says):
    file = api.folder / "x.request.json"
    file.write_bytes(content)
    done = outrider("device", "sign-request", str(file), "--to", str(api.folder))
    assert done.exit == 2
    assert says in done.err


def test_an_answer_needs_a_folder_before_anything_is_signed(api, outrider):
    file = request_file(api.folder, OfflineRequest(csr(new_key()), "cam-9"))
    done = outrider("device", "sign-request", str(file), "--to", str(api.folder / "none"))
    assert (done.exit, "OUT-S120" in done.err) == (2, True)
    assert api.store.devices.get("cam-9") is None


def test_a_brokers_folder_is_written_and_what_keeps_it_current_is_said(api, outrider):
    to = api.folder / "broker"
    done = outrider("broker", "config", "--to", str(to))
    assert done.exit == 0, done.err
    assert done.out.splitlines()[0] == f"wrote    {to / 'mosquitto.conf'}"
    assert f"broker_files: {to / 'north'}" in done.err
    assert "broker_reload: [systemctl, reload, mosquitto]" in done.err
    assert stat.S_IMODE((to / "north/server.key").stat().st_mode) & 0o007 == 0
    shown = json.loads(outrider("broker", "config", "--to", str(to), "--json").out)
    assert [each["fleet"] for each in shown["listeners"]] == ["north"]
    home = str(api.parts.settings.home)
    twice = outrider("broker", "config", "--to", str(to), "--fleet-home", home)
    assert (twice.exit, "same name" in twice.err) == (2, True)

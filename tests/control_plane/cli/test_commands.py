"""What holds for every command: help, exit codes, streams, JSON, options, colour, interruption."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import typer.main

from control_plane import cli
from control_plane.cli import commands
from control_plane.client import Client
from protocol.problems import CATALOGUE
from tests.control_plane.cli.conftest import healthy
from tests.fakes.command_line import ran

WITHOUT_JSON = {("up",), ("serve",), ("audit", "export"), ("auth", "logout")}
"""Daemons; one that writes JSON lines anyway; one that has nothing to say."""


def every_command() -> Iterator[tuple[str, ...]]:
    top = typer.main.get_command(cli.app)
    for name, found in top.commands.items():  # type: ignore[attr-defined]  # a group
        inner = getattr(found, "commands", None)
        if inner is None:
            yield (name,)
        else:
            yield from ((name, each) for each in inner)


EVERY = list(every_command())


def test_the_agreed_commands_are_there():
    assert {" ".join(words) for words in EVERY} == {
        *("init", "serve", "up", "demo", "explain"),
        *("model build", "model push", "model approve", "model list", "model show"),
        *("model reject", "model revoke", "model withdraw", "model deny", "model undeny"),
        *(f"rollout {what}" for what in ("plan", "start", "status", "explain", "retry", "return")),
        *(f"rollout {what}" for what in ("promote", "approve", "pause", "resume", "abort")),
        *("device enrol-token", "device list", "device show"),
        *("device pin", "device unpin", "device allow", "device set", "device import-records"),
        *("device retire", "device replace", "device sign-request", "broker config"),
        *("auth create", "auth list", "auth login", "auth logout", "auth revoke", "auth whoami"),
        *("audit export", "audit list", "audit verify", "export usb"),
        *("keys generate", "keys online", "keys show"),
        *(f"trust {what}" for what in ("init", "publish", "renew", "rotate", "sign", "status")),
        *("profile build", "drift show", "drift explain", "drift budget"),
        *(f"alarm {what}" for what in ("list", "show", "acknowledge", "snooze", "resolve")),
        *(f"webhook {what}" for what in ("add", "dead", "list", "remove", "retry", "test")),
    }


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_explains_itself_in_80_columns(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = ran(cli.run, [*words, "--help"])
    assert (result.exit, result.err) == (0, "")
    assert result.out.startswith(f"Usage: outrider {' '.join(words)} ")
    assert result.out.splitlines()[2].strip(), "a sentence"
    assert max(map(len, result.out.splitlines())) <= 80
    for option in ("--quiet", "--verbose", "--no-color"):
        assert option in result.out
    assert ("--json" in result.out) == (words not in WITHOUT_JSON)


def test_help_comes_without_arguments():
    for words in ([], ["model"], ["rollout"], ["device"]):
        result = ran(cli.run, words)
        assert result.exit == 2
        assert result.out == ""
        assert result.err.startswith("Usage: outrider")


JSON = [
    "device enrol-token --label site=a",
    "device list",
    "device show cam-1",
    "device pin cam-1 digits/v1",
    "device unpin cam-1",
    "device allow cam-1 digits/v1",
    "model list",
    "model list digits",
    "model show digits/v1",
    "rollout plan digits/v1",
    "rollout start digits/v1 --dry-run",
    "rollout start digits/v1 --yes --expect-devices 2",
    "rollout status",
    "rollout pause",
    "rollout resume",
    "rollout abort --yes",
    "explain D310",
]


def test_json_is_one_document_on_stdout(api, outrider):
    api.approved("v1")
    api.enrol("cam-1", site="a")
    api.enrol("cam-2", site="a")
    for words in JSON:
        result = outrider(*words.split(), "--json", "-q")
        assert result.exit in (0, 8), (words, result.err)
        assert result.err == "", words
        assert isinstance(json.loads(result.out), dict), words
        assert result.out.count("\n") == 1, words


def test_json_is_the_body_of_the_api(api, outrider):
    api.approved("v1")
    api.enrol("cam-1", site="a")
    assert (
        json.loads(outrider("device", "show", "cam-1", "--json").out)
        == api.get("devices/cam-1").json()
    )
    page = json.loads(outrider("model", "list", "digits", "--json").out)
    assert page == api.get("models/digits/versions", limit=50).json()


def test_a_token_alone_is_on_stdout(api, outrider):
    result = outrider("device", "enrol-token", "--label", "site=home")
    token = result.out.removesuffix("\n")
    assert "\n" not in token
    assert token.isascii()
    assert result.err == "enrols one device within 24 h: outrider-agent enrol --token-file FILE\n"
    assert outrider("device", "enrol-token", "-q").err == ""


def test_init_makes_a_home_and_refuses_to_make_it_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTRIDER_HOME", raising=False)
    words = ["init", "--dev", "--api-port", "0", "--broker-port", "0"]
    made = ran(cli.run, words)
    assert made.exit == 0
    assert made.out.splitlines() == [
        "wrote    ./outrider: config.yaml, store.sqlite, ca/, keys/, tuf/",
        "DEV KEYS threshold 1: anyone on this machine can ship a model",
    ]
    assert made.err == "Next: outrider up\n"
    again = ran(cli.run, [*words, "--json"])
    assert (again.exit, again.out) == (5, "")
    assert json.loads(again.err)["code"] == "OUT-S151"


def test_init_with_named_approvers_says_how_many_must_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTRIDER_HOME", raising=False)
    words = ["init", "--dev", "--api-port=0", "--broker-port=0", "--approvers", "ana,bo,cy"]
    made = ran(cli.run, words)
    assert made.out.splitlines()[1:] == [
        "DEV KEYS threshold 2 of 3, all on this machine: anyone here can ship a model"
    ]
    assert {path.name for path in Path("outrider/keys").iterdir()} >= {"ana.pem", "bo.pem"}


# --- exit codes -----------------------------------------------------------------------------------


ENDS = [
    (2, "OUT-S120", "model lst"),
    (2, "OUT-S120", "device pin cam-1"),
    (2, "OUT-S120", "rollout status --wach"),
    (2, "OUT-S101", "device list site="),
    (2, "OUT-S121", "rollout start -f condition.yaml"),
    (2, "OUT-S130", "device list --cursor x"),
    (2, "OUT-S152", "rollout start digits/v1"),
    (2, "OUT-S152", "rollout start digits/v1 --yes"),
    (2, "OUT-S152", "rollout return digits/v1"),
    (3, "OUT-S110", "device show nobody"),
    (3, "OUT-S110", "rollout start digits/v9"),
    (3, "OUT-S110", "explain D999"),
    (3, "OUT-S150", "model list --home nowhere"),
    (4, "OUT-A101", "model list --home no-token"),
    (5, "OUT-R202", "rollout abort digits-1"),
    (5, "OUT-R202", "rollout promote digits-1"),
    (5, "OUT-R202", "rollout approve digits-1"),
    (5, "OUT-R202", "rollout retry digits-1"),
    (3, "OUT-S110", "rollout explain digits-1"),
    (3, "OUT-S110", "rollout return digits/v9"),
    (2, "OUT-S120", "rollout plan"),
    (5, "OUT-S151", "init --dev"),
    (6, "OUT-T104", "rollout start digits/v2"),
]


def test_errors_have_their_exit_code_and_say_it_in_both_forms(api, outrider):
    api.approved("v1")
    api.pushed("v2")
    for name in ("cam-1", "cam-2"):
        api.enrol(name)
    api.post("rollouts", {"version": "digits/v1", "to": "cam-*"})
    api.post("rollouts/digits-1/abort")
    (api.folder / "condition.yaml").write_text("version: digits/v1\nerror_condition: a lot\n")
    home = api.folder / "no-token"
    home.mkdir()
    (home / "config.yaml").write_text("fleet: north\n")
    for exit, code, words in ENDS:
        said = outrider(*words.split())
        assert (said.exit, said.out) == (exit, ""), words
        assert said.err.startswith(f"error[{code}]: "), words
        assert "\n  do:  " in said.err, words
        as_json = outrider(*words.split(), "--json")
        assert (as_json.exit, as_json.out) == (exit, ""), words
        assert json.loads(as_json.err)["code"] == code, words


def test_nobody_there_is_exit_7(outrider, monkeypatch):
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(
        commands, "Client", lambda access: Client(access, transport=httpx.MockTransport(refuse))
    )
    result = outrider("device", "list")
    assert result.exit == 7
    assert result.err.splitlines() == [
        "error[OUT-N104]: control plane not reachable: https://127.0.0.1:8400",
        "  why: connection refused, 3 tries in 0 s",
        "  do:  start it: outrider up; or check the address",
    ]


def test_a_fault_of_ours_is_said_in_our_words(outrider, monkeypatch):
    monkeypatch.setattr(commands, "Client", lambda access: 1 / 0)
    result = outrider("device", "list")
    assert result.exit == 1
    assert result.err.splitlines()[:2] == [
        "error[OUT-S160]: a fault in Outrider",
        "  why: ZeroDivisionError: division by zero",
    ]
    assert "Traceback" not in result.err
    assert "Traceback" in outrider("device", "list", "-v").err


# --- watching -------------------------------------------------------------------------------------


def test_watching_prints_each_change_and_exits_with_the_outcome(api, outrider, monkeypatch):
    api.approved("v1")
    api.enrol("cam-1")
    api.post("rollouts", {"version": "digits/v1"})
    looks = iter([lambda: None, lambda: api.post("rollouts/digits-1/abort", {"why": "enough"})])
    monkeypatch.setattr("control_plane.cli.looking.time.sleep", lambda s: next(looks)())
    result = outrider("rollout", "status", "--watch", "--json")
    assert result.exit == 1
    assert [json.loads(line)["status"] for line in result.out.splitlines()] == [
        "preparing",
        "aborted",
    ]


def test_ctrl_c_ends_only_the_watching(api, outrider, monkeypatch):
    api.approved("v1")
    api.enrol("cam-1")
    api.post("rollouts", {"version": "digits/v1"})

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("control_plane.cli.looking.time.sleep", interrupt)
    result = outrider("rollout", "status", "--watch")
    assert result.exit == 130
    assert "preparing" in result.out
    assert api.get("rollouts/digits-1").json()["status"] == "preparing"


def test_on_a_terminal_the_next_look_is_drawn_over_the_last(api, outrider, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    api.approved("v1")
    api.enrol("cam-1")
    api.post("rollouts", {"version": "digits/v1"})
    monkeypatch.setattr(
        "control_plane.cli.looking.time.sleep", lambda s: api.post("rollouts/digits-1/pause")
    )
    result = outrider("rollout", "status", "--watch", terminal=True)
    assert result.exit == 8
    assert result.out.count("\x1b[2A\x1b[J") == 1


# --- confirmations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "devices, to, answers, starts",
    [
        pytest.param(1, "all", None, True, id="one device asks nothing, even as the whole fleet"),
        pytest.param(3, "cam-1", None, None, id="a label that nobody has"),
        pytest.param(3, "line = 1", None, True, id="one of several asks nothing"),
        pytest.param(4, "line != 1", None, False, id="several, and nobody to ask"),
        pytest.param(4, "line != 1", "y", True, id="several want a yes"),
        pytest.param(4, "line != 1", "", False, id="enter is a no"),
        pytest.param(4, "all", "y", False, id="the whole fleet wants its number"),
        pytest.param(4, "all", "4", True, id="the number of the whole fleet"),
        pytest.param(101, "line != 1", "y", False, id="a hundred want their number"),
        pytest.param(101, "line != 1", "100", True, id="the number of a hundred"),
    ],
)
def test_who_is_asked(api, outrider, devices, to, answers, starts):
    api.approved("v1")
    for number in range(devices):
        api.enrol(f"cam-{number}", line="1" if number == 0 else "2")
    typed = None if answers is None else f"{answers}\n"
    words = ("rollout", "start", "digits/v1", "--to", to)
    result = outrider(*words, answers=typed)
    expected = {True: 0, False: 2, None: 5}[starts]
    assert result.exit == expected, result.err
    assert api.get("rollouts").json()["count"] == (1 if starts else 0)


def test_json_does_not_mean_yes(api, outrider):
    api.approved("v1")
    for name in ("cam-1", "cam-2"):
        api.enrol(name)
    refused = outrider("rollout", "start", "digits/v1", "--json")
    assert (refused.exit, refused.out) == (2, "")
    assert json.loads(refused.err)["code"] == "OUT-S152"
    one = outrider("rollout", "start", "digits/v1", "--json", "--yes", "--expect-devices", "2")
    assert json.loads(one.out)["id"] == "digits-1"


# --- screens --------------------------------------------------------------------------------------


def test_colour_only_repeats_words(api, outrider, monkeypatch):
    bundle = api.approved("v1")
    api.enrol("cam-1")
    api.report("cam-1", digits=healthy(bundle, api.clock[0]))
    plain = outrider("device", "list").out
    assert "\x1b" not in plain
    monkeypatch.setenv("TERM", "xterm")
    coloured = outrider("device", "list", terminal=True).out
    assert "\x1b[32mhealthy\x1b[0m" in coloured
    assert coloured.replace("\x1b[32m", "").replace("\x1b[0m", "") == plain
    assert outrider("device", "list", "--no-color", terminal=True).out == plain
    monkeypatch.setenv("NO_COLOR", "")
    assert outrider("device", "list", terminal=True).out == plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert outrider("device", "list", terminal=True).out == plain


def test_a_terminal_without_utf_8_gets_ascii(api, outrider):
    api.approved("v1")
    api.enrol("cam-1")
    api.post("rollouts", {"version": "digits/v1", "waves": ["1"]})
    api.post("rollouts/digits-1/pause", {"why": "Käfer"})
    result = outrider("rollout", "status", encoding="ascii")
    assert result.out.splitlines()[1:] == ["why        K?fer", "`- wave 1  1 waits for its plan"]
    as_json = outrider("rollout", "status", "--json", encoding="ascii")
    assert json.loads(as_json.out)["why"] == "Käfer"


def test_v_gives_reasons_and_vv_the_wire(api, outrider, caplog):
    said = outrider("device", "show", "nobody", "-v").err
    assert "  request  req-" in said
    with caplog.at_level("INFO", logger="httpx"):
        outrider("device", "list", "-vv")
    assert any("/v1/fleets/north/devices" in record.getMessage() for record in caplog.records)


def test_a_list_goes_on_where_it_stopped(api, outrider):
    for number in range(51):
        api.enrol(f"cam-{number:02}")
    first = outrider("device", "list")
    assert first.out.splitlines()[-1] == "50 of 51 devices"
    command = first.err.removeprefix("go on: outrider ").split()
    rest = outrider(*command)
    assert [line.split()[0] for line in rest.out.splitlines()] == ["DEVICE", "cam-50", "1"]
    assert rest.out.splitlines()[-1] == "1 of 51 devices"
    assert rest.err == ""


# --- explain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_is_explained_offline(code, monkeypatch):
    monkeypatch.setattr(commands, "connect", None)
    entry = CATALOGUE[code]
    said = ran(cli.run, ["explain", code])
    assert (said.exit, said.err) == (0, "")
    assert said.out.splitlines()[0] == f"{code}  {entry.title}"
    assert entry.help.split()[0] in said.out
    assert max(map(len, said.out.splitlines())) <= 80


@pytest.mark.parametrize("name", ["out-d310", "D310", "d310", "health", "HEALTH"])
def test_a_code_may_be_written_in_several_ways(name):
    assert json.loads(ran(cli.run, ["explain", name, "--json"]).out)["code"] == "OUT-D310"


def test_a_command_does_not_load_a_server():
    heavy = {"fastapi", "sqlite_utils", "scipy", "numpy", "onnx", "tuf", "sklearn", "uvicorn"}
    look = (
        "import sys, control_plane.cli;"
        f"print(sorted({heavy!r} & set(m.partition('.')[0] for m in sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", look], text=True) == "[]\n"

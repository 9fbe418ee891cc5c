"""Settings of a control plane: where they come from, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.settings import (
    DEVELOPMENT,
    Intervals,
    Settings,
    find_home,
    parse,
    read,
    require_loopback,
    write,
)
from edge_agent.urls import url_of
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of


def test_what_is_written_is_read(tmp_path):
    settings = Settings(tmp_path, "north", dev=True, api_port=9000, intervals=DEVELOPMENT)
    write(settings)
    assert read({}, tmp_path) == settings


@pytest.mark.parametrize(
    "environment, flag, home",
    [
        ({}, None, Path.cwd() / "outrider"),
        ({"OUTRIDER_HOME": "/srv/o"}, None, Path("/srv/o")),
        ({"OUTRIDER_HOME": "/srv/o"}, Path("/srv/flag"), Path("/srv/flag")),
    ],
)
def test_the_flag_wins_over_the_environment(environment, flag, home):
    assert find_home(environment, flag) == home


def test_development_fleets_live_faster_and_each_interval_can_be_set():
    assert parse({"dev": True}, Path("/x")).intervals == DEVELOPMENT
    assert parse({}, Path("/x")).intervals == Intervals()
    assert parse({"intervals": {"tick": 9}}, Path("/x")).intervals.tick == 9


def test_no_control_plane_here(tmp_path):
    with pytest.raises(InvalidRequest, match="S150"):
        read({}, tmp_path)


@pytest.mark.parametrize(
    "document, says",
    [
        ([], "list of settings"),
        ({"api_prot": 1}, "unknown field api_prot"),
        ({"api_port": "many"}, "api_port"),
        ({"api_port": 70_000}, "port"),
        ({"fleet": "North"}, "fleet"),
        ({"intervals": 5}, "intervals"),
        ({"intervals": {"drift_slot": 0}}, "drift_slot"),
        ({"intervals": {"drift_slot": 7200, "drift_day": 3600}}, "drift_day"),
        ({"alarm_command": "mail -s drift"}, "alarm_command"),
        ({"mirrors": "https://m.example/"}, "mirrors"),
        ({"mirrors": ["https://m.example/payloads"]}, "a mirror is like"),
        ({"mirrors": ["ftp://m.example/"]}, "a mirror is like"),
        ({"mirrors": ["https://me:secret@m.example/"]}, "a mirror is like"),
        ({"mirrors": ["https://m.example/?of="]}, "a mirror is like"),
        ({"mirrors": [f"https://m.example/{'x' * 512}/"]}, "a mirror is like"),
        ({"mirrors": [f"https://m{n}.example/" for n in range(4)]}, "at most 3 mirrors"),
    ],
)
def test_what_is_wrong_is_named(document, says):
    with pytest.raises(InvalidRequest, match="S120") as caught:
        parse(document, Path("/x"))
    assert says in caught.value.why


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(InvalidRequest, match="S120"):
        read({}, tmp_path)


def test_hints_name_the_mirrors_then_the_control_plane_unless_it_serves_nothing():
    mirrors = ["https://m.example/payloads/", "http://[2001:db8::1]:8080/"]
    settings = parse({"mirrors": mirrors}, Path("/x"))
    assert settings.payload_urls == (*mirrors, "/")
    settings = parse({"mirrors": mirrors, "serve_payloads": False}, Path("/x"))
    assert settings.payload_urls == tuple(mirrors)
    assert parse({}, Path("/x")).payload_urls == ("/",)


@pytest.mark.parametrize(
    "mirror",
    ["https://m.example/", "http://[2001:db8::1]:8080/p/", "https://10.0.0.7:8443/a/b-c_d.e~f/"],
)
def test_agents_ask_every_mirror_that_may_be_set(mirror):
    parse({"mirrors": [mirror]}, Path("/x"))
    name = digest_of(b"payload")
    assert url_of(mirror, name, "", dev=False) == f"{mirror}{name}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_a_development_control_plane_may_answer_its_own_machine(host):
    require_loopback(True, host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "cp.example", "localhost.example"])
def test_a_development_control_plane_answers_no_other_machine(host):
    require_loopback(False, host)
    with pytest.raises(InvalidRequest) as refused:
        require_loopback(True, "127.0.0.1", host)
    assert refused.value.code == "OUT-A121"
    assert host in refused.value.why

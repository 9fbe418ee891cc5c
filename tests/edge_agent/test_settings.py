"""Settings: flags over environment over defaults, and sockets whose paths are short enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import settings
from edge_agent.settings import read
from protocol.errors import InvalidRequest


def test_flags_win_over_the_environment(tmp_path):
    environment = {settings.HOME_VARIABLE: str(tmp_path / "e"), settings.PORT_VARIABLE: "9000"}
    assert read(environment).paths.home == tmp_path / "e"
    assert read(environment).port == 9000
    chosen = read(environment, tmp_path / "f", 9001)
    assert (chosen.paths.home, chosen.port) == (tmp_path / "f", 9001)


@pytest.mark.parametrize("depth", [0, 5, 50])
def test_sockets_have_short_paths_however_deep_the_home_lies(depth):
    home = Path("/h", *(["deeper"] * depth))
    paths = read({}, home).paths
    assert len(str(paths.run / "r-0123456789abcdef.sock")) <= 107
    assert read({}, home).paths == paths


def test_two_deep_homes_do_not_share_a_run_folder():
    deep = Path("/h", *(["deeper"] * 50))
    assert read({}, deep / "a").paths.run != read({}, deep / "b").paths.run


@pytest.mark.parametrize(
    "text, address",
    [
        ("192.168.1.20:8501", ("192.168.1.20", 8501)),
        ("0.0.0.0:8501", ("0.0.0.0", 8501)),
        ("[::]:8501", ("::", 8501)),
        ("[fe80::1]:1", ("fe80::1", 1)),
        ("192.168.1.20:8500", ("192.168.1.20", 8500)),
        ("127.0.0.1:8501", ("127.0.0.1", 8501)),
    ],
)
def test_an_address_for_other_machines_is_a_number_and_a_port(text, address):
    assert read({}, listen=text).listen == address
    assert read({settings.LISTEN_VARIABLE: text}).listen == address


@pytest.mark.parametrize(
    "text", [":8501", "8501", "0.0.0.0", "host:8501", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:+1"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidRequest, match="--listen") as caught:
        read({}, listen=text)
    assert caught.value.code == "OUT-S120"


@pytest.mark.parametrize("text", ["0.0.0.0:8500", "[::]:8500", "127.0.0.1:8500"])
def test_the_port_of_loopback_is_not_given_away(text):
    with pytest.raises(InvalidRequest, match="this device's own applications"):
        read({}, listen=text)


def test_nobody_listens_for_other_machines_unless_it_is_said():
    assert read({}).listen is None


def test_memory_and_deadlines_come_from_the_environment():
    chosen = read(
        {
            settings.MEMORY_VARIABLE: "120000000",
            settings.LOAD_VARIABLE: "90",
            settings.REQUEST_VARIABLE: "5",
        }
    )
    assert chosen.memory_bytes == 120_000_000
    assert chosen.deadlines == settings.Deadlines(load=90, request=5)
    assert read({}).memory_bytes is None
    assert read({}).deadlines == settings.Deadlines(30, 30)


def test_whoever_installs_a_device_says_which_way_payloads_come_first():
    assert read({}).transports == ("mqtt", "http")
    assert read({settings.TRANSPORTS_VARIABLE: "http, mqtt"}).transports == ("http", "mqtt")
    assert read({settings.TRANSPORTS_VARIABLE: "mqtt"}).transports == ("mqtt",)


@pytest.mark.parametrize(
    "variable, text",
    [
        (settings.TRANSPORTS_VARIABLE, "carrier pigeon"),
        (settings.TRANSPORTS_VARIABLE, "mqtt,mqtt"),
        (settings.TRANSPORTS_VARIABLE, "mqtt,"),
        (settings.MEMORY_VARIABLE, "lots"),
        (settings.MEMORY_VARIABLE, "-1"),
        (settings.LOAD_VARIABLE, "0"),
        (settings.REQUEST_VARIABLE, "1.5"),
    ],
)
def test_a_number_that_is_none_names_its_variable(variable, text):
    with pytest.raises(InvalidRequest, match=variable) as caught:
        read({variable: text})
    assert caught.value.code == "OUT-S120"

"""What Mosquitto is told, as text; whether it obeys is seen with a real one."""

from __future__ import annotations

import os
import re
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from control_plane.broker_files import write_production
from control_plane.fleet.authority import Authority
from control_plane.mosquitto import (
    MAX_PACKET,
    Certificates,
    Listener,
    access_list,
    configuration,
    control_identity,
)
from control_plane.settings import Settings
from protocol.codec import MAX_TUF_ROLE
from protocol.errors import InvalidRequest

NOW_MS = 1_795_000_000_000
FILES = Certificates(Path("/b/s.crt"), Path("/b/s.key"), Path("/b/ca.crt"), Path("/b/crl"))


def listener(fleet: str, port: int) -> Listener:
    return Listener(fleet, port, FILES, Path(f"/b/{fleet}/acl"))


def sections(text: str) -> list[list[str]]:
    """The general part, then one for each listener."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    starts = [0, *(n for n, line in enumerate(lines) if line.startswith("listener ")), len(lines)]
    return [lines[a:b] for a, b in pairwise(starts)]


def test_every_fleet_has_a_listener_with_all_that_keeps_others_out():
    both = [listener("north", 8883), listener("south", 8884)]
    text = configuration(both, data=Path("/d"), autosave_s=60, user="mosquitto")
    general, *listeners = sections(text)
    assert general[0] == "per_listener_settings true"
    assert "user mosquitto" in general
    assert [section[0] for section in listeners] == ["listener 8883", "listener 8884"]
    for fleet, section in zip(("north", "south"), listeners, strict=True):
        assert {
            "require_certificate true",
            "use_identity_as_username true",
            "use_username_as_clientid true",
            "allow_anonymous false",
            "tls_version tlsv1.2",
            "cafile /b/ca.crt",
            "crlfile /b/crl",
            f"acl_file /b/{fleet}/acl",
            "max_connections 20000",
        } <= set(section)


def test_limits_are_declared_and_let_the_largest_role_through():
    general = sections(configuration([listener("north", 1)], data=Path("/d"), autosave_s=1))[0]
    said = dict(line.split(" ", 1) for line in general)
    assert int(said["max_packet_size"]) == MAX_PACKET > MAX_TUF_ROLE
    assert int(said["message_size_limit"]) == MAX_TUF_ROLE
    for limit in ("max_inflight_messages", "max_queued_messages", "max_queued_bytes"):
        assert int(said[limit]) > 0
    assert said["persistence"] == "true"


def test_an_acl_names_its_fleet_in_every_line_and_gives_devices_nothing_to_write_but_upwards():
    lines = access_list("north").splitlines()
    for line in lines:
        assert not line or line.startswith("user ") or " outrider/v1/north/" in line
    writable = [line for line in lines if re.match("pattern (write|readwrite)", line)]
    assert len(writable) == 2
    assert all("%u" in line for line in writable)
    user = lines.index(f"user {control_identity('north')}")
    assert lines[user + 1 :] == ["topic readwrite outrider/v1/north/#"]


@pytest.mark.parametrize(
    "listeners, says",
    [
        ([], "at least one"),
        ([listener("north", 1), listener("north", 2)], "same name"),
        ([listener("north", 1), listener("south", 1)], "same port"),
    ],
)
def test_fleets_that_share_what_tells_them_apart_are_refused(listeners, says):
    with pytest.raises(InvalidRequest, match=says):
        configuration(listeners, data=Path("/d"), autosave_s=1)


@pytest.fixture
def fleets(tmp_path):
    made = []
    for number, name in enumerate(("north", "south")):
        Authority.create(tmp_path / name / "ca", name, NOW_MS)
        made.append(Settings(tmp_path / name, name, broker_port=8883 + number))
    return made


def test_what_is_written_is_whole_and_written_again_it_is_the_same(fleets, tmp_path):
    to = tmp_path / "broker"
    write_production(fleets, to, listen="10.0.0.1")
    before = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    conf = before[to / "mosquitto.conf"].decode()
    named = re.findall(r"^(?:certfile|keyfile|cafile|crlfile|acl_file) (.+)$", conf, re.MULTILINE)
    assert len(named) == 10
    assert all(Path(name) in before for name in named)
    assert "listener 8884 10.0.0.1" in conf
    write_production(fleets, to, listen="10.0.0.1")
    assert before == {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}


def test_the_brokers_group_reads_all_of_it_and_others_no_key_whatever_the_umask(fleets, tmp_path):
    to = tmp_path / "broker"
    before = os.umask(0o077)
    try:
        write_production(fleets, to)
    finally:
        os.umask(before)
    for path in (to, *to.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o040, path
        assert not (path.suffix == ".key" and mode & 0o007)
        assert not mode & 0o022, path


def test_nothing_is_written_for_fleets_that_cannot_share_a_broker(fleets, tmp_path):
    with pytest.raises(InvalidRequest, match="S120"):
        write_production([fleets[0], fleets[0]], tmp_path / "broker")
    assert not (tmp_path / "broker").exists()

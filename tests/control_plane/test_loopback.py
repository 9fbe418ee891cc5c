"""Development fleets have all keys in one place, so only their own machine reaches them."""

from __future__ import annotations

import pytest

from control_plane import cli
from control_plane.init import init_dev
from control_plane.serve import running
from control_plane.settings import Settings
from control_plane.up import up
from protocol.errors import InvalidRequest
from tests.fakes.command_line import ran

REACHABLE = [{"api_host": "0.0.0.0"}, {"broker_host": "192.0.2.7"}]


def test_it_is_not_made_for_an_address_that_others_reach(tmp_path):
    with pytest.raises(InvalidRequest) as refused:
        init_dev(tmp_path / "cp", host="0.0.0.0")
    assert refused.value.code == "OUT-A121"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hosts", REACHABLE)
def test_it_does_not_serve_there_when_its_settings_were_changed(tmp_path, hosts):
    settings = Settings(tmp_path, dev=True, **hosts)
    with pytest.raises(InvalidRequest) as refused, running(settings):
        pass
    assert refused.value.code == "OUT-A121"
    with pytest.raises(InvalidRequest) as refused:
        up(settings, print)
    assert refused.value.code == "OUT-A121"
    # Refused before anything was opened.
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = ran(cli.run, ["init", "--dev", "--host", "0.0.0.0"])
    assert done.exit == 4
    assert "error[OUT-A121]: a development control plane answers this machine only" in done.err

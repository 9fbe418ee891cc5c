"""Settings: flags over environment over defaults, and sockets whose paths are short enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import settings
from edge_agent.settings import read


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

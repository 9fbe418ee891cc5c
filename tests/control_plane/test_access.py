"""Where commands find address, token and authority: at home, or in one's access to elsewhere."""

from __future__ import annotations

import stat

import pytest

from control_plane.access import FILE, Remote, access, read_remote, write_remote
from control_plane.settings import Settings, write
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of

TOKEN = "t" * 43
REMOTE = Remote("https://cp.example:8400", "north", TOKEN, None, digest_of(b"root"))


def test_what_is_written_is_read_and_called(tmp_path):
    home = tmp_path / "a" / "b"
    write_remote(home, REMOTE)
    assert read_remote(home) == REMOTE
    found = access(home)
    assert (found.url, found.fleet, found.token, found.ca) == (REMOTE.url, "north", TOKEN, None)
    assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_control_plane_is_called_with_its_own_token(tmp_path):
    write(Settings(tmp_path, "north", api_host="::1"))
    (tmp_path / "operator.token").write_text("own\n")
    write_remote(tmp_path, REMOTE)
    found = access(tmp_path)
    assert (found.url, found.token) == ("https://[::1]:8400", "own")
    assert found.ca == tmp_path / "ca" / "api-ca.crt"


def test_neither_is_said_with_what_to_do(tmp_path):
    with pytest.raises(InvalidRequest) as refused:
        access(tmp_path)
    assert refused.value.code == "OUT-S150"
    assert "outrider auth login" in refused.value.do


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o602])
def test_a_file_that_others_may_read_is_not_used(tmp_path, mode):
    write_remote(tmp_path, REMOTE)
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(InvalidRequest) as refused:
        access(tmp_path)
    assert refused.value.code == "OUT-S120"
    assert f"chmod 600 {tmp_path / FILE}" in refused.value.do


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        f'{{"url": "{TOKEN}"}}',
        f'{{"url": "http://cp", "fleet": "north", "token": "{TOKEN}"}}',
        f'{{"url": "https://cp", "fleet": "North {TOKEN}", "token": "{TOKEN}"}}',
    ],
)
def test_a_broken_file_is_refused_without_repeating_what_is_in_it(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(InvalidRequest) as refused:
        access(tmp_path)
    assert refused.value.code == "OUT-S120"
    assert refused.value.__cause__ is None
    assert TOKEN not in str(refused.value)


def test_tokens_are_not_in_what_is_printed_by_mistake(tmp_path):
    write_remote(tmp_path, REMOTE)
    assert TOKEN not in repr(REMOTE)
    assert TOKEN not in repr(access(tmp_path))

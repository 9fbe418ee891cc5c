"""The token of this device: made once, kept to its owner, compared whole."""

import pytest

from edge_agent.runner.bearer import Bearer, make_token, read_token
from protocol.errors import InvalidRequest

TOKEN = "abcdefghijklmnop-0123"


@pytest.fixture
def file(tmp_path):
    make_token(tmp_path / "inference-token", TOKEN)
    return tmp_path / "inference-token"


def test_a_token_is_made_once_and_only_its_owner_reads_it(file):
    make_token(file, "another-token-another")
    assert read_token(file) == TOKEN
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_what_a_crash_left_does_not_keep_a_token_from_being_made(tmp_path):
    (tmp_path / ".inference-token.new").write_text("half")
    make_token(tmp_path / "inference-token", TOKEN)
    assert read_token(tmp_path / "inference-token") == TOKEN


@pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN} "])
def test_whoever_shows_it_gets_in(file, shown):
    Bearer(file).check(shown)


@pytest.mark.parametrize(
    "shown",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer ö€",
    ],
)
def test_nobody_else_does(file, shown):
    with pytest.raises(InvalidRequest) as caught:
        Bearer(file).check(shown)
    assert caught.value.code == "OUT-I112"
    assert TOKEN not in str(caught.value)


def test_a_new_token_counts_at_once(file):
    bearer = Bearer(file)
    bearer.check(f"Bearer {TOKEN}")
    other = file.with_name("other")
    make_token(other, "another-token-another")
    other.replace(file)
    bearer.check("Bearer another-token-another")
    with pytest.raises(InvalidRequest):
        bearer.check(f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short", b"with\ncontrol\ncharacters!", b"\xff" * 30]
)
def test_a_file_without_a_token_lets_nobody_in(file, content):
    file.write_bytes(content)
    with pytest.raises(InvalidRequest) as caught:
        read_token(file)
    assert caught.value.code == "OUT-S110"
    for shown in ("Bearer ", f"Bearer {TOKEN}", "Bearer " + content.decode("latin-1")):
        with pytest.raises(InvalidRequest):
            Bearer(file).check(shown)


def test_without_the_file_nobody_gets_in(file):
    bearer = Bearer(file)
    file.unlink()
    with pytest.raises(InvalidRequest):
        bearer.check(f"Bearer {TOKEN}")

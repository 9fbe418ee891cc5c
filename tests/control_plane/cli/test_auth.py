"""`outrider auth`: people are made on the server and work from elsewhere."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from control_plane.access import FILE, ROOT
from control_plane.people import Login, decode_login, encode_login
from protocol.identifiers import digest_of
from tests.control_plane.cli.conftest import Outrider
from tests.control_plane.web.conftest import Api

HOUR_MS = 3_600_000


@pytest.fixture
def login_text(api: Api, outrider: Outrider) -> Path:
    """A file with eva's login; she is an operator."""
    made = outrider("auth", "create", "eva", "--role", "operator")
    assert made.exit == 0, made.err
    path = api.folder / "eva.login"
    path.write_text(made.out)
    return path


@pytest.fixture
def elsewhere(api: Api, outrider: Outrider, login_text: Path) -> Path:
    """eva's access, in a folder of hers."""
    place = api.folder / "laptop"
    done = outrider("auth", "login", "--token-file", str(login_text), "--home", str(place))
    assert done.exit == 0, done.err
    return place


def test_a_login_is_shown_once_on_stdout_and_what_it_is_on_stderr(api: Api, outrider: Outrider):
    made = outrider("auth", "create", "eva", "--role", "viewer", "--expires", "12h")
    assert len(made.out.splitlines()) == 1
    assert decode_login(made.out).f == "north"
    assert "eva is viewer until" in made.err
    assert decode_login(made.out).t not in made.err
    api.clock[0] += 12 * HOUR_MS
    listed = outrider("auth", "list")
    assert "expired" in next(line for line in listed.out.splitlines() if line.startswith("eva"))


@pytest.mark.parametrize(
    "arguments, code, exit",
    [
        ("eva --role root", "OUT-S120", 2),
        ("Eva --role viewer", "OUT-S120", 2),
        ("eva --role viewer --expires soon", "OUT-S120", 2),
        ("eva --role viewer --expires 0d", "OUT-S120", 2),
        ("local --role viewer", "OUT-S120", 2),
    ],
)
def test_what_no_person_can_be(outrider: Outrider, arguments, code, exit):
    done = outrider("auth", "create", *arguments.split())
    assert (done.exit, done.out) == (exit, "")
    assert f"error[{code}]" in done.err


@pytest.mark.parametrize("expires", ["never", "90d", "2101-01-31", "2101-01-31T12:00:00+01:00"])
def test_until_when(outrider: Outrider, expires):
    made = outrider("auth", "create", "eva", "--role", "viewer", "--expires", expires, "--json")
    until = json.loads(made.out)["person"]["expires"]
    assert (until is None) == (expires == "never")


def test_a_person_works_from_elsewhere(api: Api, outrider: Outrider, elsewhere: Path):
    api.enrol("cam-1", site="leeds")
    home = ("--home", str(elsewhere))
    assert "cam-1" in outrider("device", "list", *home).out
    assert outrider("auth", "whoami", *home).out.startswith("eva is operator in fleet north")
    made = outrider("device", "enrol-token", *home)
    assert made.exit == 0
    changes = json.loads(outrider("audit", "list", "--json").out)["items"]
    assert (changes[0]["who"], changes[0]["what"]) == ("eva", "device.token_created")


def test_what_a_role_forbids_is_said_by_name(outrider: Outrider, elsewhere: Path):
    refused = outrider("auth", "list", "--home", str(elsewhere))
    assert refused.exit == 4
    assert "error[OUT-A204]" in refused.err
    assert "eva is operator in fleet north" in " ".join(refused.err.split())
    assert "ask an admin" in refused.err


def test_the_access_is_readable_by_its_owner_only(elsewhere: Path, outrider: Outrider):
    assert stat.S_IMODE((elsewhere / FILE).stat().st_mode) == 0o600
    (elsewhere / FILE).chmod(0o644)
    refused = outrider("device", "list", "--home", str(elsewhere))
    assert refused.exit == 2
    assert "others on this machine may read the token" in " ".join(refused.err.split())


def test_the_root_of_trust_is_the_one_that_the_text_vouches_for(api: Api, elsewhere: Path):
    assert (elsewhere / ROOT).read_bytes() == api.parts.repository.roots()[1]
    assert json.loads((elsewhere / FILE).read_bytes())["root"] == digest_of(
        api.parts.repository.roots()[1]
    )


def test_a_control_plane_that_shows_another_root_is_not_believed(
    api: Api, outrider: Outrider, login_text: Path
):
    given = decode_login(login_text.read_text())
    forged = Login(given.u, given.t, given.f, given.c, digest_of(b"another root"))
    login_text.write_text(encode_login(forged))
    place = api.folder / "laptop"
    refused = outrider("auth", "login", "--token-file", str(login_text), "--home", str(place))
    assert refused.exit == 6
    assert "error[OUT-T108]" in refused.err
    assert not place.exists()


def test_ones_own_copy_of_the_root_counts_more_than_the_text(
    api: Api, outrider: Outrider, login_text: Path
):
    own = api.folder / "own-root.json"
    own.write_bytes(b'{"signed": {}}')
    place = api.folder / "laptop"
    login = ("auth", "login", "--token-file", str(login_text), "--home", str(place))
    refused = outrider(*login, "--root", str(own))
    assert "error[OUT-T108]" in refused.err
    own.write_bytes(api.parts.repository.roots()[1])
    done = outrider(*login, "--root", str(own))
    assert (done.exit, (place / ROOT).read_bytes()) == (0, own.read_bytes())
    # Nor does a later text replace it.
    given = decode_login(login_text.read_text())
    other = Login(given.u, given.t, given.f, given.c, digest_of(b"another root"))
    login_text.write_text(encode_login(other))
    assert outrider(*login).exit == 0
    assert (place / ROOT).read_bytes() == own.read_bytes()


def test_a_folder_is_of_one_fleet(api: Api, outrider: Outrider, elsewhere: Path, login_text: Path):
    given = decode_login(login_text.read_text())
    other = Login("https://other.example:8400", given.t, given.f, given.c, given.r)
    login_text.write_text(encode_login(other))
    login = ("auth", "login", "--token-file", str(login_text))
    refused = outrider(*login, "--home", str(elsewhere))
    assert (refused.exit, "error[OUT-S151]" in refused.err) == (5, True)
    # Nor is the control plane's own folder anybody's.
    assert "error[OUT-S151]" in outrider(*login).err


def test_a_login_that_was_revoked_leaves_nothing(api: Api, outrider: Outrider, login_text: Path):
    assert outrider("auth", "revoke", "eva").out == "revoked  eva, who was operator\n"
    place = api.folder / "laptop"
    refused = outrider("auth", "login", "--token-file", str(login_text), "--home", str(place))
    assert refused.exit == 4
    assert "error[OUT-A102]" in refused.err
    assert not place.exists()


def test_the_text_may_be_typed_and_is_not_shown(api: Api, outrider: Outrider, login_text: Path):
    place = api.folder / "laptop"
    text = login_text.read_text()
    done = outrider("auth", "login", "--home", str(place), piped=text)
    assert (done.exit, (place / FILE).exists()) == (0, True)
    assert text.strip() not in done.out + done.err


def test_there_is_no_argument_for_a_secret(outrider: Outrider, login_text: Path):
    refused = outrider("auth", "login", login_text.read_text().strip())
    assert refused.exit == 2


def test_a_file_that_is_no_login_is_said(api: Api, outrider: Outrider):
    login = ("auth", "login", "--home", str(api.folder / "laptop"), "--token-file")
    assert outrider(*login, str(api.folder / "none")).exit == 3
    (api.folder / "some").write_text("some")
    assert "error[OUT-S120]: this is not the text of a login" in outrider(*login, "some").err


def test_logging_out_forgets_the_token_and_says_that_it_is_still_valid(
    outrider: Outrider, elsewhere: Path
):
    home = ("--home", str(elsewhere))
    done = outrider("auth", "logout", *home)
    assert not (elsewhere / FILE).exists()
    assert "still valid" in done.err
    assert outrider("auth", "logout", *home).exit == 3
    assert "outrider auth login" in " ".join(outrider("device", "list", *home).err.split())


def test_the_list_shows_who_and_when(api: Api, outrider: Outrider, elsewhere: Path):
    api.clock[0] += 5 * 60_000
    lines = outrider("auth", "list").out.splitlines()
    assert lines[0].split() == ["NAME", "ROLE", "TOKEN", "LAST", "USED", "EXPIRES"]
    eva = next(line for line in lines if line.startswith("eva"))
    assert "operator" in eva
    assert "5 min ago" in eva

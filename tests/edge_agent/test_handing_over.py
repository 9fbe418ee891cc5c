"""Root enrols and renews for a service of another user; what it writes must be readable there."""

import os

import pytest

from edge_agent.cli.enrolling import belonging_to_its_owner

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for somebody else")


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "device"
    (home / "identity").mkdir(parents=True)
    os.chown(home, NOBODY, NOBODY)
    return home


def test_what_root_writes_belongs_to_the_owner_of_the_folder(home):
    with belonging_to_its_owner(home):
        (home / "identity" / "device.crt").touch()
    assert (home / "identity" / "device.crt").stat().st_uid == NOBODY
    assert (home / "identity").stat().st_uid == NOBODY


def test_links_that_somebody_put_there_give_nothing_away(home, tmp_path):
    precious = tmp_path / "precious"
    precious.touch()
    (home / "identity" / "soft").symlink_to(precious)
    (home / "identity" / "hard").hardlink_to(precious)
    with belonging_to_its_owner(home):
        pass
    assert precious.stat().st_uid == 0


def test_roots_own_folder_stays_roots(home):
    os.chown(home, 0, 0)
    with belonging_to_its_owner(home):
        (home / "identity" / "device.crt").touch()
    assert (home / "identity" / "device.crt").stat().st_uid == 0

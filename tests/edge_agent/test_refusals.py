"""A payload that was refused stays so, as long as the folder of its bundle is there."""

from __future__ import annotations

from edge_agent.refusals import PREFIX, refuse, refused
from protocol.identifiers import digest_of

ONE, OTHER = digest_of(b"one"), digest_of(b"other")


def test_what_was_refused_is_known_after_a_restart(tmp_path):
    assert refused(tmp_path) == set()
    refuse(tmp_path, ONE)
    refuse(tmp_path, OTHER)
    refuse(tmp_path, ONE)
    assert refused(tmp_path) == {ONE, OTHER}


def test_a_refusal_takes_no_room(tmp_path):
    refuse(tmp_path, ONE)
    (marker,) = tmp_path.iterdir()
    assert marker.stat().st_size == 0
    assert marker.stat().st_mode & 0o077 == 0


def test_what_nobody_wrote_there_is_no_refusal(tmp_path):
    for name in (f"{PREFIX}", f"{PREFIX}sha256-1", f".p-{ONE}", f"{ONE}"):
        (tmp_path / name).touch()
    assert refused(tmp_path) == set()


def test_without_a_folder_nothing_was_refused(tmp_path):
    assert refused(tmp_path / "gone") == set()

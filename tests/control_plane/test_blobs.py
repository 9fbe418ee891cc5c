"""Content-addressed files: what is there is whole, and nothing half is left behind."""

from __future__ import annotations

import pytest

from control_plane.blobs import Blobs
from protocol.errors import InvalidRequest, TrustError
from protocol.identifiers import digest_of


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs")


@pytest.mark.parametrize("data", [b"whole", [b"in ", b"parts"], iter([b"a", b"", b"b"])])
def test_what_is_stored_is_found_by_its_digest(blobs, data):
    name = blobs.put(data, limit=100)
    assert digest_of(blobs.read(name)) == name
    assert b"".join(blobs.chunks(name)) == blobs.read(name)
    assert blobs.has(name)


@pytest.mark.parametrize(
    "data, more, error",
    [
        ([b"x" * 60, b"x" * 60], {}, InvalidRequest),
        (b"other", {"expected": digest_of(b"this")}, TrustError),
    ],
    ids=["too large", "other content"],
)
def test_what_is_refused_leaves_nothing_behind(blobs, tmp_path, data, more, error):
    with pytest.raises(error):
        blobs.put(data, limit=100, **more)
    assert list((tmp_path / "blobs").iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing_behind(blobs, tmp_path):
    def broken():
        yield b"first"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        blobs.put(broken(), limit=100)
    assert list((tmp_path / "blobs").iterdir()) == []


def test_what_a_killed_process_left_is_cleared_at_the_next_start(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ".new-1").write_bytes(b"half")
    Blobs(tmp_path / "blobs")
    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize("name", ["../config.yaml", "sha256-short", ""])
def test_only_digests_name_files(blobs, name):
    with pytest.raises(ValueError, match="a digest"):
        blobs.path(name)


def test_what_is_not_there_is_a_key_error(blobs):
    with pytest.raises(KeyError):
        blobs.read(digest_of(b"nothing"))

"""Bundles and journal slots in a real directory."""

import errno
import os
from pathlib import Path

import pytest

from edge_agent.disk import INDEX, MANIFEST, Disk
from edge_agent.filesystem import FileSystem
from edge_agent.journal import SLOT_BYTES, Journal
from protocol.bundle import (
    Index,
    Member,
    Variant,
    VariantReference,
    decode_manifest,
    encode_index,
    encode_manifest,
)
from protocol.codec import encode
from protocol.errors import Unavailable
from protocol.identifiers import digest_of
from protocol.members import Feature, Profile
from tests.simulation.device import FakeBundle, bundle

B, C = bundle("B"), bundle("C")


class FullAt(FileSystem):
    """The disk has no room for one kind of change."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __getattribute__(self, name: str) -> object:
        if name == object.__getattribute__(self, "method"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return object.__getattribute__(self, name)


def fetched(home: Path, found: FakeBundle, *, leave_out: str = "") -> Disk:
    disk = Disk(home)
    partial = disk.partial(found.digest)
    partial.mkdir(exist_ok=True)
    for name, data in found.files.items():
        if name != leave_out:
            (partial / name).write_bytes(data)
    return disk


def staged(home: Path, found: FakeBundle = B) -> Disk:
    disk = fetched(home, found)
    disk.stage(found.digest)
    return disk


def test_a_staged_bundle_is_complete_and_says_what_it_is(tmp_path):
    disk = staged(tmp_path)
    found = disk.installed(B.digest)
    assert found is not None
    assert (found.name, found.digest) == ("m/B", B.digest)
    assert found.policy.health_window_s == 10
    assert disk.complete() == {B.digest}
    assert disk.partials() == frozenset()
    assert disk.model_of(B.digest) == "m"


def test_what_does_not_belong_to_a_bundle_is_not_staged(tmp_path):
    disk = fetched(tmp_path, B)
    (disk.partial(B.digest) / ".p-leftover").write_bytes(b"payload")
    disk.stage(B.digest)
    assert {path.name for path in disk.path(B.digest).iterdir()} == set(B.files)


@pytest.mark.parametrize("name", sorted(B.files))
def test_one_changed_byte_of_any_file_is_noticed(tmp_path, name):
    disk = staged(tmp_path)
    assert disk.verify(B.digest)
    path = disk.path(B.digest) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    assert not disk.verify(B.digest)
    assert not Disk(tmp_path).verify(B.digest)


@pytest.mark.parametrize("name", sorted(B.files))
def test_a_missing_or_cut_file_is_noticed(tmp_path, name):
    disk = fetched(tmp_path, B, leave_out=name)
    assert not disk.partial_complete(B.digest)
    (disk.partial(B.digest) / name).write_bytes(B.files[name][:-1])
    assert not disk.partial_complete(B.digest)
    with pytest.raises(Unavailable, match="OUT-D316"):
        disk.stage(B.digest)


def test_a_bundle_under_another_name_is_none(tmp_path):
    disk = staged(tmp_path)
    disk.path(B.digest).rename(disk.path(C.digest))
    assert disk.installed(C.digest) is None
    assert disk.model_of(C.digest) is None


def test_hashing_again_is_not_needed_while_nothing_changes(tmp_path, monkeypatch):
    disk = staged(tmp_path)
    assert disk.verify(B.digest)
    monkeypatch.setattr(FileSystem, "blocks", lambda files, path: pytest.fail("hashed again"))
    assert disk.verify(B.digest)


def test_staging_replaces_a_damaged_bundle(tmp_path):
    disk = staged(tmp_path)
    (disk.path(B.digest) / "model.bin").write_bytes(b"damaged")
    fetched(tmp_path, B)
    assert not disk.verify(B.digest)
    disk.stage(B.digest)
    assert disk.verify(B.digest)


def test_the_room_that_is_needed_is_known_once_the_manifest_is_there(tmp_path):
    disk = Disk(tmp_path)
    partial = disk.partial(B.digest)
    partial.mkdir()
    assert disk.needed_bytes(B.digest) is None
    for name in (INDEX, MANIFEST):
        (partial / name).write_bytes(B.files[name])
    before = disk.needed_bytes(B.digest)
    assert before is not None
    assert before > 1024 * 1024 + len(B.files["model.bin"])
    (partial / ".p-half").write_bytes(bytes(1000))
    assert disk.needed_bytes(B.digest) == before - 1000
    fetched(tmp_path, B)
    assert disk.needed_bytes(B.digest) == 0
    assert disk.free_bytes() > 0


def test_what_was_begun_of_a_delta_counts_and_the_file_that_it_starts_from_does_not(tmp_path):
    staged(tmp_path, C)
    disk = Disk(tmp_path)
    partial = disk.partial(B.digest)
    partial.mkdir()
    for name in (INDEX, MANIFEST):
        (partial / name).write_bytes(B.files[name])
    before = disk.needed_bytes(B.digest)
    assert before is not None
    base = disk.path(C.digest) / "model.bin"
    (partial / f".b-{digest_of(base.read_bytes())}").hardlink_to(base)
    (partial / f".x-{digest_of(b'refused')}").touch()
    assert disk.needed_bytes(B.digest) == before, "a link takes no room"
    (partial / f".p-{digest_of(b'payload')}").write_bytes(bytes(100))
    (partial / f".d-{digest_of(b'payload')}").write_bytes(bytes(2000))
    assert disk.needed_bytes(B.digest) == before - 2100


def test_nothing_that_a_delta_needed_is_staged_and_its_base_stays_where_it_was(tmp_path):
    staged(tmp_path, C)
    disk = fetched(tmp_path, B)
    partial, base = disk.partial(B.digest), disk.path(C.digest) / "model.bin"
    (partial / f".b-{digest_of(base.read_bytes())}").hardlink_to(base)
    for start in (".p-", ".d-", ".x-", ".h-"):
        (partial / f"{start}{digest_of(b'one')}").write_bytes(b"left over")
    disk.stage(B.digest)
    assert {path.name for path in disk.path(B.digest).iterdir()} == set(B.files)
    assert disk.verify(C.digest)


def test_collecting_removes_an_entry_and_nothing_else(tmp_path):
    disk = staged(tmp_path, B)
    fetched(tmp_path, C)
    disk.collect(f".{C.digest}")
    assert disk.names() == (B.digest,)
    disk.collect(B.digest)
    assert disk.names() == ()
    for name in ("..", "", "a/b"):
        with pytest.raises(ValueError):
            disk.collect(name)


def test_the_journal_is_written_to_both_slots_in_turn(tmp_path):
    disk = Disk(tmp_path)
    assert disk.journal("m") is None
    for n in range(1, 6):
        written = disk.write_journal(Journal("m", current=B.digest, since_ms=n))
        assert written.seq == n
        assert disk.journal("m") == written
    slots = [tmp_path / "state" / f"m.{slot}" for slot in "01"]
    assert [path.stat().st_size for path in slots] == [SLOT_BYTES] * 2
    assert {journal.since_ms for journal in disk.generations("m")} == {4, 5}
    assert disk.models() == ("m",)


@pytest.mark.parametrize("damage", [b"", b"\0" * SLOT_BYTES, b"\xff" * SLOT_BYTES, b"cut"])
def test_a_damaged_slot_falls_back_to_the_other(tmp_path, damage):
    disk = Disk(tmp_path)
    for n in (1, 2):
        disk.write_journal(Journal("m", current=B.digest, since_ms=n))
    newest = tmp_path / "state" / "m.1"
    newest.write_bytes(damage)
    found = disk.journal("m")
    assert found is not None
    assert found.since_ms == 1
    again = disk.write_journal(Journal("m", current=C.digest))
    assert again.seq == 2
    assert disk.journal("m") == again


def test_a_journal_of_another_model_in_a_slot_is_none(tmp_path):
    disk = Disk(tmp_path)
    disk.write_journal(Journal("m", current=B.digest))
    (tmp_path / "state" / "n.0").write_bytes((tmp_path / "state" / "m.0").read_bytes())
    assert disk.journal("n") is None


@pytest.mark.parametrize("method", ["mkdir", "allocate", "write_at"])
def test_a_full_disk_is_called_by_its_name(tmp_path, method):
    with pytest.raises(Unavailable, match="OUT-D201"):
        Disk(tmp_path, FullAt(method)).write_journal(Journal("m"))


def test_writing_the_journal_again_needs_no_room(tmp_path):
    Disk(tmp_path).write_journal(Journal("m", current=B.digest))
    full = Disk(tmp_path, FullAt("allocate"))
    assert full.write_journal(Journal("m", current=C.digest)).seq == 2


def test_staging_on_a_full_disk_keeps_what_was_fetched(tmp_path):
    fetched(tmp_path, B)
    full = Disk(tmp_path, FullAt("rename"))
    with pytest.raises(Unavailable, match="OUT-D201"):
        full.stage(B.digest)
    assert full.partial_complete(B.digest)


def test_the_start_up_sync_reaches_the_system(tmp_path):
    Disk(tmp_path).sync()


def with_profile(profile: bytes) -> FakeBundle:
    """B with another reference profile: another variant."""
    variant = decode_manifest(B.files[MANIFEST])
    members = tuple(
        Member("profile", "profile.bin", digest_of(profile), len(profile))
        if member.role == "profile"
        else member
        for member in variant.members
    )
    manifest = encode_manifest(Variant(members))
    reference = VariantReference(digest_of(manifest), len(manifest))
    index = encode_index(Index("m", "B", (reference,)))
    files = {**B.files, "profile.bin": profile, MANIFEST: manifest, INDEX: index}
    return FakeBundle("B", "m", digest_of(index), files)


def test_the_profile_of_a_variant_is_that_of_its_complete_bundle(tmp_path):
    profile = Profile(7, (Feature("x", (0.5,), (1, 2, 3, 1)),))
    found = with_profile(encode(profile))
    manifest = digest_of(found.files[MANIFEST])
    disk = fetched(tmp_path, found)
    assert disk.profile(manifest) is None, "not while it is being fetched"
    disk.stage(found.digest)
    fetched(tmp_path, C)
    disk.stage(C.digest)
    assert disk.profile(manifest) == profile
    assert disk.profile(C.digest) is None
    assert disk.profile(digest_of(C.files[MANIFEST])) is None, "junk is no profile"


def test_a_changed_profile_is_none(tmp_path):
    found = with_profile(encode(Profile(7)))
    disk = staged(tmp_path, found)
    (disk.path(found.digest) / "profile.bin").write_bytes(encode(Profile(8)))
    assert disk.profile(digest_of(found.files[MANIFEST])) is None

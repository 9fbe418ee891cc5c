"""Damage is what it says: one bit, or one page, and nothing else of the file."""

from __future__ import annotations

import random

import pytest

from tests.soak.disk import SmallDisk
from tests.soak.faults import PAGE, ahead_s, spoil_byte, spoil_page
from tests.soak.schedule import JUMPS, Fault


@pytest.mark.parametrize("seed", range(20))
def test_one_bit_of_what_is_used_changes(tmp_path, seed):
    file = tmp_path / "slot"
    before = b"some bytes" + bytes(1000)
    file.write_bytes(before)
    spoil_byte(file, random.Random(seed))
    after = file.read_bytes()
    changed = [place for place in range(len(before)) if before[place] != after[place]]
    assert len(after) == len(before)
    assert len(changed) == 1
    assert changed[0] < len(b"some bytes")
    assert (before[changed[0]] ^ after[changed[0]]).bit_count() == 1


@pytest.mark.parametrize("seed", range(5))
def test_one_page_changes(tmp_path, seed):
    file = tmp_path / "outbox.db"
    file.write_bytes(bytes(5 * PAGE))
    spoil_page(file, random.Random(seed))
    after = file.read_bytes()
    pages = [after[at : at + PAGE] for at in range(0, len(after), PAGE)]
    assert len(pages) == 5
    assert sum(page != bytes(PAGE) for page in pages) == 1


def test_every_jump_is_another_time():
    jumps = [ahead_s(Fault(0.0, "clock jump", 1.0, salt)) for salt in range(len(JUMPS))]
    assert jumps == sorted(jumps, key=lambda ahead_s: JUMPS.index(_name(ahead_s)))


def _name(ahead_s: float) -> str:
    if ahead_s > 0:
        return "20 years forward"
    return "1 hour back" if ahead_s == -3600.0 else "to 1970"


def test_without_a_mount_a_full_disk_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    disk = SmallDisk(tmp_path / "home")
    disk.mount()
    disk.full()
    assert not disk.real
    assert list(disk.home.iterdir()) == []
    disk.unmount()

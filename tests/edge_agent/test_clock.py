"""Trusted time: what raises it, what cannot, and what of it survives."""

import time
from pathlib import Path

import pytest

from edge_agent import clock as clock_module
from edge_agent.clock import EARLIEST_MS, Clock, kernel_synchronised
from tests.fakes.fleet_trust import DAY_MS, START_MS, Machine

FLOOR = START_MS - DAY_MS


@pytest.fixture
def file(tmp_path):
    return tmp_path / "clock.json"


@pytest.mark.parametrize(
    "wall_ms,synchronised,trust_wall,expected,basis",
    [
        (START_MS, True, False, START_MS, "synchronised"),
        (START_MS, False, False, FLOOR, "floor"),
        (START_MS, False, True, START_MS, "wall clock (development)"),
        (START_MS, True, True, START_MS, "synchronised"),
        (0, True, False, FLOOR, "synchronised"),
        (0, False, True, FLOOR, "wall clock (development)"),
        (START_MS + 5000 * DAY_MS, False, False, FLOOR, "floor"),
    ],
    ids=[
        "a synchronised wall clock is believed",
        "an unsynchronised one is not",
        "except in development",
        "where a synchronised one still counts as such",
        "a synchronised clock in 1970 does not go below the floor",
        "nor does one in development",
        "2040 without synchronisation",
    ],
)
def test_now(file, wall_ms, synchronised, trust_wall, expected, basis):
    machine = Machine(wall_ms=wall_ms, synchronised=synchronised)
    clock = machine.clock(file, trust_wall=trust_wall, earliest_ms=FLOOR)

    assert clock.now_ms() == expected
    assert clock.basis == basis
    assert clock.synchronised is synchronised


def test_time_passes_from_the_floor_on(file):
    machine = Machine(synchronised=False)
    clock = machine.clock(file, earliest_ms=FLOOR)
    machine.uptime_s += 90.5

    assert clock.now_ms() == FLOOR + 90_500


def test_the_floor_survives_a_reboot_without_the_time_that_passed(file):
    machine = Machine(synchronised=False)
    clock = machine.clock(file, earliest_ms=0)
    assert clock.raise_floor(START_MS)
    machine.uptime_s, machine.boot = 5.0, "boot-2"

    assert machine.clock(file, earliest_ms=0).now_ms() == START_MS


def test_a_restart_in_the_same_boot_keeps_counting(file):
    machine = Machine(synchronised=False)
    machine.clock(file, earliest_ms=0).raise_floor(START_MS)
    machine.uptime_s += 60

    assert machine.clock(file, earliest_ms=0).now_ms() == START_MS + 60_000


def test_the_wall_clock_never_becomes_the_floor(file):
    machine = Machine(wall_ms=START_MS + 5000 * DAY_MS, synchronised=True)
    clock = machine.clock(file, earliest_ms=0)
    clock.now_ms()
    clock.raise_floor(FLOOR)
    machine.synchronised = False

    assert machine.clock(file, earliest_ms=0).now_ms() == FLOOR


def test_the_floor_only_rises(file):
    clock = Machine(synchronised=False).clock(file, earliest_ms=0)

    assert clock.raise_floor(START_MS)
    assert not clock.raise_floor(START_MS)
    assert not clock.raise_floor(START_MS - 1)
    assert clock.floor_ms == START_MS


def test_a_floor_is_given_up_when_other_keys_count_than_those_that_raised_it(file):
    machine = Machine(synchronised=False)
    clock = machine.clock(file, earliest_ms=FLOOR)
    assert not clock.disown("new"), "nobody raised it"
    clock.raise_floor(START_MS + 90 * DAY_MS, "stolen")
    for again in (clock, machine.clock(file, earliest_ms=FLOOR)):
        assert not again.disown("stolen")
    machine.uptime_s += 60

    assert clock.disown("new")
    assert clock.now_ms() == machine.clock(file, earliest_ms=FLOOR).now_ms() == FLOOR
    assert not clock.disown("new")
    assert clock.raise_floor(START_MS, "new")
    assert machine.clock(file, earliest_ms=FLOOR).now_ms() == START_MS


def test_a_moment_already_counted_to_is_kept_for_the_next_boot_and_does_not_turn_time_back(file):
    machine = Machine(synchronised=False)
    clock = machine.clock(file, earliest_ms=0)
    clock.raise_floor(START_MS)
    machine.uptime_s += 10 * 86_400
    assert clock.raise_floor(START_MS + 9 * DAY_MS)

    assert clock.now_ms() == START_MS + 10 * DAY_MS
    machine.boot, machine.uptime_s = "boot-2", 1.0
    assert machine.clock(file, earliest_ms=0).now_ms() == START_MS + 9 * DAY_MS


@pytest.mark.parametrize("content", [b"", b"{", b'{"at_ms":"x"}', b"\0" * 5000])
def test_a_damaged_floor_starts_from_the_earliest(file, content):
    file.write_bytes(content)

    assert Machine(synchronised=False).clock(file).now_ms() == EARLIEST_MS


def test_newer_software_raises_an_older_floor(file):
    Machine(synchronised=False).clock(file, earliest_ms=0).raise_floor(START_MS)
    later = START_MS + 400 * DAY_MS

    assert Machine(synchronised=False).clock(file, earliest_ms=later).now_ms() == later


def test_the_real_sources_answer(file):
    clock = Clock(file, trust_wall=True)

    assert abs(clock.now_ms() - time.time_ns() // 1_000_000) < 60_000
    assert clock.monotonic() <= clock.monotonic()
    assert kernel_synchronised() in (True, False)


def test_timesyncd_s_word_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(clock_module, "_TIMESYNCD", tmp_path / "synchronized")
    (tmp_path / "synchronized").touch()

    assert kernel_synchronised()


@pytest.mark.parametrize("to_ms", [0, START_MS - 400 * DAY_MS, START_MS - 1], ids=str)
def test_a_clock_that_jumps_back_never_takes_trusted_time_below_what_was_proven(file, to_ms):
    machine = Machine(wall_ms=START_MS + 30 * DAY_MS)
    clock = machine.clock(file, earliest_ms=0)
    clock.raise_floor(START_MS)
    machine.uptime_s += 60
    assert clock.now_ms() == START_MS + 30 * DAY_MS

    machine.wall_ms = to_ms
    assert clock.now_ms() == START_MS + 60_000
    machine.synchronised = False
    assert clock.now_ms() == START_MS + 60_000
    machine.uptime_s += 60
    assert clock.now_ms() == START_MS + 120_000


def test_a_clock_that_jumped_ahead_leaves_nothing_behind_when_it_comes_back(file):
    machine = Machine(wall_ms=START_MS + 5000 * DAY_MS)
    clock = machine.clock(file, earliest_ms=FLOOR)
    assert clock.now_ms() == START_MS + 5000 * DAY_MS
    clock.raise_floor(START_MS - 1)

    machine.wall_ms = START_MS
    assert clock.now_ms() == START_MS
    assert machine.clock(file, earliest_ms=FLOOR).now_ms() == START_MS
    assert clock.floor_ms == START_MS - 1


def test_suspended_time_counts_and_an_uptime_that_goes_back_does_not_take_time_back(file):
    machine = Machine(synchronised=False)
    clock = machine.clock(file, earliest_ms=0)
    clock.raise_floor(START_MS)
    machine.uptime_s += 8 * 3600
    assert clock.now_ms() == START_MS + 8 * 3_600_000
    machine.uptime_s = 1.0
    assert clock.now_ms() == START_MS


@pytest.mark.parametrize(
    "machine, trust_wall, raised, unset",
    [
        pytest.param(Machine(wall_ms=0, synchronised=False), False, False, True, id="1970"),
        pytest.param(Machine(synchronised=False), False, False, True, id="nobody vouches"),
        pytest.param(Machine(synchronised=False), False, True, False, id="signed metadata does"),
        pytest.param(Machine(), False, False, False, id="a time service does"),
        pytest.param(Machine(synchronised=False), True, False, False, id="development"),
    ],
)
def test_a_clock_is_unset_while_neither_service_nor_signature_vouches(
    file, machine, trust_wall, raised, unset
):
    clock = machine.clock(file, trust_wall=trust_wall, earliest_ms=FLOOR)
    if raised:
        clock.raise_floor(START_MS)
    assert clock.unset is unset
    assert machine.clock(file, trust_wall=trust_wall, earliest_ms=FLOOR).unset is unset


def test_the_system_clock_is_never_set():
    """No code of the agent calls what would."""
    package = Path(clock_module.__file__).parent
    setters = ("settimeofday", "clock_settime", "adjtime(", "stime(", "timedatectl", "hwclock")
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not [word for word in setters if word in text], file

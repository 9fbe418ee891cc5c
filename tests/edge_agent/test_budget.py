"""What travelled today is known after a restart, and never too little of it."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.budget import AHEAD_BYTES, Budget
from edge_agent.network import UNKNOWN, interface_of
from edge_agent.transfer import NO_BUDGET, Terms, networks
from protocol.device import Settings, TransferWindow

MB = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path, clock):
    def budget(networks_: str = "") -> Budget:
        found = Budget(tmp_path / "budget.json", Terms(networks=networks(networks_)), clock)
        found.follow(Settings(bytes_per_day=2 * MB))
        found.on_network("wwan0")
        return found

    return budget


def test_what_was_spent_outlives_the_agent_and_is_never_counted_too_low(opened):
    budget = opened()
    for _ in range(10):
        budget.moved("frames/x", bytes(100_000))
    again = opened()
    assert budget.held(2 * MB - 1_010_000) is None
    assert again.held(2 * MB - 1_000_000) is not None
    assert again.held(2 * MB - 1_010_000 - AHEAD_BYTES) is None, "counted far too high"


def test_a_crash_loop_cannot_spend_a_day_twice(opened):
    moved = 0
    while (budget := opened()).held(10_000) is None:
        budget.moved("t", bytes(10_000))
        moved += 10_000
        assert moved <= 2 * MB
    assert moved > 0


def test_the_next_day_begins_with_nothing_spent(opened, clock):
    budget = opened()
    budget.moved("t", bytes(2 * MB))
    assert budget.held(1) is not None
    clock.now += timedelta(days=1)
    assert budget.held(2 * MB - 1000) is None
    budget.moved("t", bytes(1000))
    assert opened().held(MB) is None


def test_a_free_network_is_not_counted(opened):
    budget = opened("eth*=free")
    budget.on_network("eth0")
    budget.moved("t", bytes(5 * MB))
    assert budget.held(100 * MB) is None
    budget.on_network("wwan0")
    assert budget.held(MB) is None


def test_the_document_takes_its_word_back(opened):
    budget = opened()
    budget.follow(Settings(transfer_windows=(TransferWindow(0, 60),)))
    assert (held := budget.held(1)) is not None
    assert held.code != NO_BUDGET
    budget.follow(Settings())
    assert budget.held(10**12) is None


@pytest.mark.parametrize("left", [b"", b"{", b'{"day":"never","bytes":{}}', b"\xff" * 100_000])
def test_a_file_that_cannot_be_read_costs_one_budget_and_no_model(tmp_path, clock, left):
    (tmp_path / "budget.json").write_bytes(left)
    budget = Budget(tmp_path / "budget.json", Terms(MB), clock)
    assert budget.held(MB) is None
    budget.moved("t", bytes(MB))
    assert budget.held(1) is not None


def test_a_budget_that_cannot_be_written_is_kept_in_memory(tmp_path, clock):
    budget = Budget(tmp_path / "none" / "budget.json", Terms(MB), clock)
    budget.moved("t", bytes(MB))
    assert budget.held(1) is not None


def test_the_network_of_an_address_is_the_interface_that_has_it():
    assert interface_of("127.0.0.1") == interface_of("::1") == "lo"
    assert interface_of("203.0.113.77") == UNKNOWN
    assert interface_of("nonsense") == UNKNOWN


def test_the_networks_own_addresses_are_found():
    """Every IPv4 address that this machine's name gives belongs to an interface of it."""
    own = {name for _, name in socket.if_nameindex()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # documentation addresses: nothing is sent
        except OSError:
            pytest.skip("this machine has no route but to itself")
        assert interface_of(asking.getsockname()[0]) in own

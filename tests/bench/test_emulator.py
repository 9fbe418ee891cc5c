"""The emulated link is as slow, as late and as unreliable as it says, and what is made of it adds
up."""

from __future__ import annotations

import math
import os
import random
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import link
from tests.bench.linking import namespaces
from tests.bench.linking.emulator import (
    RST,
    Conditions,
    Counted,
    Emulator,
    Flows,
    Line,
    Segment,
    read_segment,
    reset,
)
from tests.bench.linking.site import Measured
from tests.fakes.waiting import until

DEVICE, SERVER = (b"\x0a\x4d\x00\x01", 40_000), (b"\x0a\x4d\x00\x02", 8883)
ACK, SYN = 0x10, 0x02
WAIT_S = 60.0

lengths = st.lists(st.tuples(st.integers(20, 1500), st.floats(0, 0.5)), min_size=1, max_size=50)


def line(**changes: Any) -> Line:
    return Line(replace(Conditions(), **changes), random.Random(1))


def segment(
    source: tuple[bytes, int] = DEVICE,
    target: tuple[bytes, int] = SERVER,
    *,
    sequence: int = 1,
    acknowledged: int = 1,
    flags: int = ACK,
    data: int = 0,
) -> Segment:
    return Segment(source, target, sequence, acknowledged, flags, data)


# --- one direction --------------------------------------------------------------------------------


@given(lengths)
def test_a_line_keeps_rate_delay_and_order(packets: list[tuple[int, float]]):
    one_way, now, free_at = line(queue_bytes=10**9), 100.0, 0.0
    wanted = []
    for number, (length, pause_s) in enumerate(packets):
        now += pause_s
        packet = number.to_bytes(2) + bytes(length - 2)
        assert one_way.offer(packet, now)
        free_at = max(free_at, now) + length * 8 / 2_000_000
        wanted.append((free_at + 0.1, packet))
    for at, packet in wanted:
        assert math.isclose(one_way.next_at, at)
        assert one_way.arrived(math.nextafter(one_way.next_at, 0.0)) == []
        assert one_way.arrived(one_way.next_at) == [packet]
    assert one_way.next_at == math.inf


def test_what_finds_the_queue_full_is_thrown_away_and_the_rest_arrives():
    one_way = line(queue_bytes=10_500)
    taken = [one_way.offer(bytes(1000), 1.0) for _ in range(15)]
    assert taken == [True] * 10 + [False] * 5
    assert one_way.overflowed == 5
    # A second later all of it is on its way, so there is room again.
    assert one_way.offer(bytes(1000), 2.0)
    assert len(one_way.arrived(10.0)) == 11


def test_a_loss_of_half_loses_about_half():
    one_way = line(loss=0.5, queue_bytes=10**9)
    arrived = sum(one_way.offer(bytes(100), 1.0) for _ in range(10_000))
    assert 4_700 < arrived < 5_300
    assert one_way.lost == 10_000 - arrived == 10_000 - len(one_way.arrived(1000.0))


def test_what_a_cut_catches_never_arrives():
    one_way = line()
    one_way.offer(bytes(1000), 1.0)
    one_way.drop()
    assert (one_way.arrived(1000.0), one_way.lost, one_way.next_at) == ([], 1, math.inf)


@given(st.floats(0, 100))
def test_a_link_that_is_cut_is_silent_at_the_end_of_each_period(since_s: float):
    cut = Conditions(cut_every_s=5.0, silence_s=1.0)
    assert cut.silent_at(since_s) == (since_s % 5 >= 4)
    assert cut.cuts_until(since_s) == since_s // 5
    assert 0 < cut.next_change_s(since_s) <= 4
    never = Conditions()
    assert not never.silent_at(since_s)
    assert (never.cuts_until(since_s), never.next_change_s(since_s)) == (0, math.inf)


# --- connections ----------------------------------------------------------------------------------


def test_a_reset_is_a_packet_that_kernels_take():
    packet = reset(SERVER, DEVICE, 4_000_000_000)
    assert read_segment(packet) == Segment(SERVER, DEVICE, 4_000_000_000, 0, RST, 0)
    pseudo = packet[12:20] + bytes((0, 6)) + (len(packet) - 20).to_bytes(2)
    for covered in (packet[:20], pseudo + packet[20:]):
        total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


@given(st.binary(max_size=80))
def test_what_is_no_tcp_over_ipv4_is_carried_and_not_understood(packet: bytes):
    found = read_segment(packet)
    assert found is None or (packet[0] >> 4, packet[9]) == (4, 6)


def test_a_cut_tells_both_ends_by_the_number_that_each_awaits():
    flows = Flows()
    flows.left(segment(acknowledged=500, sequence=70))
    flows.reached(segment(SERVER, DEVICE, sequence=500, data=1000))
    found = {(each.target, each.sequence) for each in map(read_segment, flows.resets()) if each}
    # What it acknowledged last, or what lies behind the segment that came since.
    assert found == {(DEVICE, 500), (DEVICE, 1500)}
    assert flows.resets() == []


def test_a_connection_that_was_reset_is_not_reset_again():
    flows = Flows()
    flows.left(segment(acknowledged=500))
    flows.reached(segment(SERVER, DEVICE, flags=RST))
    assert flows.resets() == []


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**24), max_size=20))
def test_a_byte_is_acknowledged_once_wherever_numbers_begin(first: int, steps: list[int]):
    flows, at, counted = Flows(), first, 0
    for step in [0, *steps]:
        counted += flows.left(segment(acknowledged=at % 2**32))
        at += step
        # One that was overtaken on its way says nothing new.
        assert flows.left(segment(acknowledged=(at - step - 1) % 2**32)) == 0
    counted += flows.left(segment(acknowledged=at % 2**32))
    assert counted == sum(steps)


def test_without_an_acknowledgement_nothing_is_acknowledged():
    assert Flows().left(segment(flags=SYN, acknowledged=0)) == 0


# --- the thread -----------------------------------------------------------------------------------


@contextmanager
def ends(conditions: Conditions) -> Iterator[tuple[Emulator, socket.socket, socket.socket]]:
    """An emulator between two sockets that keep packets apart, as TUN devices do."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    (near, inside), (far, inside_far) = pairs
    inside.setblocking(False)
    inside_far.setblocking(False)
    near.settimeout(WAIT_S)
    far.settimeout(WAIT_S)
    try:
        with Emulator(inside.fileno(), inside_far.fileno(), conditions) as made:
            yield made, near, far
    finally:
        for pair in pairs:
            for each in pair:
                each.close()


def test_packets_go_both_ways_in_order_and_are_counted_where_they_arrive():
    quick = Conditions(bits_per_s=1e9, delay_s=0.001)
    with ends(quick) as (made, near, far):
        for number in range(20):
            near.send(bytes([number]) * 30)
            far.send(bytes([number]) * 50)
        assert [far.recv(2000)[0] for _ in range(20)] == list(range(20))
        assert [near.recv(2000) for _ in range(20)][19] == bytes([19]) * 50
        assert made.arrived[made.near] == Counted(packets=20, ip_bytes=1000)
        assert made.arrived[made.far] == Counted(packets=20, ip_bytes=600)
        made.begin()
        assert made.arrived[made.near] == Counted()


@pytest.mark.skipif(bool(namespaces.missing()), reason=namespaces.missing())
def test_a_cut_ends_connections_and_new_ones_can_be_made():
    often = Conditions(bits_per_s=1e8, delay_s=0.001, cut_every_s=1.0, silence_s=0.1)
    with namespaces.pair() as (near, far), Emulator(near.tun, far.tun, often) as made:
        with far.entered():
            listener = socket.create_server((far.address, 5000))

        def talk() -> tuple[socket.socket, socket.socket]:
            with near.entered():
                client = socket.create_connection((far.address, 5000), timeout=WAIT_S)
            server, _ = listener.accept()
            server.settimeout(WAIT_S)
            client.sendall(b"ping")
            assert server.recv(4) == b"ping"
            return client, server

        connected = talk()
        made.begin()
        for end in connected:
            with pytest.raises(ConnectionResetError):
                end.recv(1)
            end.close()
        assert made.cuts >= 1

        def talks() -> bool:
            try:
                for end in talk():
                    end.close()
            except ConnectionError:
                return False  # the next cut was quicker
            return True

        until(talks, WAIT_S)
        listener.close()


@pytest.mark.skipif(bool(namespaces.missing()), reason=namespaces.missing())
def test_nothing_is_left_of_two_namespaces():
    with namespaces.pair() as sides:
        places = [Path("/run/netns") / side.name for side in sides]
        assert all(place.exists() for place in places)
        assert namespaces.congestion_control(sides[0]) in namespaces.CONGESTION
    assert not any(place.exists() for place in places)


# --- what is made of it ---------------------------------------------------------------------------


def measured(seconds: float, in_order: int, cuts: int = 0) -> Measured:
    return Measured(seconds, 0.1, Counted(tcp_bytes=in_order + 50, in_order=in_order), cuts)


def test_waste_is_what_came_beyond_a_run_without_cuts_per_cut():
    whole = [measured(1, 1000), measured(1, 1002), measured(1, 1100)]
    cut = [measured(2, 1302, cuts=3), measured(2, 1202, cuts=2), measured(2, 2000)]
    assert link.waste(cut, whole, lambda run: run.arrived.in_order) == 100
    assert link.waste(cut[2:], whole, lambda run: run.arrived.in_order) == 0


@pytest.mark.parametrize("seconds, ok", [(10.5, True), (10.6, False)])
def test_the_goal_is_a_twentieth_more_than_curl(seconds: float, ok: bool):
    runs = {"frames": [measured(seconds, 1)], link.CURL: [measured(10.0, 1)]}
    row, _ = link.rows_of_seconds("no loss", runs, "curl", goal=True)
    assert (row.ours, row.peer, row.ok) == (seconds, 10.0, ok)
    row, _ = link.rows_of_seconds("1 % loss", runs, "curl", goal=False)
    assert row.ok is None


def test_more_than_a_frame_per_cut_is_too_much():
    whole = {"frames": [measured(1, 0)], link.CURL: [measured(1, 0)]}
    for wasted, ok in ((65_536, True), (65_537, False)):
        runs = {"frames": [measured(1, wasted, 1)], link.CURL: [measured(1, 0, 1)]}
        assert [row.ok for row in link.rows_of_waste("cut", runs, whole, "curl")] == [ok, None]


def test_a_machine_that_lacks_something_is_told_what(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["link"])
    assert link.main() == 2
    assert "cannot run here" in capsys.readouterr().out

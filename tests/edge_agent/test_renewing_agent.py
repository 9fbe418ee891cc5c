"""Renewal in a running agent: in the background, with pauses, and seen whoever brings it."""

import threading
import time
from pathlib import Path

import pytest

from edge_agent import identity
from edge_agent.clock import Clock
from edge_agent.link import CLOSED_EARLY
from edge_agent.renew import Renewal, adopt, renew, request
from edge_agent.technician.status import LinkStatus
from protocol.errors import OutriderError, TrustError, Unavailable
from tests.fakes.fleet_trust import Machine
from tests.fakes.renewals import DAY_MS, renewing_plane
from tests.fakes.waiting import until

NOW_MS = int(time.time() * 1000)


@pytest.fixture
def plane(tmp_path):
    with renewing_plane(tmp_path / "ca", NOW_MS) as plane:
        yield plane


@pytest.fixture
def home(tmp_path, plane):
    plane.device(tmp_path / "device")
    return tmp_path / "device"


CONNECTED = LinkStatus(connected=True)


class Agent:
    """What a supervisor does with a renewal; the asking is a fake's."""

    def __init__(self, home: Path, machine: Machine, ask=renew, **options) -> None:
        self.clock: Clock = machine.clock(home / "clock.json", earliest_ms=0)
        self.told: list[identity.Identity] = []
        self.woken = threading.Event()
        self.renewal = Renewal(
            home,
            identity.load(home),
            self.clock,
            on_renewed=self.told.append,
            on_wake=self.woken.set,
            random=lambda: 0.5,
            first_s=10.0,
            ask=ask,
            **options,
        )

    def turn(self, link: LinkStatus = CONNECTED) -> None:
        self.renewal.turn(link)

    def settled(self) -> None:
        """Turn until what was begun has ended."""
        until(self.woken.is_set)
        self.woken.clear()
        until(lambda: self.renewal._asking is None or not self.renewal._asking.is_alive())
        self.turn()


def machine(**options) -> Machine:
    return Machine(wall_ms=NOW_MS, **options)


def test_a_running_agent_renews_in_the_background_and_says_so_once(plane, home):
    agent = Agent(home, machine())
    before = agent.renewal.validity.until_ms
    agent.turn()
    agent.settled()
    assert [each.device for each in agent.told] == ["local-cam-1"]
    assert agent.renewal.validity.until_ms > before
    for _ in range(3):
        agent.turn()
    assert len(agent.told) == len(plane.requests) == 1


def test_a_turn_does_not_wait_for_a_control_plane_that_hangs(home):
    released = threading.Event()
    asked = []

    def hanging(*_):
        asked.append(1)
        released.wait(30)

    agent = Agent(home, machine(), hanging)
    for _ in range(20):
        agent.turn()
    until(lambda: asked)
    assert not agent.told
    released.set()
    agent.settled()
    assert asked == [1]


def test_failures_are_counted_paused_after_and_forgotten_with_the_next_certificate(plane, home):
    here = machine()
    answers: list[OutriderError | None] = [
        Unavailable("OUT-N104", "refused"),
        TrustError("OUT-T118", "expired"),
        None,
    ]

    def asking(place: Path, now_ms: int):
        error = answers.pop(0)
        if error is not None:
            raise error
        return renew(place, now_ms)

    agent = Agent(home, here, asking)
    agent.turn()
    agent.settled()
    said = agent.renewal.status(NOW_MS)
    assert (said.failures, said.code, said.why) == (1, "OUT-N104", "refused")
    assert (said.since_ms, said.urgent) == (NOW_MS, False)
    agent.turn()
    assert len(answers) == 2  # the pause holds
    for _ in range(2):
        here.uptime_s += 1000
        agent.turn()
        agent.settled()
    assert agent.renewal.status(NOW_MS).failures == 0
    assert len(agent.told) == 1
    assert agent.renewal.counters == {"renewal OUT-N104": 1, "renewal OUT-T118": 1}


def test_a_fault_of_ours_is_a_failure_like_others(home):
    def broken(*_):
        raise RuntimeError("bug")

    agent = Agent(home, machine(), broken)
    agent.turn()
    agent.settled()
    assert agent.renewal.status(NOW_MS).code == "OUT-S160"


def test_a_certificate_that_a_technician_brought_is_taken_up(plane, home):
    def never(*_):
        raise Unavailable("OUT-N104", "no network")

    agent = Agent(home, machine(), never)
    agent.turn()
    agent.settled()
    adopt(home, plane.renewed(request(identity.load(home))), NOW_MS, proven=False)
    agent.turn()
    assert len(agent.told) == 1
    assert agent.renewal.status(NOW_MS).failures == 0


def test_a_young_certificate_is_left_alone_even_if_the_wall_clock_says_2040(tmp_path, plane):
    plane.device(tmp_path / "young", age_days=1, name="cam-3")
    here = machine(synchronised=False)
    here.wall_ms += 5000 * DAY_MS
    agent = Agent(tmp_path / "young", here, lambda *_: pytest.fail("asked"))
    agent.turn()
    assert agent.renewal._asking is None


def test_where_the_time_is_not_known_a_broker_that_accepts_nothing_is_reason_to_ask(
    tmp_path, plane
):
    plane.device(tmp_path / "old", age_days=800, name="cam-3")
    here = Machine(wall_ms=0, synchronised=False)  # trusted time: the epoch
    agent = Agent(tmp_path / "old", here)
    agent.turn(LinkStatus(False, why="no route to host"))
    assert plane.requests == []
    agent.turn(LinkStatus(False, why=CLOSED_EARLY))
    agent.settled()
    assert len(agent.told) == 1


def test_after_a_renewal_nothing_is_asked_for_a_while_whatever_the_clocks_say(tmp_path, plane):
    plane.device(tmp_path / "odd", age_days=100, name="cam-3")
    here = machine()
    here.wall_ms += 500 * DAY_MS  # this device is far ahead of its control plane
    agent = Agent(tmp_path / "odd", here)
    agent.turn()
    agent.settled()
    assert len(agent.told) == 1
    for _ in range(5):
        here.uptime_s += 100
        agent.turn()
        assert agent.renewal._asking is None
    assert len(plane.requests) == 1


def test_an_unreadable_certificate_file_is_waited_out(plane, home):
    agent = Agent(home, machine(), lambda *_: None)
    certificate = home / "identity/device.crt"
    good = certificate.read_bytes()
    certificate.write_bytes(b"half of it")
    agent.turn()
    certificate.unlink()
    agent.turn()
    assert agent.told == []
    certificate.write_bytes(good)
    agent.turn()
    assert agent.told == []

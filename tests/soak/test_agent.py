"""The soaked agent's world: a clock that jumps, a link that makes noise, a diary."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from edge_agent.inbox import Inbox, Message
from tests.fakes.waiting import until
from tests.soak import world
from tests.soak.agent import Diary, NoisyInbox, watch
from tests.soak.world import World, WorldFile

JUMPED = """
import sys, time
from pathlib import Path
from tests.soak.agent import jump
from tests.soak.world import WorldFile
jump(WorldFile(Path(sys.argv[1])))
print(time.time(), time.time_ns())
"""


@pytest.mark.parametrize("ahead_s", [0.0, -3600.0, 6e8, -4e10])
def test_the_wall_clock_is_as_wrong_as_the_world_says(tmp_path, ahead_s):
    file = tmp_path / "world"
    world.write(file, World(ahead_s=ahead_s))
    right = time.time()
    command = [sys.executable, "-c", JUMPED, str(file)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    for seconds in (float(said[0]), int(said[1]) / 1e9):
        assert seconds == pytest.approx(max(0.0, right + ahead_s), abs=60)


def test_a_world_that_cannot_be_read_is_the_one_before(tmp_path):
    file = WorldFile(tmp_path / "world")
    assert file.read() == World()
    world.write(tmp_path / "world", World(ahead_s=5.0, noise=3))
    assert file.read() == World(5.0, 3)
    (tmp_path / "world").write_text("{")
    assert file.read() == World(5.0, 3)


def told(inbox: Inbox, wait_s: float = 0.0) -> list[bytes]:
    """What is in the inbox by now."""
    return [item.data for item in inbox.take(wait_s) if isinstance(item, Message)]


def test_without_noise_messages_arrive_as_they_were_sent(tmp_path):
    inbox = NoisyInbox(WorldFile(tmp_path / "world"))
    for number in range(3):
        inbox.message("deny", b"%d" % number)
    assert told(inbox) == [b"0", b"1", b"2"]


def test_noise_repeats_and_damages_and_brings_back_and_loses_nothing(tmp_path):
    inbox = NoisyInbox(WorldFile(tmp_path / "world"))
    inbox.message("deny", b"old")
    world.write(tmp_path / "world", World(noise=1))
    inbox.message("deny", b"new")
    heard: list[bytes] = []

    def all_heard() -> bool:
        heard.extend(told(inbox, 0.05))
        return len(heard) == 1 + 3 + 3 + 1

    until(all_heard)
    assert heard.count(b"new") >= 3
    assert heard.count(b"old") >= 1 + 3
    assert heard[-1] == b"new"
    assert set(heard) - {b"new", b"old"}, "no damaged copy"


class Runners:
    def __init__(self, call_s: float = 10.0) -> None:
        self.call_s = call_s
        self._known = {"r": SimpleNamespace(process=SimpleNamespace(pid=7))}
        self.done: list[str] = []

    def adopt(self) -> None:
        self.done.append("adopt")

    def promote(self, runner: str) -> None:
        self.done.append(f"promote {runner}")

    def drain(self, runner: str) -> None:
        self.done.append(f"drain {runner}")


class Process:
    pid = 7

    def __init__(self) -> None:
        self.killed = False

    def kill(self) -> None:
        self.killed = True


def test_the_diary_tells_what_becomes_of_runners_and_changes_nothing(tmp_path):
    watch(Runners, Process, Diary(tmp_path / "diary"))
    runners, process = Runners(), Process()
    runners.adopt()
    runners.promote("r")
    runners.drain("r")
    process.kill()
    assert runners.done == ["adopt", "promote r", "drain r"]
    assert process.killed
    assert runners.call_s < 10.0
    lines = [json.loads(line) for line in (tmp_path / "diary").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["listens", "promote", "drain", "kill"]
    assert [line["pid"] for line in lines[1:]] == [7, 7, 7]

"""How fast a device is back on the version before, and how much memory that takes.

A real fleet of one: broker, control plane, agent and runner as they are, under traffic. Each trial
ships and pins a new version, waits until it serves on probation, and gives it one row on which it
answers NaN. Measured is from sending that row to the first answer of the version before.

- warm: the runner before is parked; cold: it is killed just before the trigger.
- death: the candidate's runner is killed instead (what it had not answered is lost with it).
- alone: a device without memory for two runners, which lets one go before it loads the other.

`--trials 50 --deaths 10 --alone 5` change how often. Machines differ and are shared: percentiles of
one run, and goals, not promises.

Long because returns and memory are measured on one fleet, which takes long to set up.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from control_plane.demo.fleet import Device, wait_until  # noqa: E402 - after the path is set
from edge_agent.room import RUNNER_BYTES  # noqa: E402 - the same
from edge_agent.settings import MEMORY_VARIABLE  # noqa: E402 - the same
from protocol.members import DevPolicy, Policy  # noqa: E402 - the same
from tests.bench.fanout import cpu_of  # noqa: E402 - the same
from tests.bench.memory import alone, rollup  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.fakes.callers import ROW, inference  # noqa: E402 - the same
from tests.fakes.whole_fleet import (  # noqa: E402 - the same
    MODEL,
    FleetHere,
    Operator,
    ready,
    runners,
    short_folder,
)

LIMIT_S = 60.0
TRIAL = Policy(min_requests=20, dev=DevPolicy(health_window_s=600, max_duration_s=3600))
BRIEF = Policy(min_requests=1, dev=DevPolicy(health_window_s=1, max_duration_s=5))
NAN_ROW = (11.0, 0.0, 0.0, 0.0)
CALLERS = 2
PAUSE_S = 0.005
"""Between two requests of one caller: one that asks all the time leaves no CPU to others."""
SIDE = 3536
"""A square matrix of so many rows has 50 MB."""
PARKED_SCORE = "900"
MB = 1e6


@dataclass(slots=True)
class Caller(threading.Thread):
    """Asks all the time on a keep-alive connection, never twice for one answer."""

    port: int
    answers: list[tuple[float, str]] = field(default_factory=list)
    """When it came, and from which version."""
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    end: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread.__init__(self, daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = inference(ROW)
        while not self.end.wait(PAUSE_S):
            began = time.monotonic()
            try:
                version = ask(connection, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            now = time.monotonic()
            self.slowest_s = max(self.slowest_s, now - began)
            self.answers.append((now, version))
        connection.close()


def ask(connection: http.client.HTTPConnection, body: bytes) -> str:
    """The version that answered. Raises `ValueError` for any other answer."""
    connection.request("POST", f"/v2/models/{MODEL}/infer", body)
    response = connection.getresponse()
    document = json.loads(response.read())
    if response.status != 200:
        raise ValueError(f"{response.status} {document}")
    return str(document["model_version"])


class Traffic:
    def __init__(self, port: int) -> None:
        self.port = port
        self.callers = [Caller(port) for _ in range(CALLERS)]
        for caller in self.callers:
            caller.start()

    def first_answer(self, version: str, after: float) -> float | None:
        times = [
            t for c in self.callers for t, v in c.answers[-2000:] if v == version and t > after
        ]
        return min(times, default=None)

    def served(self, version: str) -> bool:
        """Whether every caller's last answer came from it."""
        return all(
            caller.answers[-1:] and caller.answers[-1][1] == version for caller in self.callers
        )

    def forget(self) -> None:
        for caller in self.callers:
            del caller.answers[:-50]
            caller.failures.clear()
            caller.slowest_s = 0.0

    @property
    def failures(self) -> list[str]:
        return [failure for caller in self.callers for failure in caller.failures]

    @property
    def slowest_s(self) -> float:
        return max(caller.slowest_s for caller in self.callers)

    def stop(self) -> None:
        for caller in self.callers:
            caller.end.set()
        for caller in self.callers:
            caller.join(30)


@dataclass(slots=True)
class Site:
    operator: Operator
    device: Device
    traffic: Traffic
    number: int = 1

    def candidate(self, policy: Policy = TRIAL, **options: object) -> str:
        """A new version serves on probation, and the version before has been let go or parked."""
        self.number += 1
        version = f"b{self.number}"
        scale = 1 + 1e-6 * self.number
        self.operator.ship(version, scale=scale, policy=policy, **options)
        self.operator.pin(self.device, version)
        return version

    def until(self, condition: Callable[[], object], what: str) -> None:
        wait_until(lambda: bool(condition()), what, LIMIT_S, 0.01)

    def parked(self) -> int | None:
        return next((pid for pid in runners(self.device) if score(pid) == PARKED_SCORE), None)

    def serving(self) -> int:
        return next(pid for pid in runners(self.device) if score(pid) != PARKED_SCORE)

    def back_home(self) -> None:
        self.operator.unpin(self.device)
        self.until(lambda: self.traffic.served("v1"), "v1 serves again")
        self.until(lambda: len(runners(self.device)) == 1, "one runner is left")


def score(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    except OSError:
        return ""


# --- returns --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Returns:
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowest_s: list[float] = field(default_factory=list)


def trial(site: Site, kind: str, found: Returns) -> None:
    traffic = site.traffic
    version = site.candidate(raving=True)
    site.until(lambda: traffic.served(version), f"{version} serves")
    if kind == "alone":
        site.until(lambda: len(runners(site.device)) == 1, "one runner is left")
    else:
        site.until(site.parked, "the runner before is parked")
    if kind == "cold":
        os.kill(site.parked() or 0, signal.SIGKILL)
        site.until(lambda: len(runners(site.device)) == 1, "the parked runner is gone")
    if kind != "alone":
        # A swap without memory for two is itself part of what is measured.
        traffic.forget()
    began = time.monotonic()
    if kind == "death":
        os.kill(site.serving(), signal.SIGKILL)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", traffic.port, timeout=20)
        assert ask(connection, inference(NAN_ROW)) == version
        connection.close()
    site.until(lambda: traffic.first_answer("v1", began), "the version before answers")
    first = traffic.first_answer("v1", began)
    assert first is not None
    found.seconds.append(first - began)
    site.back_home()
    found.failures += traffic.failures
    found.slowest_s.append(traffic.slowest_s)
    traffic.forget()


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def rows_of(kind: str, found: Returns, goal_s: float | None) -> list[Row]:
    many = f"{kind} ({len(found.seconds)})"
    p95 = percentile(found.seconds, 0.95)
    goal = f"≤ {goal_s * 1000:.0f}" if goal_s else ""
    ok = p95 <= goal_s if goal_s else None
    lost, free = len(found.failures), kind != "death"
    none_lost = lost == 0 if free else None
    return [
        Row(f"{many}: back, median", statistics.median(found.seconds) * 1000, "ms"),
        Row(f"{many}: back, p95", p95 * 1000, "ms", goal=goal, ok=ok),
        Row(f"{many}: back, slowest", max(found.seconds) * 1000, "ms"),
        Row(f"{many}: longest answer", max(found.slowest_s) * 1000, "ms"),
        Row(f"{many}: failed requests", lost, "", goal="0" if free else "", ok=none_lost),
    ]


# --- memory and CPU -------------------------------------------------------------------------------


class Gauge(threading.Thread):
    """The most memory of an agent and its runners, looked at again and again."""

    def __init__(self, device: Device) -> None:
        super().__init__(daemon=True)
        self.device = device
        self.most = self.most_pss = 0.0
        self.most_runners = 0
        self.end = threading.Event()

    def run(self) -> None:
        while not self.end.wait(0.05):
            with suppress(OSError, IndexError):
                self.look()

    def look(self) -> None:
        pids = agent(self.device)
        self.most_runners = max(self.most_runners, len(pids) - 1)
        self.most_pss = max(self.most_pss, sum(rollup(pid)["Pss"] for pid in pids))
        self.most = max(self.most, alone(pids))

    def stop(self) -> None:
        self.end.set()
        self.join()


def agent(device: Device) -> list[int]:
    assert device.process is not None
    return [device.process.pid, *runners(device)]


def gauged(site: Site, act: Callable[[], None]) -> Gauge:
    gauge = Gauge(site.device)
    gauge.start()
    act()
    gauge.stop()
    return gauge


def memory_rows(site: Site) -> list[Row]:
    steady = gauged(site, lambda: time.sleep(2))
    before = rollup(site.serving())["Private_Dirty"]
    promoting = gauged(site, lambda: promote(site))
    site.back_home()
    promote(site, ballast=SIDE)
    more = rollup(site.serving())["Private_Dirty"] - before
    site.back_home()
    return [
        memory_row("agent, steady", steady.most, 110, 95),
        Row("agent, steady: PSS beside others", steady.most_pss / MB, "MB"),
        memory_row("agent, promoting", promoting.most, 150, 135),
        Row("agent, promoting: PSS beside others", promoting.most_pss / MB, "MB"),
        Row("agent, promoting: runners at once", promoting.most_runners, ""),
        Row("50 MB model: more private dirty", more / MB, "MB", goal="≤ 25", ok=more <= 25 * MB),
    ]


def memory_row(what: str, size: float, goal: int, stretch: int) -> Row:
    wish = f"≤ {goal} ({stretch})"
    return Row(f"{what}: PSS", size / MB, "MB", goal=wish, ok=size <= goal * MB)


def promote(site: Site, **options: object) -> None:
    """To a good version, until it is committed and alone."""
    version = site.candidate(BRIEF, **options)
    site.until(lambda: site.traffic.served(version), f"{version} serves")
    site.until(lambda: len(runners(site.device)) == 1, "it is committed")


def cpu_rows(site: Site, seconds: float = 10) -> list[Row]:
    """Of the supervisor: while nothing happens, and while a trial goes on."""
    site.traffic.forget()
    idle = cpu_share(site.device, seconds)
    version = site.candidate()
    site.until(lambda: site.traffic.served(version), f"{version} serves")
    site.until(site.parked, "the runner before is parked")
    trying = cpu_share(site.device, seconds)
    site.back_home()
    return [
        Row("supervisor CPU, development, idle", idle * 100, "% of a core"),
        Row("supervisor CPU, development, on trial", trying * 100, "% of a core"),
    ]


def cpu_share(device: Device, seconds: float) -> float:
    assert device.process is not None
    began, cpu = time.monotonic(), cpu_of(device.process.pid)
    time.sleep(seconds)
    return (cpu_of(device.process.pid) - cpu) / (time.monotonic() - began)


# --- all of it ------------------------------------------------------------------------------------


def site_of(operator: Operator, name: str) -> Site:
    device = operator.fleet.devices[name]
    operator.fleet.start_agent(device)
    operator.until(device, lambda: ready(device), "ready")
    site = Site(operator, device, Traffic(device.port))
    operator.until_runs(device, "v1")
    site.until(lambda: site.traffic.served("v1"), "v1 answers")
    return site


def measure(operator: Operator, options: argparse.Namespace) -> list[Row]:
    operator.ship("v1", policy=BRIEF)
    operator.roll_out("v1")
    site = site_of(operator, "d-1")
    found = memory_rows(site) + cpu_rows(site)
    for kind, count, goal_s in (
        ("warm", options.trials, 0.3),
        ("cold", options.trials, 1.5),
        ("death", options.deaths, None),
    ):
        returns = Returns()
        for number in range(count):
            trial(site, kind, returns)
            if sys.stderr.isatty():
                print(f"\r{kind} {number + 1}/{count}", end="", file=sys.stderr)
        found += rows_of(kind, returns, goal_s) if count else []
    site.traffic.stop()
    used = sum(rollup(pid)["Pss_Anon"] for pid in agent(site.device))
    os.environ[MEMORY_VARIABLE] = str(used + RUNNER_BYTES + 4 * 1024 * 1024)
    if options.alone:
        small = site_of(operator, "d-2")
        small.number = 100_000
        returns = Returns()
        for _ in range(options.alone):
            trial(small, "alone", returns)
        small.traffic.stop()
        found += rows_of("alone", returns, None)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--deaths", type=int, default=10)
    parser.add_argument("--alone", type=int, default=5)
    options = parser.parse_args()
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": ("d-1", "d-2")})
        found = measure(Operator(fleet), options)
    return publish("rollback", found)


if __name__ == "__main__":
    raise SystemExit(main())

"""What a cell with real processes begins with: a fleet, and homes of agents at some moment.

One broker and one control plane live for all cells. Each journey has a device of its own, whose
home was copied when the journey was about to begin; a cell goes on from such a copy, and is heard
by the control plane as that device. What the device is told does not change between cells.

    update     v1 runs, v0 before it; a new plan, list and document say v2
    bad        the same, but they say v3, which answers requests with errors
    unfit      the same, but they say v5, whose golden vectors fail
    rollback   a byte of v1 is wrong: back to v0, then v1 is fetched anew
    first      enrolled, and nothing more
    delta      v6 runs, v0 before it; they say v7, of which there are two deltas from v6, and
               the smaller one, which is tried first, is none; payloads come over HTTP
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from control_plane.demo.fleet import Device, wait_until
from control_plane.demo.traffic import Application, Row
from control_plane.encode.encoded import keep
from control_plane.store.payloads import EncodedPayload
from control_plane.wiring import now_ms
from edge_agent.technician.door import ask
from protocol import codec
from protocol.errors import OutriderError
from protocol.identifiers import Digest
from protocol.members import DevPolicy, Policy
from protocol.payload import FEATURE_PATCH, MAX_BLOCK, Header
from tests.fakes.bundles import BundleOnDisk
from tests.fakes.mosquitto import free_port
from tests.fakes.onnx_files import inside
from tests.fakes.whole_fleet import MODEL, FleetHere, Operator, processes, ready

Journey = Literal["update", "bad", "unfit", "rollback", "first", "delta"]
JOURNEYS: Final[tuple[Journey, ...]] = ("update", "bad", "unfit", "rollback", "first", "delta")

POLICY: Final = Policy(min_requests=5, dev=DevPolicy(health_window_s=0.3, max_duration_s=5))
BREAKS_V3: Final = Row((10.0, 0.0, 0.0, 0.0), 0)
"""A question that v3 answers with an error, and all others alike."""
LIMIT_S: Final = 180.0

BEGINS_WITH: Final[Mapping[Journey, tuple[str, str]]] = {"delta": ("v0", "v6")}
"""Where it is not v0, then v1."""
LORE: Final = random.Random(7).randbytes(20_000).hex()
"""In the description of a model, so that it is worth a delta."""


@dataclass
class Agent:
    """A process of `tests.faults.agent`, by its pidfd."""

    home: Path
    port: int
    pid: int
    _descriptor: int = -1

    def __post_init__(self) -> None:
        with suppress(ProcessLookupError):
            self._descriptor = os.pidfd_open(self.pid)

    @property
    def alive(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            signal.pidfd_send_signal(self._descriptor, 0)
        except ProcessLookupError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """What the agent says of itself; empty while it does not answer."""
        try:
            answer = ask(self.home / "run" / "agent.sock")
        except (OutriderError, OSError):
            return {}
        shown: dict[str, Any] = json.loads(codec.encode(answer))
        return shown if shown.get("state", {}).get("order") is not None else {}

    def end_only(self) -> None:
        """Without its runners."""
        if self._descriptor >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            os.close(self._descriptor)
            self._descriptor = -1

    def end(self) -> None:
        """It and its runners, at once."""
        self.end_only()
        for pid, line in processes(self.home).items():
            if "edge_agent.runner.process" in line:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@dataclass
class World:
    """Use as a context manager. `folder` must be short: sockets lie in it."""

    folder: Path
    bundles: dict[str, BundleOnDisk] = field(default_factory=dict)
    _agents: list[Agent] = field(default_factory=list)
    _count: int = 0

    def __enter__(self) -> Self:
        self.fleet = FleetHere(self.folder / "f")
        self.operator = Operator(self.fleet)
        self.nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.fleet.initialise()
            self.fleet.start_control_plane()
            self._prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.nursery.stdin is not None
        self.nursery.stdin.close()
        self.nursery.wait(10)
        for agent in self._agents:
            agent.end()
        self.fleet.stop()

    # --- agents -----------------------------------------------------------------------------------

    def start(
        self,
        home: Path,
        port: int,
        place: tuple[str, str, str, int, str] | None = None,
        environment: Mapping[str, str] = {},
        broker: str = "-",
    ) -> Agent:
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        given = {
            "home": str(home),
            "port": port,
            "log": str(home.parent / "operations"),
            "output": str(home.parent / "agent.log"),
            "environment": dict(environment),
            "place": place,
            "broker": broker,
        }
        self.nursery.stdin.write(json.dumps(given) + "\n")
        self.nursery.stdin.flush()
        agent = Agent(home, port, int(self.nursery.stdout.readline()))
        self._agents = [each for each in (*self._agents, agent) if each.alive]
        return agent

    def place_for_cell(self, journey: Journey) -> Path:
        """A home in which the journey is about to begin, in a new folder."""
        self._count += 1
        folder = self.folder / f"c{self._count}"
        folder.mkdir()
        shutil.copytree(self.template(journey), folder / "h", copy_function=shutil.copy2)
        return folder / "h"

    def template(self, journey: Journey) -> Path:
        return self.folder / "t" / journey

    def device(self, journey: Journey) -> Device:
        return self.fleet.devices[journey]

    def digest(self, version: str) -> Digest:
        return self.bundles[version].digest

    # --- how it begins ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        operator, fleet = self.operator, self.fleet
        fleet.enrol({"x": ("update", "bad", "unfit", "rollback", "delta"), "y": ("first", "never")})
        (self.folder / "t").mkdir()
        shutil.copytree(self.device("first").home, self.template("first"))
        self.bundles["v0"] = operator.ship("v0", policy=POLICY)
        self.bundles["v1"] = operator.ship("v1", scale=1.001, policy=POLICY)
        self.bundles["v6"] = operator.ship(
            "v6", scale=1.001, damage=_with_lore("then"), policy=POLICY
        )
        told: list[Journey] = ["update", "bad", "unfit", "rollback", "delta"]
        for journey in told:
            operator.pin(self.device(journey), "v0")
        agents = {j: self.start(self.device(j).home, free_port()) for j in told}
        for journey, agent in agents.items():
            self.device(journey).port = agent.port
            self._until(journey, "answers", partial(ready, self.device(journey)))
            self._ask(journey)
        for number in (0, 1):
            versions = {j: BEGINS_WITH.get(j, ("v0", "v1"))[number] for j in told}
            for journey, version in versions.items():
                operator.pin(self.device(journey), version)
            for journey, agent in agents.items():
                runs = partial(self.runs, agent, versions[journey])
                self._until(journey, f"runs {versions[journey]}", runs)
        for journey, agent in agents.items():
            self._end(journey, agent)
        for journey, agent in agents.items():
            self._keep(journey, agent)
        self.bundles["v2"] = operator.ship("v2", scale=1.002, policy=POLICY)
        self.bundles["v3"] = operator.ship("v3", scale=1.003, fragile=True, policy=POLICY)
        self.bundles["v4"] = operator.ship("v4", scale=1.004, policy=POLICY)
        self.bundles["v5"] = operator.ship("v5", scale=1.005, golden_offset=0.1, policy=POLICY)
        self.bundles["v7"] = operator.ship(
            "v7", scale=1.006, damage=_with_lore("now"), policy=POLICY
        )
        fleet.client.put(f"models/{MODEL}/versions/v4/denial", {"why": "test"})
        operator.roll_out("v2", to="site = y")
        operator.pin(self.device("update"), "v2")
        operator.pin(self.device("first"), "v2")
        operator.pin(self.device("bad"), "v3")
        operator.pin(self.device("unfit"), "v5")
        self._offer_a_lie()
        operator.pin(self.device("delta"), "v7")

    def _offer_a_lie(self) -> None:
        """A payload that says it were a delta from v6 to v7."""
        base, target = (self.bundles[each].variant.member("model") for each in ("v6", "v7"))
        header = Header(FEATURE_PATCH, base.digest, target.digest, target.size, MAX_BLOCK)
        control = self.fleet.control
        assert control is not None
        settings = control.settings
        written = settings.payloads / "lie"
        written.write_bytes(header.pack() + b"no delta")
        kept = keep(written, settings.payloads, FEATURE_PATCH, 10**6, base.digest)
        honest = [each.entry for each in control.store.payloads.of_file(MODEL, target.digest)]
        assert min(each.size for each in honest if each.base == base.digest) > kept.entry.size
        path = str(kept.path.relative_to(settings.home))
        control.store.payloads.put(EncodedPayload(MODEL, target.digest, kept.entry, path, now_ms()))

    def _ask(self, journey: Journey) -> None:
        """The same question as in every cell: versions are compared by their answers."""
        device = self.device(journey)
        device.application = Application(device.port, MODEL, "pixels", (BREAKS_V3,), 40)
        device.application.start()

    def _until(self, journey: Journey, what: str, condition: Callable[[], bool]) -> None:
        wait_until(condition, f"{journey} {what}", LIMIT_S, 0.02)

    def runs(self, agent: Agent, version: str) -> bool:
        model = agent.status().get("state", {}).get("models", {}).get(MODEL, {})
        return bool(model.get("current") == model.get("serving") == self.digest(version))

    def _end(self, journey: Journey, agent: Agent) -> None:
        """In order, once the control plane has everything."""
        device = self.device(journey)
        assert device.application is not None
        device.application.stop()

        def delivered() -> bool:
            status = agent.status()
            return bool(status) and not status["state"].get("buffer", {}).get("records", 0)

        self._until(journey, "has delivered everything", delivered)
        os.kill(agent.pid, signal.SIGTERM)

    def _keep(self, journey: Journey, agent: Agent) -> None:
        """Its home, as where the journey begins."""
        device = self.device(journey)
        self._until(journey, "has ended", lambda: not agent.alive)
        agent.end()
        ignored = shutil.ignore_patterns("run", "operations")
        shutil.copytree(device.home, self.template(journey), ignore=ignored)
        if journey == "rollback":
            model = self.template(journey) / "bundles" / self.digest("v1") / "model.onnx"
            damaged = bytearray(model.read_bytes())
            damaged[len(damaged) // 2] ^= 1
            model.unlink()  # other files may be the same one
            model.write_bytes(damaged)


def _with_lore(more: str) -> Callable[[bytes], bytes]:
    """A long description beside the model, which ends in what it has `more`."""
    return lambda file: file + inside(6, f"{LORE} {more}".encode())

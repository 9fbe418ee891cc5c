"""One case with real processes: a journey, a fault in it, and what must be true in the end.

1. A working model answers: in a power cut from the restart on, else without one failed request.
2. Trust has not gone back: no high-water mark is below what the agent had written when it died.
3. No record is lost: what was committed before the fault is there after it, and all that the
   device counted arrives at the control plane, once.
4. The update goes on; or it has been given up, and the control plane knows the reason.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from control_plane.demo.cable import Cable
from control_plane.demo.fleet import wait_until
from control_plane.demo.traffic import Application
from edge_agent.marks import MarksFile
from edge_agent.settings import TRANSPORTS_VARIABLE
from protocol.errors import OutriderError
from tests.fakes.mosquitto import free_port
from tests.fakes.whole_fleet import MODEL, processes, ready
from tests.faults.interpose import Fault
from tests.faults.operations import Operation
from tests.faults.world import BREAKS_V3, Agent, Journey, World

SETTLES_S: Final = 180.0
"""On a machine that is busy with much else; otherwise it takes two or three."""
RATE: Final = 60.0
POWER: Final = ("cut", "half", "zeros")
ENDS_ON: Final = {
    "update": "v2",
    "bad": "v1",
    "unfit": "v1",
    "rollback": "v1",
    "first": "v2",
    "delta": "v7",
}
TRIED: Final = {**ENDS_ON, "bad": "v3", "unfit": "v5"}


class Violation(AssertionError):
    """Something that must be true after every fault is not."""


@dataclass(frozen=True, slots=True)
class Strike:
    operation: Operation
    nth: int
    fault: Fault

    @property
    def place(self) -> tuple[str, str, str, int, str]:
        name = self.operation
        return name.where, name.kind, name.what, self.nth, self.fault


@dataclass
class Case:
    world: World
    journey: Journey
    strikes: tuple[Strike, ...] = ()
    """The first, and perhaps one in the process that is started after it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    offline_from: Operation | None = None
    """Once this has been done, the broker cannot be reached until the update has ended."""
    trace: Counter[Operation] = field(default_factory=Counter)
    """What was done, in the end."""
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    application: Application | None = None

    cable: Cable | None = None

    def play(self) -> str:
        """What became of the update, in a few words. Raises `Violation`."""
        self.home = self.world.place_for_cell(self.journey)
        self.device = self.world.device(self.journey)
        self.device.port = free_port()
        self.counted_before = committed_answers(self.home)
        self.stored_before = self.world.operator.stored(self.device)
        if self.offline_from is not None:
            self.cable = self.world.fleet.lay_cable(self.device)
        self.agent = self._start(0)
        try:
            self._run()
            return self._judge()
        except (Violation, OutriderError, OSError) as error:
            raise Violation(f"{error}\n{self._tail()}") from error
        finally:
            self._hang_up()
            self.agent.end()
            if self.cable is not None:
                self.cable.close()
            self.device.cable = None
            self.trace.update(Operation(*line["op"]) for line in self._log() if "op" in line)
            shutil.rmtree(self.home.parent, ignore_errors=True)

    # --- the journey ------------------------------------------------------------------------------

    def _run(self) -> None:
        for number, strike in enumerate(self.strikes):
            self._until(lambda: not self.agent.alive or self._settled(), "an end")
            if self.agent.alive:
                break
            if sum("fault" in line for line in self._log()) != number + 1:
                raise Violation("the agent ended by itself")
            self._after(strike.fault)
            self.agent.end_only()
            self.agent = self._start(number + 1)
        self._until(self._settled, "settled")
        if self.strikes and not any("fault" in line for line in self._log()):
            raise Violation(f"never came to {self.strikes[0].operation}")
        if self.cable is not None:
            self.cable.restore()

    def _start(self, number: int) -> Agent:
        place = self.strikes[number].place if number < len(self.strikes) else None
        broker = f"127.0.0.1:{self.cable.port}" if self.cable is not None else "-"
        # One way each: which one is taken must not depend on how busy the machine is.
        way = "http" if self.journey == "delta" else "mqtt"
        environment = {TRANSPORTS_VARIABLE: way, **self.environment}
        return self.world.start(self.home, self.device.port, place, environment, broker)

    def _after(self, fault: Fault) -> None:
        """What can be seen while nothing runs."""
        if fault in POWER:
            self._hang_up()
            wait_until(lambda: not processes(self.home), "all processes have ended", 10, 0.01)
            shutil.rmtree(self.home / "run", ignore_errors=True)
        self._check_marks()
        said = max((line["answers"] for line in self._log() if "answers" in line), default=0)
        if committed_answers(self.home) < said:
            raise Violation(f"{said} answers were committed, {committed_answers(self.home)} are")

    def _settled(self) -> bool:
        self._cut_once()
        if self.application is None and ready(self.device):
            self.application = Application(self.device.port, MODEL, "pixels", (BREAKS_V3,), RATE)
            self.application.start()
        status = self.agent.status()
        if not status or (
            self.cable is not None and status.get("link", {}).get("connected", False)
        ):
            return False
        model = status["state"].get("models", {}).get(MODEL, {})
        if not model.get("current") and self._had_no_room(model):
            return True
        if model.get("current") is None or model.get("current") != model.get("serving"):
            return False
        if self.journey == "rollback" and not any("rolled_back" in e for e in self._ends()):
            return False
        if model["current"] == self.world.digest(ENDS_ON[self.journey]):
            return self.journey not in ("bad", "unfit") or self._given_up(model) is not None
        return self._given_up(model) is not None

    def _had_no_room(self, model: dict[str, Any]) -> bool:
        """A first version that met a full disk waits ten minutes: there is none before it."""
        full = any(strike.fault == "full" for strike in self.strikes)
        return full and self.journey == "first" and self._given_up(model) == "OUT-D201"

    def _cut_once(self) -> None:
        if self.cable is not None and self.offline_from is not None:
            name = self.offline_from
            if any(line.get("op") == [name.where, name.kind, name.what] for line in self._log()):
                self.cable.cut()

    def _given_up(self, model: dict[str, Any]) -> str | None:
        note = model.get("notes", {}).get(self.world.digest(TRIED[self.journey]), {})
        reason: str | None = note.get("reason")
        return reason

    # --- what must be true ------------------------------------------------------------------------

    def _judge(self) -> str:
        if self._had_no_room(self._model()):
            return "waits, OUT-D201"
        answering = self.application
        assert answering is not None
        goal = answering.tally.answered + 5
        self._until(lambda: answering.tally.answered >= goal, "answering")
        self._hang_up()
        if self._uninterrupted and self.failures:
            raise Violation(f"{len(self.failures)} requests failed: {self.failures[:3]}")
        self._check_records()
        self._check_marks()
        return self._check_word()

    @property
    def _uninterrupted(self) -> bool:
        """Whether no request may have failed: runners live on, and no version answers errors."""
        return self.journey != "bad" and self._exact

    @property
    def _exact(self) -> bool:
        """Whether no count may be missing: no runner was killed."""
        faults = {strike.fault for strike in self.strikes}
        return faults <= {"kill", "full"} and not self.environment

    def _check_records(self) -> None:
        counted, stored = -1, -1

        def all_there() -> bool:
            nonlocal counted, stored
            status = self.agent.status()
            if not status or status["state"].get("buffer", {}).get("records", 0):
                return False
            counted = int(status.get("answered", 0)) - self.counted_before
            stored = self.world.operator.stored(self.device) - self.stored_before
            return counted == stored and (not self._exact or counted == self.answered)

        try:
            self._until(all_there, "rid of its records")
        except Violation as error:
            said = f"{self.answered} answered, {counted} counted, {stored} stored"
            raise Violation(f"records: {said}; {error}") from error
        if counted > self.answered:
            raise Violation(f"{counted} counted of {self.answered} answered")

    def _check_marks(self) -> None:
        """As the agent will read them."""
        path = self.home / "tuf" / "marks.json"
        found = MarksFile(path).marks
        for line in self._log():
            if "marks" in line:
                versions = {role: mark.version for role, mark in found.roles.items()}
                behind = {r: n for r, n in line["marks"].items() if versions.get(r, 0) < n}
                if behind or found.root < line["root"]:
                    raise Violation(f"trust went back: {versions}, root {found.root} after {line}")
        shown = self.agent.status().get("state", {}).get("trust", {})
        older = {r: n for r, n in shown.items() if r in found.roles and n < found.roles[r].version}
        if older:
            raise Violation(f"trusts {older}, below its marks")

    def _check_word(self) -> str:
        """The control plane knows how it ended, and why if it was given up."""
        model = self._model()
        reason = self._given_up(model)
        runs = next(v for v, b in self.world.bundles.items() if b.digest == model["current"])
        tried = self.world.digest(TRIED[self.journey])

        def known() -> bool:
            shown = self.world.operator.model(self.device)
            notes = self.world.operator.reported(self.device)["models"][MODEL].get("notes", {})
            same = notes.get(tried, {}).get("reason") == reason
            return bool(shown.get("runs") == f"{MODEL}/{runs}" and same)

        self._until(known, f"known to run {runs} ({reason})")
        if self.journey == "rollback" and reason is None:
            return "went back, OUT-D316, then on"
        return f"given up, {reason}" if reason else "went on"

    # --- pieces -----------------------------------------------------------------------------------

    def _model(self) -> dict[str, Any]:
        model: dict[str, Any] = (
            self.agent.status().get("state", {}).get("models", {}).get(MODEL, {})
        )
        return model

    def _ends(self) -> list[str]:
        """Outcomes in the journal, as they are written."""
        slots = [path.read_bytes() for path in (self.home / "state").glob(f"{MODEL}.*")]
        return [slot.decode(errors="replace") for slot in slots]

    def _hang_up(self) -> None:
        if self.application is not None:
            self.application.stop()
            self.answered += self.application.tally.answered
            self.failures += self.application.tally.failures
            self.application = None

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            if self.strikes or self.agent.alive:
                return condition()
            raise Violation("the agent ended by itself")

        try:
            wait_until(holds, f"{self.device.name} is {what}", SETTLES_S, 0.03)
        except OutriderError as error:
            raise Violation(f"{error}; it says {json.dumps(self._model())}") from error

    def _log(self) -> list[dict[str, Any]]:
        lines = []
        with suppress(FileNotFoundError):
            for line in (self.home.parent / "operations").read_text().splitlines():
                with suppress(ValueError):
                    lines.append(json.loads(line))
        return lines

    def _tail(self) -> str:
        last = [str(line) for line in self._log()[-12:]]
        log = self.home.parent / "agent.log"
        said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
        return "\n".join([*last, "---", said])


def committed_answers(home: Path) -> int:
    """What the outbox would say of itself, read from a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for path in home.glob("outbox.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        if not (Path(folder) / "outbox.db").exists():
            return 0
        db = sqlite3.connect(Path(folder) / "outbox.db")
        try:
            row = db.execute("SELECT value FROM total WHERE name='answers'").fetchone()
        except sqlite3.OperationalError:
            row = None
        finally:
            db.close()
        return int(row[0]) if row else 0

"""Looks on during a run: which processes end, and what the agent says of itself."""

from __future__ import annotations

import json
import os
import select
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edge_agent.technician.door import ask
from edge_agent.technician.status import Status
from protocol.errors import OutriderError
from tests.fakes.whole_fleet import MODEL
from tests.soak.evidence import RunnerLife, Sample, Span
from tests.soak.ground import Field, runner_pids
from tests.soak.traffic import Caller

LOOK_S: Final = 0.05
SAMPLE_S: Final = 0.3


class Watch:
    """Two threads: one for processes, one for the agent's door, which may not answer at once."""

    def __init__(self, at: Field, caller: Caller) -> None:
        self._at = at
        self._caller = caller
        self._stop = threading.Event()
        self._known: dict[int, int] = {}
        self._ends: dict[int, Span] = {}
        """A process ends between two looks."""
        self._seen: set[str] = set()
        self._seen_twice: set[str] = set()
        self.samples: list[Sample] = []
        self.peaks: dict[str, int] = {}
        self.status: Status | None = None
        self._threads = [
            threading.Thread(target=self._processes, daemon=True),
            threading.Thread(target=self._answers, daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for descriptor in self._known.values():
            os.close(descriptor)

    def look(self) -> Status | None:
        """What the agent says now; None when it does not answer."""
        try:
            self.status = ask(self._at.socket)
        except OutriderError:
            return None
        return self.status

    def lives(self) -> tuple[RunnerLife, ...]:
        """Runners that were promoted, from the diary and from how they ended."""
        promoted: dict[int, float] = {}
        role: dict[int, str] = {}
        for entry in self._diary():
            what, pid = entry["what"], entry["pid"]
            if what == "promote":
                promoted.setdefault(pid, entry["at"])
            # Who is killed while it is parked serves nobody; while it drains, it may.
            if not (what == "kill" and role.get(pid) == "park"):
                role[pid] = what
        return tuple(
            RunnerLife(pid, at, self._ends.get(pid), role[pid] in ("drain", "park"))
            for pid, at in promoted.items()
        )

    def back(self, absence: Span) -> Span:
        """An absence, up to the moment when an agent listened again."""
        listens = [e["at"] for e in self._diary() if e["what"] == "listens"]
        later = [at for at in listens if at > absence.begin]
        return Span(absence.begin, min(later, default=time.monotonic()))

    def _diary(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._at.diary.read_text().splitlines()]

    def _processes(self) -> None:
        looked = time.monotonic()
        while not self._stop.wait(LOOK_S):
            names = {each.name for each in Path("/proc").iterdir() if each.name.isdigit()}
            # Twice: between fork and exec a runner still has the command line of its parent.
            if names - self._seen_twice:
                for pid in runner_pids(self._at.home):
                    if pid not in self._known:
                        with suppress(OSError):
                            self._known[pid] = os.pidfd_open(pid)
            self._seen_twice = names & self._seen
            self._seen = names
            poll = select.poll()
            for pid, descriptor in self._known.items():
                if pid not in self._ends:
                    poll.register(descriptor, select.POLLIN)
            ended = {descriptor for descriptor, _ in poll.poll(0)}
            before, looked = looked, time.monotonic()
            for pid, descriptor in self._known.items():
                if descriptor in ended:
                    self._ends[pid] = Span(before, looked)

    def _answers(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            status = self.look()
            if status is not None and status.state.order is not None:
                # The agent may have been stopped while it was asked: what is read before that is
                # not of the moment that the sample names.
                at, asked = time.monotonic(), self._caller.answered
                self.samples.append(Sample(at, status.answered, asked, _versions(status)))
            self._memory()

    def _memory(self) -> None:
        process = self._at.device.process
        pids = {"supervisor": [process.pid] if process is not None else []}
        pids["runner"] = [pid for pid in self._known if pid not in self._ends]
        for name, each in pids.items():
            for pid in each:
                peak = _peak_bytes(pid)
                self.peaks[name] = max(peak, self.peaks.get(name, 0))


def _versions(status: Status) -> dict[str, int]:
    trust = status.state.trust
    roles = ("root", "timestamp", "snapshot", "targets", "models", "rollouts")
    found = {role: int(getattr(trust, role)) for role in roles}
    found["document"] = status.state.document_version
    model = status.state.models.get(MODEL)
    found["plan"] = model.plan_version if model is not None else 0
    return found


def _peak_bytes(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError), Path(f"/proc/{pid}/status").open() as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0

"""A device with a technician in front of it: the real door and commands, around a fake supervisor
that follows a pin at once, or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from edge_agent import settings
from edge_agent.local_pins import LocalPins
from edge_agent.recent import Recent
from edge_agent.runner.views import Load, RunnerFailed, RunnerView
from edge_agent.technician.door import Door
from edge_agent.technician.examining import Examining
from edge_agent.technician.holding import Holding
from edge_agent.technician.status import LinkStatus, Status
from edge_agent.technician.telling import Telling
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import Facts
from protocol.device import DeviceDocument
from protocol.identifiers import Digest, digest_of
from protocol.reported import BufferState, ModelState, ReportedState, TrustState

DAY_MS = 86_400_000
NOW_MS = 1_795_000_000_000  # 18 Nov 2026 11:06:40 UTC
V1, V2, V3 = digest_of(b"v1"), digest_of(b"v2"), digest_of(b"v3")
NAMES: Mapping[Digest, str] = {V1: "v1", V2: "v2", V3: "v3"}
CONNECTED = LinkStatus(True, "mq.example:8883", NOW_MS - 6 * DAY_MS)

STABLE = ModelState(
    current=V2,
    previous=V1,
    serving=V2,
    target=V2,
    origin="stable",
    plan_number=31,
    since_ms=NOW_MS - 15 * DAY_MS,
    returns_to=V1,
)
STATE = ReportedState(
    1,
    "0.1",
    facts=Facts(arch="aarch64"),
    models={"digits": STABLE},
    trust=TrustState(3, 40, 40, 5, 13, 39, "2026-11-20T15:06:40Z"),
    buffer=BufferState(118, 21_000, 32_000_000),
    clock="synchronised",
    disk_free_bytes=1_200_000_000,
)
STATUS = Status(
    "north-cam-0117",
    "north",
    NOW_MS,
    STATE,
    CONNECTED,
    {bundle: f"digits/{version}" for bundle, version in NAMES.items()},
    certificate_until_ms=NOW_MS + 55 * DAY_MS,
    port=8500,
)


class AtOnce:
    """An inbox whose supervisor is never busy; or one that never comes to it."""

    def __init__(self) -> None:
        self.busy = False

    def errand(self, work: Any) -> Future[Any]:
        done: Future[Any] = Future()
        if not self.busy:
            done.set_result(work())
        return done


class Attended:
    """Public fields may be changed before a command is typed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.paths = settings.read({}, home).paths
        """A deep folder has its sockets elsewhere, as a real agent's."""
        self.paths.run.mkdir(parents=True)
        home.mkdir(exist_ok=True)
        (home / "documents").mkdir()
        self.shown = STATUS
        self.here = frozenset({V1, V2})
        self.approvals = {
            bundle: ApprovedBundle("digits", version, bundle, Approved())
            for bundle, version in NAMES.items()
        }
        self.deny: Any = None
        self.journal: Any = None
        self.follows = True
        """Whether the update machine carries a pin out at once."""
        self.events: list[tuple[str, Any]] = []
        self.inbox = AtOnce()
        self.pins = LocalPins(home / "documents")
        self.recent = Recent()
        self.differs = ""
        """Why golden vectors do not come out right, if they do not."""
        self.marks_intact = True
        self.monotonic_s = 0.0

    @property
    def socket(self) -> Path:
        return self.paths.socket

    def status(self) -> Status:
        pin = self.pins.holding("digits", NOW_MS)
        model = self.shown.state.models.get("digits")
        if pin is None or model is None:
            return self.shown
        if self.follows:
            model = replace(
                model, serving=pin.digest, phase="probation", returns_to=model.current,
            )  # fmt: skip
        model = replace(model, target=pin.digest, origin="technician", pinned=pin)
        return replace(self.shown, state=replace(self.shown.state, models={"digits": model}))

    @property
    def parts(self) -> Any:
        document = DeviceDocument("north", "north-cam-0117", 1)
        return SimpleNamespace(
            clock=SimpleNamespace(now_ms=lambda: NOW_MS, monotonic=self._monotonic),
            trust=SimpleNamespace(approvals=self.approvals, marks_intact=self.marks_intact),
            orders=SimpleNamespace(deny=self.deny, plans={}, document=document),
            disk=SimpleNamespace(complete=lambda: self.here, journal=lambda model: self.journal),
            facts=SimpleNamespace(agent="0.1"),
            pins=self.pins,
            inbox=self.inbox,
            outbox=SimpleNamespace(put_event=lambda *said: self.events.append(said[:2])),
            runners=SimpleNamespace(
                views=lambda: (
                    RunnerView("r", 7, "serving", (Load("digits", V2, V2, self.home),)),
                ),
                probe=self._probe,
            ),
        )

    def _monotonic(self) -> float:
        self.monotonic_s += 0.1
        return self.monotonic_s

    def _probe(self, runner: str, model: str) -> None:
        if self.differs:
            raise RunnerFailed("OUT-D301", self.differs, model=model)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        parts = self.parts
        holding = Holding(parts, cast(Any, self), sleep=lambda _: None)
        commands = {
            "rollback": holding.rollback,
            "pin": holding.pin,
            "unpin": holding.unpin,
            "doctor": Examining(parts, wait_s=0.05).doctor,
            "logs": Telling(self.recent).logs,
        }
        self.paths.run.mkdir(parents=True, exist_ok=True)
        door = Door(self.socket, self.status, commands)
        try:
            yield
        finally:
            door.close()
            if not self.paths.run.is_relative_to(self.home):
                shutil.rmtree(self.paths.run, ignore_errors=True)

"""Applications that run a model in their own process: the supervisor's side of `edge_agent.sdk`.

Each listens on `<run>/app-<id>.sock` and speaks what runners speak (`runner/control.py`), as far as
it applies: `load` says which bundle to run and is answered with those that it holds, `take` and
`peek` are counts. It is never started, drained or killed from here: it is somebody else's program.
So nothing waits for it long, and one that does not answer is left alone for a while.

An application follows what serves on its device, trials included. Its counts are judged together
with the runner's, so a candidate that does badly there goes back like any other.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.runner.control import (
    MAX_SOCKET_PATH,
    LoadEntry,
    Reply,
    Request,
    peer,
    receive_reply,
    send,
)
from edge_agent.runner.views import Death, Load, Role, RunnerFailed, RunnerView, Take
from edge_agent.runners import Runners
from edge_agent.runners.child import Process
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import Digest, ModelName
from protocol.telemetry import InferenceWindow, merge_bodies

log = logging.getLogger(__name__)

CALL_S: Final = 0.5
"""How long the supervisor waits for an answer: its turn is one second."""
PAUSE_S: Final = 15.0
"""And how long it leaves one alone that did not answer."""
_NAME: Final = re.compile(r"app-[0-9a-f]{12}")


def new_id() -> str:
    """Never repeats on a device: the outbox remembers takes by it."""
    return f"app-{secrets.token_hex(6)}"


def door_path(run: Path, application: str) -> Path:
    """Raises `InvalidRequest` OUT-S120 where the system's limit for socket paths is exceeded."""
    path = run / f"{application}.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise InvalidRequest("OUT-S120", f"the run folder {run} is too long for sockets in it")
    return path


@dataclass(frozen=True, slots=True)
class Wanted:
    """What applications should run of a model."""

    load: Load | None
    """None: nothing may answer with this model."""
    proven: bool = True
    """False while it is on trial."""


@dataclass(slots=True)
class _Known:
    id: str
    process: Process
    line: socket.socket | None
    role: Role = "serving"
    loads: tuple[Load, ...] = ()
    told: dict[ModelName, Digest] = field(default_factory=dict)
    """What it was told to run last."""
    said: str = ""
    """What it could not do, as logged last."""

    def holds(self, model: ModelName) -> Load | None:
        return next((load for load in self.loads if load.model == model), None)


class Applications:
    """Every method is for the supervisor's one thread."""

    def __init__(self, run: Path, *, call_s: float = CALL_S, pause_s: float = PAUSE_S) -> None:
        self._run = run.absolute()
        self._call_s = call_s
        self._pause_s = pause_s
        self._known: dict[str, _Known] = {}
        self._wanted: dict[ModelName, Wanted] = {}
        self._quiet_until_s: dict[str, float] = {}
        self._deaths: list[Death] = []
        self._now_s = 0.0

    def follow(self, model: ModelName, wanted: Wanted) -> None:
        """What applications should run from the next `turn` on."""
        self._wanted[model] = wanted

    def turn(self, now_s: float) -> None:
        """Meet those that are new, tell all what to run, and notice those that have ended."""
        self._now_s = now_s
        self._meet(now_s)
        for known in tuple(self._known.values()):
            if known.process.exited():
                self._ended(known)
            elif known.line is not None:
                self._tell(known)

    def views(self) -> tuple[RunnerView, ...]:
        """Those that could be asked now. Serving, or draining: about to end."""
        return tuple(
            RunnerView(known.id, known.process.pid, known.role, known.loads)
            for known in self._known.values()
            if known.line is not None and not known.process.exited()
        )

    def deaths(self) -> tuple[Death, ...]:
        """Applications that ended, since the last call, without a word and in a trial."""
        deaths, self._deaths = tuple(self._deaths), []
        return deaths

    def take(self, application: str, ack: int) -> Take:
        """As `Runners.take`. Raises `RunnerFailed` where it does not answer."""
        known = self._known.get(application)
        if known is None or known.line is None:
            raise RunnerFailed("OUT-D311", f"{application} has gone")
        reply = self._ask(known, Request("take", ack=ack))
        if reply is None:
            raise RunnerFailed("OUT-D313", f"{application} did not answer")
        if reply.refusal is not None:
            raise RunnerFailed(reply.refusal.code, reply.refusal.why)
        return Take(application, reply.seq, reply.windows, reply.final)

    def peek(self, model: ModelName, bundle: Digest) -> tuple[InferenceWindow, ...]:
        """What each application that runs this bundle has counted since it loaded it."""
        found = []
        for known in tuple(self._known.values()):
            held = known.holds(model)
            if held is None or held.digest != bundle or known.line is None:
                continue
            reply = self._ask(known, Request("peek", model=model))
            window = dict(reply.peek).get(model) if reply is not None else None
            # It may have gone on to another bundle since it was asked what it holds.
            if window is not None and window.manifest == held.manifest:
                found.append(window)
        return tuple(found)

    def close(self) -> None:
        """Leave: applications go on with what they run."""
        for known in self._known.values():
            self._let_go(known)
        self._known.clear()

    # --- pieces ---

    def _meet(self, now_s: float) -> None:
        for path in self._run.glob("app-*.sock"):
            known = self._known.get(path.stem)
            if not _NAME.fullmatch(path.stem) or (known is not None and known.line is not None):
                continue
            if self._quiet_until_s.get(path.stem, now_s) > now_s:
                continue
            try:
                self._connect(path, known)
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)  # whoever listened there has ended
            except (OSError, PeerError) as error:
                log.warning("%s: %s", path.name, error)
                self._quiet_until_s[path.stem] = now_s + self._pause_s

    def _connect(self, path: Path, known: _Known | None) -> None:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.settimeout(self._call_s)
            line.connect(str(path))
            pid, uid = peer(line)
            if uid != os.getuid():
                raise PeerError("OUT-N210", f"{path.name} belongs to user {uid}")
            if known is None:
                known = self._known[path.stem] = _Known(path.stem, Process.of(pid), None)
                log.info("process %d runs models in itself as %s", pid, path.stem)
            known.line = line
        except BaseException:
            line.close()
            raise

    def _tell(self, known: _Known) -> None:
        """Say what to run of every model, which also asks what it holds."""
        for model, wanted in self._wanted.items() or [("", Wanted(None))]:
            loads = (LoadEntry.of(wanted.load),) if wanted.load is not None else ()
            do = Request("load", model=model, loads=loads) if model else Request("hello")
            reply = self._ask(known, do)
            if reply is None:
                if known.role == "draining":
                    self._forget(known)
                return
            if wanted.load is not None:
                known.told[model] = wanted.load.digest
            known.loads = tuple(entry.load() for entry in reply.loads)
            said = f"{reply.refusal.code} {reply.refusal.why}" if reply.refusal else ""
            if said and said != known.said:
                log.warning("%s: %s", known.id, said)
            known.said = said

    def _ask(self, known: _Known, request: Request) -> Reply | None:
        """None where it does not answer. Its line is closed then: a late answer to this question
        must not be taken for the answer to the next."""
        if known.line is None:
            return None
        try:
            send(known.line, request)
            reply, descriptors = receive_reply(known.line)
        except (OSError, EOFError, PeerError) as error:
            log.info("%s does not answer: %s", known.id, error)
            known.line.close()
            known.line = None
            self._quiet_until_s[known.id] = self._now_s + self._pause_s
            return None
        for descriptor in descriptors:
            os.close(descriptor)
        known.role = reply.role
        return reply

    def _ended(self, known: _Known) -> None:
        """Without a word: in a trial, the candidate that it was told to run is suspected."""
        for model, wanted in self._wanted.items() if known.role != "draining" else ():
            bundle = wanted.load.digest if wanted.load is not None else None
            if not wanted.proven and bundle is not None and known.told.get(model) == bundle:
                why = f"application {known.process.pid} ended without a word"
                self._deaths.append(Death(known.id, "serving", None, model, bundle, why))
        log.info("application %d has ended", known.process.pid)
        self._forget(known)

    def _forget(self, known: _Known) -> None:
        del self._known[known.id]
        self._quiet_until_s.pop(known.id, None)
        self._let_go(known)
        (self._run / f"{known.id}.sock").unlink(missing_ok=True)

    def _let_go(self, known: _Known) -> None:
        if known.line is not None:
            known.line.close()
        known.process.close()


class Counted:
    """Runners and applications alike, for whoever collects counts."""

    def __init__(self, runners: Runners, applications: Applications) -> None:
        self._runners = runners
        self._applications = applications

    def views(self) -> tuple[RunnerView, ...]:
        return (*self._runners.views(), *self._applications.views())

    def take(self, runner: str, ack: int) -> Take:
        of = self._applications if _NAME.fullmatch(runner) else self._runners
        return of.take(runner, ack)


class RunnersAndApplications(Runners):
    """Runners as the update machine sees them: what a bundle did in applications, and to them,
    belongs to what it did."""

    def __init__(self, applications: Applications, run: Path, **options: object) -> None:
        super().__init__(run, **options)  # type: ignore[arg-type]  # handed on as they are
        self._applications = applications

    def peek(self, runner: str) -> dict[str, InferenceWindow]:
        found = super().peek(runner)
        for load in self._get(runner).loads:
            if load.model in found:
                more = self._applications.peek(load.model, load.digest)
                found[load.model] = _sum(found[load.model], more)
        return found

    def deaths(self) -> tuple[Death, ...]:
        return (*super().deaths(), *self._applications.deaths())


def _sum(window: InferenceWindow, more: Iterable[InferenceWindow]) -> InferenceWindow:
    for each in more:
        merged = merge_bodies(window, each)
        assert isinstance(merged, InferenceWindow)
        window = merged
    return window

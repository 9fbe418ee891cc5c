"""All runners of one agent: found again at start, started, promoted, drained, and buried.

Long because every question to a runner and its death in the middle of it are dealt with here.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from edge_agent.runner.blame import read_blame
from edge_agent.runner.control import (
    LoadEntry,
    Reply,
    Request,
    blame_path,
    peer,
    receive_reply,
    send,
    socket_path,
)
from edge_agent.runner.views import (
    Death,
    Door,
    Load,
    Role,
    RunnerFailed,
    RunnerView,
    Sample,
    Shadowed,
    Take,
)
from edge_agent.runners.child import Process, spawn
from edge_agent.runners.listener import bind_all
from edge_agent.runners.vigil import Vigil
from protocol.errors import PeerError
from protocol.telemetry import InferenceWindow

log = logging.getLogger(__name__)

INFERENCE_SOCKET: Final = "infer.sock"


@dataclass(slots=True)
class _Known:
    id: str
    process: Process
    line: socket.socket
    role: Role
    loads: tuple[Load, ...]


class Runners:
    """Every method is for the supervisor's one thread and returns within its time limit."""

    def __init__(
        self,
        run: Path,
        *,
        host: str = "127.0.0.1",
        port: int,
        ready_s: float = 30.0,
        call_s: float = 10.0,
        hello_s: float = 2.0,
        run_limit_s: float = 30.0,
        address_space_bytes: Callable[[tuple[Load, ...]], int] = lambda _: 0,
        on_death: Callable[[], None] = lambda: None,
        listen: tuple[str, int] | None = None,
        token_file: Path | None = None,
    ) -> None:
        """`ready_s` is for loading and for probing, `call_s` for everything that should be quick;
        a model that does not return from one request for `run_limit_s` ends its runner.
        `address_space_bytes` limits a runner's address space by what it is to hold; 0: no limit.
        `on_death` is called from another thread whenever a runner has ended, for any reason.
        `listen` is an address besides loopback whose callers show the token in `token_file`.

        Raises `InvalidRequest` OUT-S120 where the path of `run` is too long for sockets.
        """
        self._run = run.absolute()
        self._host = host
        self._wanted_port = port
        self._ready_s = ready_s
        self._call_s = call_s
        self._hello_s = hello_s
        self._run_limit_s = run_limit_s
        self._address_space_bytes = address_space_bytes
        self._vigil = Vigil(on_death)
        self._known: dict[str, _Known] = {}
        self._deaths: list[Death] = []
        self._listen = listen
        self._token_file = token_file
        self._listeners: dict[Door, socket.socket] = {}
        socket_path(self._run, _new_id())

    @property
    def port(self) -> int:
        """The port that is listened on. Raises `RuntimeError` before `adopt`."""
        return int(self._listening()["loopback"].getsockname()[1])

    @property
    def listens(self) -> tuple[str, int] | None:
        """The address besides loopback that is listened on, if any."""
        network = self._listeners.get("network")
        return None if network is None else network.getsockname()[:2]

    def adopt(self) -> None:
        """Take over the runners and the listeners of an earlier supervisor; bind if there are none.

        Whoever does not say hello in time is killed. What died unwatched in the middle of a run
        becomes a death. Raises `Unavailable` OUT-N106 if a port or the socket is another's.
        """
        # Others of the group may pass, for `infer.sock`; every other file is the owner's alone.
        self._run.mkdir(mode=0o710, parents=True, exist_ok=True)
        killed = False
        for path in sorted(self._run.glob("r-*.sock")):
            runner = path.stem.removeprefix("r-")
            try:
                self._known[runner] = known = self._reconnect(runner, path)
                self._vigil.keep(known.process)
            except _Hung:
                killed = True
                self._forget_files(runner)
            except (OSError, EOFError, PeerError) as error:
                log.info("runner %s has gone: %s", runner, error)
                self._bury_stranger(runner)
            else:
                if not self._listeners and known.role != "draining":
                    self._listeners = self._fetch_listeners(known)
        if not self._listeners:
            address = (self._host, self._wanted_port)
            path = self._run / INFERENCE_SOCKET
            self._listeners = bind_all(address, path, self._listen, shared=killed)
            return
        if self._wanted_port not in (0, self.port):
            log.warning(
                "port %d is served on, as before; %d takes effect when no runner is left",
                self.port,
                self._wanted_port,
            )
        self._compare_network()

    def views(self) -> tuple[RunnerView, ...]:
        self._observe()
        return tuple(
            RunnerView(each.id, each.process.pid, each.role, each.loads)
            for each in self._known.values()
        )

    def deaths(self) -> tuple[Death, ...]:
        """What died since the last call."""
        self._observe()
        deaths, self._deaths = tuple(self._deaths), []
        return deaths

    def start(self, loads: tuple[Load, ...]) -> RunnerView:
        """A new standby with everything loaded.

        Raises `RunnerFailed` OUT-D302 (or OUT-D330) for a bundle that cannot be loaded, OUT-D311
        if the runner died of it (it is among the `deaths` as well), OUT-D313 if it took too long.
        """
        runner = _new_id()
        process, line = spawn(
            self._run,
            runner,
            self._listening(),
            token_file=self._token_file,
            run_limit_s=self._run_limit_s,
            address_space_bytes=self._address_space_bytes(loads),
        )
        known = _Known(runner, process, line, "standby", loads)
        self._known[runner] = known
        self._vigil.keep(process)
        entries = tuple(LoadEntry.of(load) for load in loads)
        try:
            self._call(known, Request("load", loads=entries), self._ready_s)
        except RunnerFailed:
            self.kill(runner)
            raise
        return RunnerView(runner, process.pid, "standby", loads)

    def probe(self, runner: str, model: str) -> None:
        """Golden vectors. Raises `RunnerFailed` OUT-D301, OUT-D311 or OUT-D313."""
        self._call(self._get(runner), Request("probe", model=model), self._ready_s)

    def promote(self, runner: str) -> None:
        """Let it accept on the listening socket, beside whoever does already."""
        self._call(self._get(runner), Request("promote"), self._call_s)

    def park(self, runner: str) -> None:
        """Stop accepting at once, answer what is connected, and stay loaded; `take` gives its last
        counts. Until it is promoted again it ends when its supervisor does, like a standby."""
        self._call(self._get(runner), Request("park"), self._call_s)

    def drain(self, runner: str) -> None:
        """Stop accepting at once, answer what is connected; `take` says when that is `final`."""
        self._call(self._get(runner), Request("drain"), self._call_s)

    def kill(self, runner: str) -> None:
        """End it on purpose. One that has ended already is none of its business."""
        known = self._known.pop(runner, None)
        if known is None:
            return
        known.process.kill()
        known.process.exited(self._call_s)
        known.process.status()
        self._let_go(known)
        self._forget_files(runner)

    def peek(self, runner: str) -> dict[str, InferenceWindow]:
        """Per model, everything since it was loaded."""
        return dict(self._call(self._get(runner), Request("peek"), self._call_s).peek)

    def take(self, runner: str, ack: int) -> Take:
        """Counts since the take that `ack` acknowledges; repeated until it is acknowledged."""
        reply = self._call(self._get(runner), Request("take", ack=ack), self._call_s)
        return Take(runner, reply.seq, reply.windows, reply.final)

    def sample(self, runner: str, model: str, every_s: float) -> tuple[Sample, ...]:
        """Have it keep copies of some requests, one in `every_s` at most; and those kept so far.
        Without being asked for a while it gives them up by itself."""
        request = Request("sample", model=model, every_ms=round(every_s * 1000))
        return self._call(self._get(runner), request, self._call_s).samples

    def unsample(self, runner: str, model: str) -> None:
        """Have it keep no copies of requests any more."""
        self._call(self._get(runner), Request("unsample", model=model), self._call_s)

    def shadow(self, runner: str, model: str, base: Load, samples: tuple[Sample, ...]) -> Shadowed:
        """Let a standby run copied requests, for nobody, and compare with what `base` answered.

        Returns at once, with what came of those before. Raises `RunnerFailed`.
        """
        request = Request("shadow", model=model, loads=(LoadEntry.of(base),), samples=samples)
        reply = self._call(self._get(runner), request, self._call_s)
        if reply.shadow is None:
            raise RunnerFailed("OUT-S160", f"runner {runner} said nothing of what it compared")
        return Shadowed(reply.shadow, reply.hungry)

    def close(self) -> None:
        """Leave: promoted runners serve on, standbys end by themselves."""
        for known in self._known.values():
            self._let_go(known)
        self._known.clear()
        self._vigil.close()
        self._close_listeners()

    def _listening(self) -> dict[Door, socket.socket]:
        if not self._listeners:
            raise RuntimeError("adopt() comes first")
        return self._listeners

    def _compare_network(self) -> None:
        """Between what is listened on and what is wanted now: runners keep what they were given."""
        serves = self.listens
        if self._listen is None and serves is not None:
            self._listeners.pop("network").close()
            log.warning("%s:%d is closed as soon as another runner serves", *serves)
        elif self._listen is not None and self._listen != serves:
            log.warning("%s:%d is listened on when no runner is left", *self._listen)

    def _close_listeners(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def _get(self, runner: str) -> _Known:
        known = self._known.get(runner)
        if known is None:
            raise RunnerFailed("OUT-D311", f"runner {runner} has gone")
        return known

    def _call(self, known: _Known, request: Request, limit_s: float) -> Reply:
        """One request and its answer. A runner that does not answer is killed, and is a death
        unless it serves nobody (standby, parked): then that is all the caller learns."""
        known.line.settimeout(limit_s)
        try:
            send(known.line, request)
            reply, descriptors = receive_reply(known.line)
            for descriptor in descriptors:
                os.close(descriptor)
        except TimeoutError:
            self._too_slow(known, request, limit_s)
        except (OSError, EOFError, PeerError) as error:
            self._broken(known, request, error)
        known.role = reply.role
        if (refusal := reply.refusal) is not None:
            raise RunnerFailed(
                refusal.code, refusal.why, model=refusal.model, digest=refusal.digest
            )
        return reply

    def _too_slow(self, known: _Known, request: Request, limit_s: float) -> NoReturn:
        blame = read_blame(blame_path(self._run, known.id))
        model, digest = (blame.model, blame.digest) if blame else (request.model or None, None)
        why = f"no answer to {request.do} within {limit_s:g} s"
        if known.role in ("standby", "parked"):
            self.kill(known.id)
        else:
            known.process.kill()
            known.process.exited(self._call_s)
            self._bury(known, why)
        raise RunnerFailed(
            "OUT-D313", f"{model}: {why}" if model else why, model=model, digest=digest
        )

    def _broken(self, known: _Known, request: Request, error: Exception) -> NoReturn:
        """The line is gone, so the runner is, or is made to be."""
        if not known.process.exited(self._hello_s):
            known.process.kill()
            known.process.exited(self._call_s)
        death = self._bury(known, f"{type(error).__name__} at {request.do}")
        raise RunnerFailed(
            "OUT-D311", death.detail, model=death.model, digest=death.digest
        ) from error

    def _observe(self) -> None:
        for known in tuple(self._known.values()):
            if known.process.exited():
                self._bury(known, "")

    def _bury(self, known: _Known, detail: str) -> Death:
        """Take an ended runner off the books, and note its death unless it was leaving anyway."""
        blame = read_blame(blame_path(self._run, known.id))
        status = known.process.status()
        words = [_ended(status)]
        if blame:
            words.append(f"during {blame.doing} of {blame.model}")
        if detail:
            words.append(f"({detail})")
        death = Death(
            known.id,
            known.role,
            status,
            blame.model if blame else None,
            blame.digest if blame else None,
            " ".join(words),
        )
        if known.role != "draining":
            self._deaths.append(death)
        del self._known[known.id]
        self._let_go(known)
        self._forget_files(known.id)
        return death

    def _bury_stranger(self, runner: str) -> None:
        """One that ended while no supervisor watched: a death if its note says in which model."""
        blame = read_blame(blame_path(self._run, runner))
        if blame is not None:
            self._deaths.append(
                Death(
                    runner,
                    "serving" if blame.doing == "infer" else "standby",
                    None,
                    blame.model,
                    blame.digest,
                    f"ended during {blame.doing} of {blame.model}, with no supervisor to see it",
                )
            )
        self._forget_files(runner)

    def _reconnect(self, runner: str, path: Path) -> _Known:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(self._hello_s)
        process: Process | None = None
        try:
            line.connect(str(path))
            pid, uid = peer(line)
            if uid != os.getuid():
                raise PeerError("OUT-N210", f"{path.name} belongs to user {uid}")
            process = Process.of(pid)
            send(line, Request("hello"))
            reply, _ = receive_reply(line)
            if reply.refusal is not None or reply.id != runner:
                raise PeerError("OUT-N210", f"{path.name} is not runner {runner}")
        except (TimeoutError, BlockingIOError):
            line.close()
            if process is not None:
                process.kill()
                process.exited(self._hello_s)
                process.close()
            raise _Hung from None
        except BaseException:
            line.close()
            if process is not None:
                process.close()
            raise
        loads = tuple(entry.load() for entry in reply.loads)
        return _Known(runner, process, line, reply.role, loads)

    def _fetch_listeners(self, known: _Known) -> dict[Door, socket.socket]:
        known.line.settimeout(self._hello_s)
        try:
            send(known.line, Request("getfd"))
            reply, descriptors = receive_reply(known.line)
        except (OSError, EOFError, PeerError) as error:
            log.warning("runner %s did not hand over its listeners: %s", known.id, error)
            self.kill(known.id)
            return {}
        # One of an earlier version has fewer of them.
        return {
            door: socket.socket(fileno=descriptor)
            for door, descriptor in zip(reply.doors, descriptors, strict=False)
        }

    def _let_go(self, known: _Known) -> None:
        self._vigil.end(known.process)
        known.line.close()
        known.process.close()

    def _forget_files(self, runner: str) -> None:
        for path in (socket_path(self._run, runner), blame_path(self._run, runner)):
            with suppress(FileNotFoundError):
                path.unlink()


class _Hung(Exception):
    """A runner that did not say hello. It has been killed."""


def _new_id() -> str:
    return secrets.token_hex(4)


def _ended(status: int | None) -> str:
    if status is None:
        return "ended"
    return f"ended by signal {-status}" if status < 0 else f"exited with status {status}"

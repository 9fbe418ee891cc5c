"""Entry of a runner: `python -m edge_agent.runner.process`, started by the supervisor only.

It comes up as a standby: loads and probes what it is told to, and ends when its supervisor does.
Once promoted it belongs to the applications on this device: it serves on without a supervisor,
until a new one adopts it, and leaves only when it has been told to drain. One that is parked has
served: without a supervisor it drains, since nobody could wake it.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_agent.installed import version_of
from edge_agent.runner.bearer import Bearer
from edge_agent.runner.beside import Beside
from edge_agent.runner.blame import Notebook
from edge_agent.runner.bundle import read_bundle
from edge_agent.runner.control import (
    LoadEntry,
    Refusal,
    Reply,
    Request,
    blame_path,
    peer,
    receive_request,
    send,
    socket_path,
)
from edge_agent.runner.counts import Ledger
from edge_agent.runner.fault import abort_if_asked
from edge_agent.runner.samples import Samples
from edge_agent.runner.served import Served
from edge_agent.runner.server import Application
from edge_agent.runner.views import Door, ModelWindows, Role, RunnerFailed
from protocol.errors import PeerError

if TYPE_CHECKING:
    from edge_agent.runner.accept import HttpThread

log = logging.getLogger("edge_agent.runner")

DOORS: Final[tuple[Door, ...]] = ("loopback", "socket", "network")
TICK_S: Final = 1.0
LINE_TIMEOUT_S: Final = 10.0
ORPHAN_S: Final = 30.0
"""How long a drained runner keeps its last counts for a supervisor that may come back."""
HUNG: Final = 75
"""Exit status of a runner whose model did not come back."""
EXPENDABLE: Final = "500"
"""Added to this process's score when the system runs out of memory: before the supervisor."""
FIRST_TO_GO: Final = "900"
"""The same while it is parked or runs beside: before every runner that answers."""
BESIDE_PATIENCE: Final = 10
"""Times the limit of a request for one that runs beside, at a priority that may have to wait."""
BESIDE_STOPS_S: Final = 1.0


class Runner:
    def __init__(
        self,
        run: Path,
        runner: str,
        listeners: Mapping[Door, int],
        run_limit_s: float,
        serve_http: Callable[[Application], HttpThread],
        bearer: Bearer | None = None,
    ) -> None:
        self._run = run
        self._id = runner
        self._listeners = listeners
        self._bearer = bearer
        self._run_limit_s = run_limit_s
        self._serve_http = serve_http
        self._role: Role = "standby"
        self._notebook: Notebook | None = None
        self._models: dict[str, Served] = {}
        self._http: HttpThread | None = None
        self._application: Application | None = None
        self._beside: Beside | None = None
        self._beside_base: LoadEntry | None = None
        self._ledger: Ledger[tuple[ModelWindows, ...]] = Ledger()
        self._last_collected = False
        self._finished = False
        self._told_to_drain = False
        self._selector = selectors.DefaultSelector()
        self._lines = 0
        self._alone_since: float | None = None

    def serve(self, first_line: socket.socket) -> None:
        """Answer supervisors until there is nothing left to do."""
        path = socket_path(self._run, self._id)
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        waiting.bind(str(path))
        waiting.listen(4)
        self._selector.register(waiting, selectors.EVENT_READ)
        self._add(first_line)
        try:
            while not self._finished:
                for key, _ in self._selector.select(TICK_S):
                    line = key.fileobj
                    assert isinstance(line, socket.socket)
                    if line is waiting:
                        self._welcome(waiting)
                    else:
                        self._converse(line)
                self._tick()
        finally:
            path.unlink(missing_ok=True)
            blame_path(self._run, self._id).unlink(missing_ok=True)

    def drain(self) -> None:
        """Also called from a signal handler: only sets what the next turn acts on."""
        self._told_to_drain = True

    def _welcome(self, waiting: socket.socket) -> None:
        line, _ = waiting.accept()
        if peer(line)[1] != os.getuid():
            line.close()
            return
        self._add(line)

    def _add(self, line: socket.socket) -> None:
        line.settimeout(LINE_TIMEOUT_S)
        self._selector.register(line, selectors.EVENT_READ)
        self._lines += 1
        self._alone_since = None

    def _hang_up(self, line: socket.socket) -> None:
        self._selector.unregister(line)
        line.close()
        self._lines -= 1
        if not self._lines:
            self._alone_since = time.monotonic()
            if self._role == "standby":
                self._finished = True
            elif self._role == "parked":
                self._drain()

    def _converse(self, line: socket.socket) -> None:
        try:
            request = receive_request(line)
            if request is None:
                self._hang_up(line)
                return
            reply = replace(self._obey(request), role=self._role, doors=tuple(self._listeners))
            send(line, reply, tuple(self._listeners.values()) if request.do == "getfd" else ())
        except (OSError, PeerError) as error:
            log.warning("the line to the supervisor broke: %s", error)
            self._hang_up(line)

    def _obey(self, request: Request) -> Reply:
        try:
            match request.do:
                case "load":
                    self._load(request.loads)
                case "probe":
                    self._served(request.model).probe()
                case "promote":
                    self._promote()
                case "park":
                    self._park()
                case "drain":
                    self._drain()
                case "peek":
                    return Reply(
                        peek=tuple((name, s.tally.peek()) for name, s in self._models.items())
                    )
                case "take":
                    return self._take(request.ack)
                case "sample":
                    return self._sample(request)
                case "unsample":
                    self._served(request.model).samples = None
                case "shadow":
                    return self._shadow(request)
        except RunnerFailed as failed:
            return Reply(
                refusal=Refusal(failed.code, failed.why, failed.model, failed.digest),
            )
        except (ValueError, OSError) as error:
            return Reply(refusal=Refusal("OUT-S160", f"{request.do}: {error}"))
        return self._hello()

    def _hello(self) -> Reply:
        return Reply(
            id=self._id,
            loads=tuple(LoadEntry.of(served.load) for served in self._models.values()),
        )

    def _load(self, entries: tuple[LoadEntry, ...]) -> None:
        if self._notebook is not None:
            raise ValueError("a runner loads once")
        self._notebook = Notebook(
            blame_path(self._run, self._id), [(entry.model, entry.digest) for entry in entries]
        )
        for index, entry in enumerate(entries):
            self._models[entry.model] = Served(entry.load(), index, self._notebook, abort_if_asked)
        self._application = Application(self._models, version_of("outrider"), self._bearer)
        self._http = self._serve_http(self._application)
        # What is loaded stays: no collection need look at it again.
        gc.collect()
        gc.freeze()

    def _served(self, model: str) -> Served:
        if model not in self._models:
            raise ValueError(f"no model {model!r:.80} here")
        return self._models[model]

    def _promote(self) -> None:
        if self._role == "serving":
            return
        if self._role == "draining" or self._http is None:
            raise ValueError("only a loaded standby can be promoted")
        if self._beside is not None and not self._beside.stop(BESIDE_STOPS_S):
            # Its first answers would wait for one that nobody waits for.
            raise RunnerFailed("OUT-D344", "a copied request is still in work; ask again")
        if self._role == "parked" or self._beside is not None:
            _expendable(EXPENDABLE)
        self._beside = None
        self._http.accept({door: os.dup(fd) for door, fd in self._listeners.items()})
        self._role = "serving"

    def _park(self) -> None:
        if self._role == "parked":
            return
        if self._role != "serving" or self._http is None:
            raise ValueError("only a serving runner can be parked")
        self._keep_no_samples()
        self._http.pause()
        self._role = "parked"
        _expendable(FIRST_TO_GO)

    def _drain(self) -> None:
        if self._role == "draining":
            return
        self._role = "draining"
        self._keep_no_samples()
        # Given up here as well, or connections could wait in a queue that nobody serves.
        for listener in self._listeners.values():
            os.close(listener)
        self._listeners = {}
        if self._http is not None:
            self._http.drain()

    def _sample(self, request: Request) -> Reply:
        if self._role != "serving":
            raise ValueError("only a runner that serves has requests to copy")
        served, now_s = self._served(request.model), time.monotonic()
        if served.samples is None:
            every_s = request.every_ms / 1000
            served.samples = Samples(served.contract, every_s, now_s)
        return Reply(samples=served.samples.take(now_s))

    def _keep_no_samples(self) -> None:
        for served in self._models.values():
            served.samples = None

    def _shadow(self, request: Request) -> Reply:
        if self._role != "standby":
            raise ValueError("only a standby runs beside what is in use")
        served, (base,) = self._served(request.model), request.loads
        if self._beside is None or self._beside_base != base:
            if self._beside is not None and not self._beside.stop(BESIDE_STOPS_S):
                raise ValueError("a copied request is still in work; ask again")
            contract = read_bundle(Path(base.path)).contract
            self._beside = Beside(served, served.load.digest, contract)
            self._beside_base = base
            _expendable(FIRST_TO_GO)
        hungry = self._beside.give(request.samples)
        return Reply(shadow=self._beside.counts(), hungry=hungry)

    def _take(self, ack: int) -> Reply:
        drained = self._role == "draining" and (self._http is None or self._http.drained.is_set())
        if self._last_collected and ack == self._ledger.number:
            self._finished = True
            return Reply(seq=ack, final=True)
        number, windows = self._ledger.take(ack, lambda: self._collect(last=drained))
        return Reply(seq=number, windows=windows or (), final=self._last_collected)

    def _collect(self, *, last: bool) -> tuple[ModelWindows, ...] | None:
        collected = [served.tally.collect() for served in self._models.values()]
        windows = tuple(window for window in collected if window is not None)
        # The last take has a number even if it is empty: the runner ends when it is acknowledged.
        self._last_collected = last
        return windows if windows or last else None

    def _tick(self) -> None:
        if self._told_to_drain and self._role != "draining":
            self._drain()
        now_s = time.monotonic()
        for served in self._models.values():
            if served.samples is not None and served.samples.forgotten(now_s):
                served.samples = None
        limit_s = self._run_limit_s * (BESIDE_PATIENCE if self._beside is not None else 1)
        if self._notebook is not None and self._notebook.busy_seconds() > limit_s:
            log.error("a model has not come back for %.0f s", limit_s)
            # Nothing of this process can be trusted to end in order; the note stays for blame.
            os._exit(HUNG)
        orphaned = self._alone_since is not None and self._role == "draining"
        if orphaned and time.monotonic() - (self._alone_since or 0) > ORPHAN_S:
            self._finished = True


def main() -> int:
    # As `runners.child.spawn` writes them, without argparse, which would stay in memory.
    given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    # Runners speak no TLS. asyncio does without where there is none, and a megabyte less is loaded.
    sys.modules["ssl"] = None  # type: ignore[assignment]  # what Python calls a missing module
    from edge_agent.runner.accept import HttpThread

    logging.basicConfig(level=logging.WARNING, format="runner %(process)d %(message)s")
    _confine(int(given["address-space"]))
    runner = Runner(
        Path(given["run"]),
        given["id"],
        {door: int(given[door]) for door in DOORS if door in given},
        float(given["run-limit"]),
        HttpThread,
        Bearer(Path(given["token-file"])) if "token-file" in given else None,
    )
    signal.signal(signal.SIGTERM, lambda *_: runner.drain())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runner.serve(socket.socket(fileno=int(given["line"])))
    # Threads of the HTTP loop have nothing left to say.
    sys.stderr.flush()
    os._exit(0)


def _confine(address_space: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if address_space:
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    _expendable(EXPENDABLE)
    os.chdir("/")


def _expendable(score: str) -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text(score, encoding="ascii")
    except OSError as error:
        log.warning("cannot volunteer for the out-of-memory killer: %s", error)


if __name__ == "__main__":
    main()

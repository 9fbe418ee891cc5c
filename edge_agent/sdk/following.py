"""The agent's end of an application: hears what to run, and hands over what was counted.

A thread of the application listens on a socket in the agent's run folder and answers the agent's
questions (`edge_agent/applications.py`), in the words that runners use. A bundle is loaded in a
thread of its own, so that questions are answered meanwhile; only then do calls go to it.
"""

from __future__ import annotations

import logging
import os
import queue
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge_agent.applications import door_path, new_id
from edge_agent.runner.control import (
    LoadEntry,
    Refusal,
    Reply,
    Request,
    peer,
    receive_request,
    send,
)
from edge_agent.runner.counts import Ledger, Tally
from edge_agent.runner.views import Load, ModelWindows, Role
from edge_agent.sdk.held import Check, Held
from protocol.errors import OutriderError, PeerError, Unavailable
from protocol.identifiers import ModelName

log = logging.getLogger(__name__)

AGAIN_S: Final = 30.0
"""Pause before a bundle that could not be loaded is tried again."""
LINE_TIMEOUT_S: Final = 5.0
TICK_S: Final = 5.0

Point = Callable[[Held | None], None]
"""Called with what answers from now on; None: nothing."""


class Following:
    """`start`, `finish` and `forget` belong to whoever made it, everything else to its thread."""

    def __init__(
        self, run: Path, model: ModelName, held: Held | None, check: Check, point: Point
    ) -> None:
        """Raises `Unavailable` OUT-I122 where the agent's run folder cannot be used,
        `InvalidRequest` OUT-S120 where its path is too long."""
        self.led = False
        self._was_led = False
        self.problem = ""
        self._id = new_id()
        self._model = model
        self._check = check
        self._point = point
        self._held = held
        # A call that began before a switch ends after it: its counts are waited for as long as
        # anybody holds what it runs on.
        self._tallies: list[tuple[Tally, weakref.ref[Held]]] = []
        self._keep(held)
        self._wanted: Load | None = held.load if held is not None else None
        self._loading: Load | None = None
        self._loaded: queue.SimpleQueue[tuple[Load, Held | str]] = queue.SimpleQueue()
        self._not_before_s = 0.0
        self._ledger: Ledger[tuple[ModelWindows, ...]] = Ledger()
        self._role: Role = "serving"
        self._last_collected = False
        self._told_to_finish = threading.Event()
        self._finished = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._lines: set[socket.socket] = set()
        self._path = door_path(run, self._id)
        self._door = _door(self._path)
        self._bell, self._rope = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="outrider-sdk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Hand over the last counts, if an agent takes them within this time, and stop."""
        if self._finished.is_set():
            return
        self._told_to_finish.set()
        self._ring()
        if self._was_led:
            # Also by one that is away for the moment: it may come back in time.
            self._finished.wait(timeout_s)
        self._finished.set()
        self._ring()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def forget(self) -> None:
        """In a forked child: nothing here is its own."""
        self._finished.set()
        for each in (*self._lines, self._door, self._bell, self._rope):
            each.close()

    def _ring(self) -> None:
        try:
            self._rope.send(b".")
        except OSError:
            # The thread has closed it: it needs no waking any more.
            log.debug("finished already")

    # --- the thread ---

    def _serve(self) -> None:
        self._selector.register(self._door, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        try:
            while not self._finished.is_set():
                for key, _ in self._selector.select(TICK_S):
                    self._hear(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered
        finally:
            self._path.unlink(missing_ok=True)
            self._finished.set()
            self._selector.close()
            for each in (*self._lines, self._door, self._bell, self._rope):
                each.close()

    def _hear(self, at: socket.socket) -> None:
        if at is self._door:
            self._welcome()
        elif at is self._bell:
            self._bell.recv(64)
            if self._told_to_finish.is_set():
                self._role, self._held = "draining", None
            while not self._loaded.empty():
                self._take_up(*self._loaded.get())
        elif at in self._lines:
            self._converse(at)

    def _welcome(self) -> None:
        line, _ = self._door.accept()
        if peer(line)[1] not in (os.getuid(), 0):
            line.close()
            return
        line.settimeout(LINE_TIMEOUT_S)
        self._lines.add(line)
        self._selector.register(line, selectors.EVENT_READ)

    def _hang_up(self, line: socket.socket) -> None:
        self._selector.unregister(line)
        self._lines.discard(line)
        line.close()
        self.led = bool(self._lines) and self.led

    def _converse(self, line: socket.socket) -> None:
        try:
            request = receive_request(line)
            if request is None:
                self._hang_up(line)
                return
            send(line, replace(self._obey(request), role=self._role))
        except (OSError, PeerError) as error:
            log.warning("the line to the agent broke: %s", error)
            self._hang_up(line)
            return
        if self._last_collected and request.do == "take" and request.ack == self._ledger.number:
            self._finished.set()

    def _obey(self, request: Request) -> Reply:
        try:
            match request.do:
                case "load":
                    return self._told(request)
                case "peek":
                    held = self._held
                    peek = ((self._model, held.tally.peek()),) if held is not None else ()
                    return Reply(peek=peek)
                case "take":
                    return self._take(request.ack)
                case "hello":
                    return self._hello()
        except ValueError as error:
            return Reply(refusal=Refusal("OUT-S160", f"{request.do}: {error}"))
        return Reply(refusal=Refusal("OUT-S160", f"an application cannot {request.do}"))

    def _hello(self) -> Reply:
        loads = (LoadEntry.of(self._held.load),) if self._held is not None else ()
        return Reply(id=self._id, loads=loads)

    # --- what to run ---

    def _told(self, request: Request) -> Reply:
        if request.model != self._model:
            return self._hello()
        self.led = self._was_led = True
        self._wanted = wanted = request.loads[0].load() if request.loads else None
        held = self._held.load if self._held is not None else None
        if self._role == "draining":
            return self._hello()
        if wanted is None:
            self._switch(None)
        elif held is not None and held.digest == wanted.digest:
            self.problem = ""
        elif self._loading is None and time.monotonic() >= self._not_before_s:
            self._loading = wanted
            threading.Thread(
                target=self._load, args=(wanted,), name="outrider-load", daemon=True
            ).start()
        if self.problem:
            refusal = Refusal("OUT-D302", self.problem, self._model)
            return replace(self._hello(), refusal=refusal)
        return self._hello()

    def _load(self, wanted: Load) -> None:
        """In a thread of its own."""
        found: Held | str
        try:
            found = Held(wanted, self._check)
        except OutriderError as error:
            found = error.why
        except Exception as error:
            # The top of this thread: whatever it is, the application keeps what it has.
            log.exception("%s could not be loaded", wanted.model)
            found = f"{type(error).__name__}: {error}"
        self._loaded.put((wanted, found))
        self._ring()

    def _take_up(self, load: Load, found: Held | str) -> None:
        self._loading = None
        if isinstance(found, str):
            self.problem = found
            self._not_before_s = time.monotonic() + AGAIN_S
        elif self._wanted is not None and self._wanted.digest == load.digest:
            self._switch(found)

    def _switch(self, held: Held | None) -> None:
        self.problem = ""
        if held is self._held or self._role == "draining":
            return
        self._keep(held)
        self._held = held
        self._point(held)

    def _keep(self, held: Held | None) -> None:
        if held is not None:
            self._tallies.append((held.tally, weakref.ref(held)))

    # --- counts ---

    def _take(self, ack: int) -> Reply:
        if self._last_collected and ack == self._ledger.number:
            return Reply(seq=ack, final=True)
        number, windows = self._ledger.take(ack, self._collect)
        return Reply(seq=number, windows=windows or (), final=self._last_collected)

    def _collect(self) -> tuple[ModelWindows, ...] | None:
        windows, kept = [], []
        for tally, held in self._tallies:
            in_use = held() is not None
            if (window := tally.collect()) is not None:
                windows.append(window)
            if in_use:
                kept.append((tally, held))
        self._tallies = kept
        # The last take has a number even if it is empty: it is all over when it is acknowledged.
        self._last_collected = self._role == "draining" and not kept
        return tuple(windows) if windows or self._last_collected else None


def _door(path: Path) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        door.bind(str(path))
        path.chmod(0o600)
        door.listen(4)
    except OSError as error:
        door.close()
        why = f"{path.parent}: {error.strerror}; run as the agent's user"
        raise Unavailable("OUT-I122", why) from error
    return door

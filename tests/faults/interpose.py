"""Stands between this process and the system: every operation that changes something is met first.

What the agent calls is replaced where it looks it up (`os`, `io.open`, `sqlite3.connect`, its own
requests to runners), in this process only. Each operation is written to a log, and one of them can
be where the process is killed, the power goes, or the disk is full. Reading is left alone.

Long because every function that is replaced is easier to check beside the others.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from edge_agent import act, buffer, filesystem, marks, supervisor
from edge_agent.decode import GROWING
from edge_agent.runners import child, pool
from tests.faults.durable import Durable
from tests.faults.operations import TAKES_ROOM, Kind, Operation, named

Fault = Literal["kill", "cut", "half", "zeros", "full", "runner"]
"""SIGKILL of the agent; power cut, at which nothing, half or zeros stay of what was not synced;
no room on the disk; SIGKILL of the runner that is asked."""

DECODER: Final = "edge_agent.decoder"
"""The module that a decoding process runs."""
FULL_S: Final = 0.3
"""For so long the disk stays full."""


@dataclass(frozen=True, slots=True)
class Place:
    """The `nth` time that an operation is about to happen."""

    operation: Operation
    nth: int
    fault: Fault


@dataclass
class Watch:
    home: Path
    log: int
    """Descriptor of a file that survives what happens here."""
    place: Place | None = None
    where: str = "start"
    """What the main thread is at."""
    seen: Counter[Operation] = field(default_factory=Counter)
    full_until_s: float = 0.0
    durable: Durable = field(init=False)
    lock: Any = field(default_factory=threading.RLock)
    silent: bool = False
    """While faults are made, nobody looks."""

    def __post_init__(self) -> None:
        self.durable = Durable(self.home)
        self.durable.committed(self.home / "outbox.db")

    def ours(self, path: object) -> Path | None:
        """A path below home that outlives a reboot; else None."""
        if self.silent or not isinstance(path, str | bytes | os.PathLike):
            return None
        found = Path(os.fsdecode(path))
        if not found.is_relative_to(self.home) or found.is_relative_to(self.home / "run"):
            return None
        inside = found.relative_to(self.home)
        return None if inside.name.startswith("outbox.db") else found

    def of(self, descriptor: int) -> Path | None:
        try:
            return self.ours(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            return None

    def tell(self, **what: Any) -> None:
        os_write(self.log, (json.dumps(what) + "\n").encode())

    @contextmanager
    def about(self, kind: Kind, what: str | Path, runner: int = 0) -> Iterator[None]:
        """An operation: the fault comes before it. No other thread changes anything meanwhile."""
        with self.lock:
            name = named(what.relative_to(self.home)) if isinstance(what, Path) else what
            operation = Operation(self._here(), kind, name)
            self.seen[operation] += 1
            self.tell(op=[operation.where, kind, name])
            place = self.place
            if place and operation == place.operation and self.seen[operation] == place.nth:
                self.strike(place.fault, runner)
            if kind in TAKES_ROOM and time.monotonic() < self.full_until_s:
                if kind == "commit":
                    error = sqlite3.OperationalError("database or disk is full")
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    raise error
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            yield

    def strike(self, fault: Fault, runner: int) -> None:
        self.tell(fault=fault)
        if fault == "full":
            self.full_until_s = time.monotonic() + FULL_S
        elif fault == "runner":
            os.kill(runner, signal.SIGKILL)
        elif fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self.power_cut(fault)

    def power_cut(self, fault: Fault) -> None:
        """All processes at once, as far as one of them can see to it."""
        self.silent = True
        self.kill_children()
        for growing in self.home.glob(f"bundles/.*/{GROWING}*"):
            self.durable.unseen(growing)
        if fault == "cut":
            self.durable.cut()
        else:
            self.tell(torn=self.durable.tear("half" if fault == "half" else "zeros"))
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_children(self) -> None:
        runner = f"--run={self.home / 'run'}\0".encode()
        decoder = f"\0{DECODER}\0".encode()
        ours = f"\0{self.home}/".encode()
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                if runner in line or (decoder in line and ours in line):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue

    def commit(self, run: Callable[[], Any]) -> Any:
        place = self.place
        operation = Operation(self._here(), "commit", "outbox")
        if (
            place is not None
            and place.operation == operation
            and (place.fault == "half" or place.fault == "zeros")
        ):
            with self.lock:
                self.seen[operation] += 1
                self.tell(op=[operation.where, "commit", "outbox"])
                result = run()
                if self.seen[operation] == place.nth:
                    self.tell(fault=place.fault)
                    self.silent = True
                    self.kill_children()
                    self.durable.tear_commit(self.home / "outbox.db", place.fault)
                    os.kill(os.getpid(), signal.SIGKILL)
        else:
            with self.about("commit", "outbox"):
                result = run()
        self.durable.committed(self.home / "outbox.db")
        return result

    def _here(self) -> str:
        thread = threading.current_thread()
        return self.where if thread is threading.main_thread() else "worker"


os_write = os.write


def install(watch: Watch) -> None:
    _files(watch)
    _descriptors(watch)
    _open(watch)
    _processes(watch)
    _turns(watch)
    _outbox(watch)


def _set(owner: Any, name: str, function: Any) -> None:
    setattr(owner, name, function)


def _files(watch: Watch) -> None:
    durable = watch.durable
    rename, unlink, mkdir, rmdir, link = os.rename, os.unlink, os.mkdir, os.rmdir, os.link

    def renamed(old: Any, new: Any, **rest: Any) -> None:
        source, target = watch.ours(old), watch.ours(new)
        if source is None or target is None:
            rename(old, new, **rest)
            return
        with watch.about("rename", source):
            durable.moving(source, target)
            rename(old, new, **rest)

    def unlinked(path: Any, **rest: Any) -> None:
        found = watch.ours(path)
        if found is None or not found.exists():
            unlink(path, **rest)
            return
        with watch.about("unlink", found):
            durable.removing(found)
            unlink(path, **rest)

    def made(path: Any, *rest: Any, **more: Any) -> None:
        found = watch.ours(path)
        if found is None or found.is_dir():
            mkdir(path, *rest, **more)
            return
        with watch.about("mkdir", found):
            mkdir(path, *rest, **more)
            durable.added(found)

    def removed(path: Any, **rest: Any) -> None:
        found = watch.ours(path)
        if found is None:
            rmdir(path, **rest)
            return
        with watch.about("rmdir", found):
            durable.removing(found)
            rmdir(path, **rest)

    def linked(source: Any, target: Any, **rest: Any) -> None:
        found = watch.ours(target)
        if found is None:
            link(source, target, **rest)
            return
        with watch.about("link", found):
            link(source, target, **rest)
            durable.added(found)

    _set(os, "rename", renamed)
    _set(os, "replace", renamed)
    _set(os, "unlink", unlinked)
    _set(os, "remove", unlinked)
    _set(os, "mkdir", made)
    _set(os, "rmdir", removed)
    _set(os, "link", linked)


def _descriptors(watch: Watch) -> None:
    durable = watch.durable
    open_, write, pwrite, fsync = os.open, os.write, os.pwrite, os.fsync
    sync = filesystem.FileSystem.sync

    def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        found = watch.ours(path)
        if found is None or found.exists() or not flags & os.O_CREAT:
            return open_(path, flags, *rest, **more)
        with watch.about("create", found):
            descriptor = open_(path, flags, *rest, **more)
            durable.added(found)
            return descriptor

    def written(descriptor: int, data: Any) -> int:
        found = watch.of(descriptor)
        if found is None:
            return write(descriptor, data)
        with watch.about("write", found):
            durable.writing(found)
            return write(descriptor, data)

    def written_at(descriptor: int, data: Any, offset: int) -> int:
        found = watch.of(descriptor)
        if found is None:
            return pwrite(descriptor, data, offset)
        with watch.about("write", found):
            durable.writing(found)
            return pwrite(descriptor, data, offset)

    def synced(descriptor: int) -> None:
        found = watch.of(descriptor)
        if found is None:
            fsync(descriptor)
            return
        with watch.about("sync folder" if found.is_dir() else "fsync", found):
            fsync(descriptor)
            durable.synced(found)

    def synced_all(files: filesystem.FileSystem, path: Path) -> None:
        with watch.about("sync all", path):
            sync(files, path)
            durable.synced_all()

    _set(os, "open", opened)
    _set(os, "write", written)
    _set(os, "pwrite", written_at)
    _set(os, "fsync", synced)
    _set(filesystem.FileSystem, "sync", synced_all)


class _File:
    """A file of `io.open` whose bytes reach the system when they are written, not later."""

    def __init__(self, watch: Watch, path: Path, file: Any) -> None:
        self._watch, self._path, self._file = watch, path, file

    def write(self, data: Any) -> int:
        with self._watch.about("write", self._path):
            self._watch.durable.writing(self._path)
            written: int = self._file.write(data)
            self._file.flush()
            return written

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _open(watch: Watch) -> None:
    open_ = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        found = watch.ours(file)
        if found is None or not set(mode) & set("wax+"):
            return open_(file, mode, *rest, **more)
        with watch.about("create", found):
            if found.exists():
                watch.durable.writing(found)
                return _File(watch, found, open_(file, mode, *rest, **more))
            made = open_(file, mode, *rest, **more)
            watch.durable.added(found)
            return _File(watch, found, made)

    _set(io, "open", opened)


def _processes(watch: Watch) -> None:
    spawn, call, kill = os.posix_spawn, pool.Runners._call, child.Process.kill

    def spawned(path: Any, arguments: Any, *rest: Any, **more: Any) -> int:
        decodes = DECODER in arguments
        with watch.about("start", "a decoder" if decodes else "a runner"):
            return spawn(path, arguments, *rest, **more)

    def called(runners: pool.Runners, known: Any, request: Any, limit_s: float) -> Any:
        if request.do not in ("load", "probe", "promote", "park", "drain", "take"):
            return call(runners, known, request, limit_s)
        with watch.about("ask", request.do, known.process.pid):
            pass
        return call(runners, known, request, limit_s)

    def killed(process: child.Process) -> None:
        with watch.about("kill", "a runner"):
            kill(process)

    _set(os, "posix_spawn", spawned)
    _set(pool.Runners, "_call", called)
    _set(child.Process, "kill", killed)


def _turns(watch: Watch) -> None:
    guarded, perform = supervisor.Supervisor._guarded, act.Actor._perform
    take_in, write = supervisor.Supervisor._take_in, marks.MarksFile.write

    @contextmanager
    def in_part(agent: supervisor.Supervisor, what: str) -> Iterator[None]:
        before, watch.where = watch.where, "models" if what.startswith("model ") else what
        try:
            with guarded(agent, what):
                yield
        finally:
            watch.where = before

    def taken_in(agent: supervisor.Supervisor, item: Any) -> None:
        before, watch.where = watch.where, "message"
        try:
            take_in(agent, item)
        finally:
            watch.where = before

    def performed(actor: act.Actor, step: Any, *rest: Any) -> Any:
        before, watch.where = watch.where, type(step).__name__
        try:
            if watch.where != "Wait":
                with watch.about("step", ""):
                    pass
            return perform(actor, step, *rest)
        finally:
            watch.where = before

    def marked(file: marks.MarksFile, value: marks.Marks) -> None:
        write(file, value)
        roles = {role: mark.version for role, mark in value.roles.items()}
        watch.tell(marks=roles, root=value.root)

    _set(supervisor.Supervisor, "_guarded", in_part)
    _set(supervisor.Supervisor, "_take_in", taken_in)
    _set(act.Actor, "_perform", performed)
    _set(marks.MarksFile, "write", marked)


def _outbox(watch: Watch) -> None:
    connect, take = sqlite3.connect, buffer.Outbox.commit_take

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            run = super().execute
            if sql != "COMMIT":
                return run(sql, *rest)
            cursor: sqlite3.Cursor = watch.commit(lambda: run(sql, *rest))
            return cursor

        def close(self) -> None:
            super().close()
            watch.durable.committed(watch.home / "outbox.db")

    def connected(path: Any, *rest: Any, **more: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(path, *rest, **{"factory": Connection, **more})
        return made

    def took(outbox: buffer.Outbox, *rest: Any) -> None:
        take(outbox, *rest)
        watch.tell(answers=outbox.answers)

    _set(sqlite3, "connect", connected)
    _set(buffer.Outbox, "commit_take", took)

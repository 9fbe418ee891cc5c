"""`outrider-agent install-service`: a user, a folder, a unit, and systemd told about them.

Idempotent: what is as it should be is left alone, so it may be run again after an update. Every
command goes through `Machine`, and every path below its root, so that a test can look on.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from edge_agent import durable, unit
from protocol.errors import Failed, InvalidRequest

UNITS: Final = PurePosixPath("/etc/systemd/system")
_SYSTEMD: Final = PurePosixPath("/run/systemd/system")
_LIMIT_S: Final = 90.0
Run = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What is installed on. `run` raises `Failed` OUT-D409 for a command that fails."""

    root: Path
    run: Run
    superuser: bool
    user_id: Callable[[str], int | None]

    def path(self, inside: PurePosixPath) -> Path:
        return self.root / inside.relative_to("/")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done, for people; `commands` and `act` do it."""

    what: str
    detail: str
    act: Callable[[], None]


def this_machine() -> Machine:
    return Machine(Path("/"), _run, os.geteuid() == 0, _user_id)


def on_paper(root: Path, told: list[Sequence[str]], users: Sequence[str] = ()) -> Machine:
    """Files go below `root`, and commands are only written down: `--root`, and tests."""

    def known(name: str) -> int | None:
        return os.geteuid() if name in users else None

    return Machine(root, told.append, True, known)


def require_possible(machine: Machine) -> None:
    """Raises `InvalidRequest` OUT-D409 without root or systemd, before anything was changed."""
    if not machine.superuser:
        why = "it makes a user and a unit"
        raise InvalidRequest("OUT-D409", why, do="sudo outrider-agent install-service")
    if machine.root == Path("/") and not machine.path(_SYSTEMD).is_dir():
        raise InvalidRequest("OUT-D409", "systemd does not run this machine")


def steps(machine: Machine, terms: unit.Terms, *, start: bool) -> list[Step]:
    """What is still to be done, in order; each step may be repeated."""
    todo: list[Step] = []
    if machine.user_id(terms.user) is None:
        todo.append(
            Step("user", f"{terms.user}, without a login", lambda: _add_user(machine, terms))
        )
    todo.append(
        Step("folder", f"{terms.home} belongs to {terms.user}", lambda: _folder(machine, terms))
    )
    path = machine.path(UNITS / unit.NAME)
    text = unit.text(terms)
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before != text:
        todo.append(Step("unit", str(UNITS / unit.NAME), lambda: _write(machine, path, text)))
    todo.append(
        Step(
            "boot",
            "starts with the machine",
            lambda: machine.run(["systemctl", "enable", unit.NAME]),
        )
    )
    enrolled = machine.path(terms.home / "identity" / "enrolment.json").exists()
    how = "start" if before in (None, text) else "restart"
    if start and enrolled:
        todo.append(
            # One that runs by an older unit ends cleanly first: answers pause for some seconds.
            Step("start", unit.NAME, lambda: machine.run(["systemctl", how, unit.NAME]))
        )
    return todo


def next_of(machine: Machine, terms: unit.Terms, *, start: bool) -> str:
    """What is left for the person."""
    if not machine.path(terms.home / "identity" / "enrolment.json").exists():
        home = f" --home {terms.home}" if terms.home != unit.Terms().home else ""
        return f"sudo outrider-agent enrol{home}; then run this again"
    return "outrider-agent status" if start else "sudo systemctl start outrider-agent"


def _add_user(machine: Machine, terms: unit.Terms) -> None:
    words = ["useradd", "--system", "--user-group", "--no-create-home"]
    words += ["--home-dir", str(terms.home), "--shell", "/usr/sbin/nologin", terms.user]
    machine.run(words)


def _folder(machine: Machine, terms: unit.Terms) -> None:
    home = machine.path(terms.home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    # -h -P: what somebody linked into it stays whose it was.
    machine.run(["chown", "-R", "-h", "-P", f"{terms.user}:{terms.user}", str(home)])


def _write(machine: Machine, path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, text.encode())
    path.chmod(0o644)
    machine.run(["systemctl", "daemon-reload"])


def _run(command: Sequence[str]) -> None:
    """Raises `Failed` OUT-D409 with what the command said."""
    if shutil.which(command[0]) is None:
        raise Failed("OUT-D409", f"{command[0]} is not on this machine")
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failed("OUT-D409", f"{' '.join(command)} did not end") from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        why = said[-1] if said else f"exit {result.returncode}"
        raise Failed("OUT-D409", f"{' '.join(command)}: {why}", do="journalctl -u outrider-agent")


def _user_id(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None

"""What `doctor` finds by looking itself, without a running agent and without changing anything.

Each probe looks at one thing, quickly, and answers with what it could not look at instead of
failing. Libraries that take long to load are loaded by the probe that needs them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from edge_agent.technician.checks import Kept, Outbox, Unit
from edge_agent.technician.logs import UNIT
from protocol.errors import OutriderError, PeerError
from protocol.reported import TrustState

if TYPE_CHECKING:
    from edge_agent.identity import Identity

HASHED_BYTES: Final = 100_000_000
"""As much as is hashed within a fraction of a second; the agent hashes everything as it starts."""
COPIED_BYTES: Final = 64_000_000
SYSTEMCTL_S: Final = 0.5
_SYSTEMD: Final = Path("/run/systemd/system")


def free_bytes(home: Path) -> int | None:
    try:
        return shutil.disk_usage(home).free
    except OSError:
        return None


def folder(home: Path) -> tuple[str, tuple[str, ...]]:
    """The folder with its owner, and what is wrong about who may do what in it."""
    try:
        found = home.stat()
    except FileNotFoundError:
        return "", ()
    except OSError as error:
        return str(home), (f"{home}: {error.strerror}",)
    owner, mode = _user(found.st_uid), stat.S_IMODE(found.st_mode)
    wrong = []
    if mode & 0o022:
        wrong.append(f"{home} may be changed by others (mode {mode:04o})")
    for path in (home / "identity", home / "identity" / "device.key", home / "outbox.db"):
        try:
            inside = path.lstat()
        except PermissionError:
            wrong.append(f"{path} cannot be read by {_user(os.geteuid())}")
            continue
        except OSError:
            continue  # whether it must be there is another check's question
        if inside.st_uid != found.st_uid:
            wrong.append(f"{path} belongs to {_user(inside.st_uid)}, the folder to {owner}")
        if path.suffix == ".key" and stat.S_IMODE(inside.st_mode) & 0o077:
            wrong.append(f"{path} can be read by others")
    return f"{home} of {owner}, mode {mode:04o}", tuple(wrong)


def port_used_by(port: int, run: Path) -> Literal["", "runner", "another"]:
    """Who listens on the inference port of loopback, if anybody does."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return "runner" if any(run.glob("r-*.sock")) else "another"
    return ""


def unit() -> Unit | None:
    """None where systemd does not run this machine."""
    if not _SYSTEMD.is_dir() or shutil.which("systemctl") is None:
        return None
    try:
        result = subprocess.run(
            ["systemctl", "show", "--property=LoadState,ActiveState,UnitFileState", UNIT],
            capture_output=True,
            text=True,
            timeout=SYSTEMCTL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return unit_of(result.stdout)


def unit_of(shown: str) -> Unit:
    """From what `systemctl show` writes."""
    said = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return Unit(
        said.get("LoadState") == "loaded",
        said.get("ActiveState") in ("active", "activating", "reloading"),
        said.get("UnitFileState") == "enabled",
    )


def trust(identity: Identity) -> tuple[TrustState | None, str, bool | None]:
    """What is trusted by the files here, what is wrong with them, and whether marks are intact."""
    from tuf.api.exceptions import DownloadError, RepositoryError

    from edge_agent.marks import MarksFile
    from edge_agent.metadata import Verification, first_root
    from edge_agent.trust import MAX_KEPT
    from edge_agent.trust import Kept as KeptTrust
    from protocol.codec import decode

    directory = identity.folder.parent / "tuf"
    intact = MarksFile(directory / "marks.json").intact
    try:
        kept = decode((directory / "trusted.json").read_bytes(), KeptTrust, limit=MAX_KEPT)
        if not kept.roles:
            return TrustState(root=first_root(identity.root)), "", intact
        under = {int(n): data for n, data in kept.roots.items() if int(n) <= kept.under}
        verified = Verification(identity.root, under, {}, kept.roles).run(None)
    except FileNotFoundError:
        return TrustState(), "", intact
    except (OSError, PeerError) as error:
        return None, f"what was trusted cannot be read: {error}", intact
    except (RepositoryError, DownloadError, ValueError) as error:
        return None, f"what was trusted is damaged: {error}", intact
    until = verified.timestamp.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    state = TrustState(
        verified.root.version,
        verified.timestamp.version,
        verified.snapshot.version,
        verified.targets.version,
        verified.models.version,
        verified.rollouts.version,
        until,
    )
    return state, "", intact


def kept(home: Path) -> tuple[Kept, ...]:
    """Models on disk: whether the proven version of each is whole."""
    if not (home / "state").is_dir() or not (home / "bundles").is_dir():
        return ()
    from edge_agent.disk import Disk

    found, hashed = [], 0
    try:
        disk = Disk(home)  # both folders are there: it makes none
        for model in disk.models():
            journal = disk.journal(model)
            generations = len(disk.generations(model))
            if journal is None or journal.current is None:
                found.append(Kept(f"{model}, nothing proven", True, generations))
                continue
            hashed += _bytes(disk.path(journal.current))
            if hashed > HASHED_BYTES:
                found.append(Kept(model, None, generations))
                continue
            installed = disk.installed(journal.current)
            name = installed.name if installed is not None else model
            found.append(Kept(name, installed is not None, generations))
    except (OSError, OutriderError):
        return tuple(found)
    return tuple(found)


def outbox(path: Path) -> Outbox | None:
    """Opens a copy: opening the file itself may change it, and its owner. None without a file."""
    import sqlite3

    if not path.exists():
        return None
    beside = path.with_name(f"{path.name}-wal")
    size = _bytes(path) + _bytes(beside)
    try:
        with path.open("rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                return Outbox("the file is no database", None, size)
        if size > COPIED_BYTES:
            return Outbox("", None, size)
        with tempfile.TemporaryDirectory(prefix="outrider-doctor-") as folder:
            copy = Path(folder) / path.name
            shutil.copyfile(path, copy)
            if beside.exists():
                shutil.copyfile(beside, copy.with_name(beside.name))
            with closing(sqlite3.connect(copy)) as db:
                said = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
                if said != "ok":
                    return Outbox(said, None, size)
                return Outbox("", int(db.execute("SELECT count(*) FROM buf").fetchone()[0]), size)
    except (OSError, sqlite3.Error) as error:
        return Outbox(str(error), None, size)


def _bytes(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"

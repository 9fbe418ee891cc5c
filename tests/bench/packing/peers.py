"""What other tools make of the same files: part of `make bench NAME=payload`.

Each is set to its smallest; what a tool made is undone by it and compared, except casync's, of
which only the chunks are looked at. Bytes that were measured are kept, by tool, version and files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import brotli

ROOT: Final = Path(__file__).parents[3]
VENV: Final = ROOT / "build" / "payload-peers" / "venv"
FOREIGN: Final = Path(__file__).with_name("foreign.py")
PACKAGES: Final = (
    ("bsdiff4==1.3.2", "numpy"),
    ("--no-deps", "zipnn==0.5.4", "safetensors", "zstandard"),
)
"""Installed one after the other: what cannot be had is left out. ZipNN asks for PyTorch, which is
taken from where it is already."""

LARGE: Final = 16 * 1024 * 1024
"""zstd's and brotli's highest levels take minutes beyond this."""
CHUNK: Final = 64 * 1024

Measure = Callable[[Path, Path | None, Path], int | None]
"""Bytes of target on top of base (or alone), with a folder to work in; None: it broke down."""


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    version: str
    """Empty: it is not here."""
    measure: Measure
    based: bool = False
    """It needs a base; the others make no use of one."""
    largest: int = 1 << 40
    """Bytes of the largest file that it is given."""

    def takes(self, target: Path, base: Path | None) -> bool:
        small = target.stat().st_size <= self.largest
        return bool(self.version) and small and (base is not None or not self.based)


# --- programs -----------------------------------------------------------------------------------


def zstd(target: Path, _: Path | None, work: Path) -> int:
    made, back = work / "zst", work / "back"
    level = "-19" if target.stat().st_size <= LARGE else "-3"
    _run("zstd", "-q", "-f", level, "--single-thread", str(target), "-o", str(made))
    _run("zstd", "-q", "-f", "-d", str(made), "-o", str(back))
    return _checked(made, back, target)


def zstd_patch(target: Path, base: Path | None, work: Path) -> int:
    made, back = work / "zst", work / "back"
    level = "-19" if target.stat().st_size <= LARGE else "-3"
    common = ("zstd", "-q", "-f", "--long=27", f"--patch-from={base}")
    _run(*common, level, "--single-thread", str(target), "-o", str(made))
    _run(*common, "-d", str(made), "-o", str(back))
    return _checked(made, back, target)


def xz(target: Path, _: Path | None, work: Path) -> int:
    made, back = work / "xz", work / "back"
    with made.open("wb") as sink:
        _run("xz", "-9", "-c", str(target), stdout=sink)
    with back.open("wb") as sink:
        _run("xz", "-d", "-c", str(made), stdout=sink)
    return _checked(made, back, target)


def xdelta3(target: Path, base: Path | None, work: Path) -> int:
    made, back = work / "vcdiff", work / "back"
    window = str(max(1 << 24, _power(base.stat().st_size if base else 0)))
    common = ("xdelta3", "-q", "-f", "-B", window)
    _run(*common, "-9", "-S", "lzma", "-e", "-s", str(base), str(target), str(made))
    _run(*common, "-d", "-s", str(base), str(made), str(back))
    return _checked(made, back, target)


def _power(size: int) -> int:
    return 1 << (max(1, size) - 1).bit_length()


def casync(target: Path, base: Path | None, work: Path) -> int:
    """The index, and the chunks that the base's does not have."""
    sizes: dict[str, Mapping[str, int]] = {}
    index = work / "target.caibx"
    for name, path in (("base", base), ("target", target)):
        store = work / f"{name}.castr"
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir()
        options = (f"--store={store}", f"--chunk-size={CHUNK}", "--compression=zstd")
        _run("casync", "make", *options, str(work / f"{name}.caibx"), str(path))
        sizes[name] = {each.name: each.stat().st_size for each in store.rglob("*.cacnk")}
    missing = set(sizes["target"]) - set(sizes["base"])
    return index.stat().st_size + sum(sizes["target"][name] for name in missing)


def brotli_11(target: Path, _: Path | None, __: Path) -> int:
    data = target.read_bytes()
    packed: bytes = brotli.compress(data, quality=11, lgwin=24)
    if brotli.decompress(packed) != data:
        raise ValueError("brotli does not give back what it was given")
    return len(packed)


def _checked(made: Path, back: Path, target: Path) -> int:
    if back.read_bytes() != target.read_bytes():
        raise ValueError(f"{made.name} does not give back what it was given")
    return made.stat().st_size


def _run(*command: str, stdout: BinaryIO | None = None) -> None:
    """What a program has to say goes nowhere, but for its output."""
    devnull = subprocess.DEVNULL
    subprocess.run(
        command, check=True, stdout=devnull if stdout is None else stdout, stderr=devnull
    )


# --- packages in an environment of their own ----------------------------------------------------


def python(torch: str | None) -> Path | None:
    """The peers' interpreter, made when it is missing; None where it cannot be had. `torch`: an
    interpreter that has PyTorch."""
    found = VENV / "bin" / "python"
    if found.exists():
        return found
    VENV.parent.mkdir(parents=True, exist_ok=True)
    maker = torch or sys.executable
    command = [maker, "-m", "venv", *(["--system-site-packages"] if torch else []), str(VENV)]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"bsdiff4 and zipnn are left out: {error}", file=sys.stderr)
        return None
    for packages in PACKAGES:
        pip = [str(VENV / "bin" / "pip"), "install", "-q", *packages]
        if subprocess.run(pip, check=False).returncode:
            print(f"{packages[-1]} is left out: it does not install", file=sys.stderr)
    return found


def _foreign(interpreter: Path, name: str) -> Measure:
    def measure(target: Path, base: Path | None, _: Path) -> int | None:
        given = [str(target), *([str(base)] if base else [])]
        command = [str(interpreter), str(FOREIGN), name, *given]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: int | None = json.loads(done.stdout)
        return found

    return measure


def _alone(measure: Measure) -> Measure:
    return lambda target, _, work: measure(target, None, work)


# --- all of them --------------------------------------------------------------------------------


def find(torch: str | None) -> tuple[Peer, ...]:
    """Every peer, those that are not here without a version."""
    interpreter = python(torch)
    foreign: dict[str, str] = {}
    if interpreter:
        asked = [str(interpreter), str(FOREIGN), "versions"]
        found = subprocess.run(asked, check=True, capture_output=True, text=True)
        foreign = json.loads(found.stdout)
    there = interpreter or Path(sys.executable)
    bsdiff, zipnn = _foreign(there, "bsdiff4"), _foreign(there, "zipnn")
    return (
        Peer("zstd", _version("zstd", "--version"), zstd),
        Peer("xz", _version("xz", "--version"), xz),
        Peer("brotli", brotli.__version__, brotli_11, largest=LARGE),
        Peer("zipnn", foreign.get("zipnn", ""), _alone(zipnn)),
        Peer("zstd patch", _version("zstd", "--version"), zstd_patch, based=True),
        Peer("bsdiff4", foreign.get("bsdiff4", ""), bsdiff, based=True),
        Peer("xdelta3", _version("xdelta3", "-V"), xdelta3, based=True),
        Peer("casync", _version("casync", "--version"), casync, based=True),
        Peer("zipnn xor", foreign.get("zipnn", ""), zipnn, based=True),
    )


def _version(program: str, option: str) -> str:
    """Of a program; empty if it is not here."""
    if shutil.which(program) is None:
        return ""
    said = subprocess.run([program, option], capture_output=True, text=True, check=False)
    words = (said.stdout + said.stderr).replace(",", " ").split()
    numbers = [word.strip("v") for word in words if word.strip("v")[:1].isdigit()]
    return numbers[0] if numbers else "of unknown version"


class Measured:
    """Bytes per peer and files, kept in a file: tools give the same bytes every time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, int | None] = json.loads(path.read_text()) if path.exists() else {}

    def bytes_of(self, peer: Peer, target: Path, base: Path | None) -> int | None:
        used = base if peer.based else None
        names = [_digest(path) if path else "" for path in (target, used)]
        key = " ".join([peer.name, peer.version, *names])
        if key not in self._known:
            with tempfile.TemporaryDirectory(prefix="payload-") as work:
                self._known[key] = peer.measure(target, used, Path(work))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            spare = self._path.with_suffix(f".{os.getpid()}")
            spare.write_text(json.dumps(self._known, indent=0) + "\n")
            spare.replace(self._path)
        return self._known[key]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

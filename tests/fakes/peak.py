"""How much memory a process takes at most while something happens to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def peak_of(pid: int) -> Iterator[Callable[[], int]]:
    """Bytes by which the process has grown beyond what it had at the start of the block, at most.
    Of Linux."""
    folder = Path(f"/proc/{pid}")
    # Begin to look for the highest anew.
    (folder / "clear_refs").write_text("5")
    before = _bytes(folder, "VmRSS")
    yield lambda: _bytes(folder, "VmHWM") - before


def _bytes(folder: Path, name: str) -> int:
    line = next(
        line for line in (folder / "status").read_text().splitlines() if line.startswith(name)
    )
    return int(line.split()[1]) * 1024

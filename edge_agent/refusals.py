"""Payloads of a bundle that came whole and did not give the signed file: never tried again.

One empty file each beside what else is known of the bundle, so that a restart does not fetch them
once more. They go with the bundle's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from protocol.identifiers import Digest, digest

PREFIX: Final = ".x-"


def refuse(directory: Path, payload: Digest) -> None:
    """Raises `OSError`."""
    (directory / f"{PREFIX}{payload}").touch(mode=0o600)


def refused(directory: Path) -> set[Digest]:
    """Raises `OSError`."""
    found = set()
    for path in directory.glob(f"{PREFIX}*"):
        try:
            found.add(digest(path.name.removeprefix(PREFIX)))
        except ValueError:
            continue  # nobody wrote that here
    return found

"""A disk that can be full: a small tmpfs for a device's home where this process may mount one.

Elsewhere `full` does nothing, and `real` says so: a limit on the size of files (`RLIMIT_FSIZE`)
gives another error than a full disk, so it would test something else.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Final

SIZE: Final = "24m"
_BALLAST: Final = ".ballast"
_BLOCK: Final = bytes(64 * 1024)
_CLONE_NEWNS: Final = 0x0002_0000


def own_mounts() -> bool:
    """Give this process, and those that it starts, mounts of their own, gone with the last of
    them. False where that is not allowed."""
    if os.geteuid() != 0:
        return False
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        return False
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)
    return done.returncode == 0


class SmallDisk:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.real = False

    def mount(self) -> None:
        self.home.mkdir()
        if os.geteuid() != 0:
            return
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "soak", str(self.home)]
        self.real = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def full(self) -> None:
        """Not a byte is left."""
        if not self.real:
            return
        with (self.home / _BALLAST).open("ab", buffering=0) as file:
            size = len(_BLOCK)
            while size:
                try:
                    file.write(_BLOCK[:size])
                except OSError:
                    size //= 2

    def free(self) -> None:
        (self.home / _BALLAST).unlink(missing_ok=True)

    def unmount(self) -> None:
        self.free()
        if self.real:
            subprocess.run(["umount", "-l", str(self.home)], capture_output=True, check=False)

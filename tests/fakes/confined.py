"""Runs a command as confined as the agent's unit says, where no systemd is there to do it:
`python -m tests.fakes.confined UNIT COMMAND...`.

Only what could keep a process from working: the allow-list of system calls, no memory that is
writable and executable, no new privileges. Inherited by everything that the command starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LIBRARY: Final = "libseccomp.so.2"
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_SET_MDWE: Final = 65
_REFUSE_EXEC_GAIN: Final = 1
_SET_NO_NEW_PRIVILEGES: Final = 38


def settings(unit: str, name: str) -> list[str]:
    lines = (line.partition("=") for line in unit.splitlines())
    return [value for key, _, value in lines if key == name]


def allowed(filters: Iterable[str]) -> set[str]:
    """Names of system calls that lines of `SystemCallFilter=` leave."""
    found: set[str] = set()
    for line in filters:
        names = _expanded(line.removeprefix("~").split())
        found = found - names if line.startswith("~") else found | names
    return found


def _expanded(words: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        if not word.startswith("@"):
            found.add(word)
            continue
        said = subprocess.run(
            ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
        ).stdout
        inside = [line.strip() for line in said.splitlines()[1:]]
        found |= _expanded(each for each in inside if each and not each.startswith("#"))
    return found


def confine(unit: str) -> None:
    seccomp = ctypes.CDLL(LIBRARY)
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    names = allowed(settings(unit, "SystemCallFilter"))
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no new privileges")
    if settings(unit, "MemoryDenyWriteExecute") == ["yes"] and libc.prctl(
        _SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no memory that is writable and executable")
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_REFUSE)))
    for name in sorted(names):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # others are not calls of this machine
            seccomp.seccomp_rule_add(context, ctypes.c_uint32(_ALLOW), number, 0)
    if seccomp.seccomp_load(context):
        raise OSError(errno.EPERM, "the filter was not loaded")


def main() -> None:
    unit, *command = sys.argv[1:]
    confine(Path(unit).read_text(encoding="utf-8"))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

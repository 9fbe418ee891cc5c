"""What starting needed and running does not: given back to the system once, after the start.

Most code of a library as large as onnxruntime runs only while it is loaded, and stays mapped. Its
pages are clean: the kernel may drop them, and reads back what is touched again. Unmapped, they
count as what they are, file cache, and a small device finds at once what it can do without.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_MADV_DONTNEED: Final = 4
_SMAPS: Final = Path("/proc/self/smaps")


def give_back() -> None:
    """Free heap, and the code of libraries. A few hundred page faults later, what is in use is
    mapped again."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's own
        libc.malloc_trim(0)
    try:
        smaps = _SMAPS.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        log.info("nothing of the libraries is given back: %s", error)
        return
    for start, size in clean_code(smaps):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)


def clean_code(smaps: str) -> list[tuple[int, int]]:
    """`(start, size)` of all mappings of programs and libraries that nothing was ever written to:
    what was, where a loader had to put addresses into code, would be lost."""
    mappings = list(_mappings(smaps))
    programs = {name for name, rights, _, _, _ in mappings if "x" in rights}
    return [
        (start, size)
        for name, rights, start, size, written in mappings
        if name in programs and "w" not in rights and not written
    ]


def _mappings(smaps: str) -> Iterator[tuple[str, str, int, int, bool]]:
    """`(file, rights, start, size, whether a page was written to)` of all mapped files."""
    name = rights = ""
    start = end = 0
    for line in smaps.splitlines():
        words = line.split(maxsplit=5)
        if words[0] == "Anonymous:" and name.startswith("/"):
            yield name, rights, start, end - start, words[1] != "0"
        elif not words[0].endswith(":"):
            start, end = (int(number, 16) for number in words[0].split("-"))
            rights, name = words[1], words[5] if len(words) > 5 else ""

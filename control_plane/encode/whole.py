"""Bodies that stand for a whole file at once: brotli, a zstd patch, bsdiff.

They pay where nothing is known of a file, or where it is so small that a table costs too much.
"""

from __future__ import annotations

from typing import Final

import brotli
import bsdiff4.core
import numpy as np

from coding.limits import MAX_BSDIFF, MAX_PATCH, MAX_TRIPLES
from coding.streams import Packer, pack_zstd
from coding.varint import Buffer, signed, unsigned

LEVEL: Final = 19
QUALITY: Final = 11
WINDOW_LOG: Final = 22
MOST_BROTLI: Final = 16 * 1024 * 1024
"""Quality 11 takes two seconds for a megabyte."""
SAMPLE: Final = 1024 * 1024
NEAR: Final = 1.01
SEEK: Final = 2
"""Place in a triple of what has a sign."""


def patch(target: Buffer, base: Buffer) -> bytes | None:
    """One zstd frame with the base before it; None for files that are too large."""
    if len(base) + len(target) > MAX_PATCH:
        return None
    return pack_zstd(bytes(target), LEVEL, bytes(base))


def pressed(target: Buffer, below: int) -> bytes | None:
    """One brotli stream; None where the first megabyte says that it has more than `below`."""
    if len(target) > MOST_BROTLI:
        return None
    if len(target) > SAMPLE:
        sample = len(_brotli(bytes(target[:SAMPLE])))
        if sample * len(target) > below * NEAR * SAMPLE:
            return None
    return _brotli(bytes(target))


def bsdiff(target: Buffer, base: Buffer, packer: Packer) -> bytes | None:
    """Additions to moved pieces of the base; None for files that are too large."""
    if max(len(base), len(target)) > MAX_BSDIFF:
        return None
    told, differences, inserted = bsdiff4.core.diff(bytes(base), bytes(target))
    numbers = _numbers(told)
    if not 0 < len(numbers) <= 3 * MAX_TRIPLES:
        return None
    # Nothing is read behind the last triple, so wherever it would go on is out of the way.
    numbers[-1] = 0
    controls = b"".join(
        signed(number) if place % 3 == SEEK else unsigned(number)
        for place, number in enumerate(numbers)
    )
    return unsigned(len(numbers) // 3) + b"".join(
        unsigned(len(part)) + packer.stream(part) for part in (controls, differences, inserted)
    )


def _numbers(told: bytes) -> list[int]:
    """Controls as bsdiff writes them: 64 bits each, the highest of which is the sign."""
    plain = np.frombuffer(told, "<i8")
    found: list[int] = np.where(plain < 0, -(plain & np.int64((1 << 63) - 1)), plain).tolist()
    return found


def _brotli(data: bytes) -> bytes:
    packed: bytes = brotli.compress(data, quality=QUALITY, lgwin=WINDOW_LOG, lgblock=WINDOW_LOG)
    return packed

"""Whole numbers as LEB128, in their shortest form only, and a cursor over bytes."""

from __future__ import annotations

from mmap import mmap
from typing import Final

Buffer = bytes | bytearray | memoryview | mmap
"""What can be read without a copy."""

_MOST_BYTES: Final = 8


class Reader:
    """A cursor. Every method raises `ValueError` beyond the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise ValueError("it is cut short")
        value = self._data[self._at]
        self._at += 1
        return value

    def take(self, length: int) -> memoryview:
        if length > self.left:
            raise ValueError("it is cut short")
        part = self._data[self._at : self._at + length]
        self._at += length
        return part

    def unsigned(self, most: int) -> int:
        """Raises `ValueError` for more than `most`, 8 bytes or a form that is not the shortest."""
        value = 0
        for place in range(_MOST_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if not byte and place:
                    raise ValueError("a number is longer than needed")
                if value > most:
                    raise ValueError(f"{value:,} is more than {most:,}")
                return value
        raise ValueError("a number is too long")

    def signed(self, most: int) -> int:
        """A zigzag number from `-most` to `most`. Raises `ValueError` like `unsigned`."""
        folded = self.unsigned(2 * most)
        return folded >> 1 ^ -(folded & 1)

    def end(self) -> None:
        """Raises `ValueError` unless everything has been read."""
        if self.left:
            raise ValueError(f"{self.left:,} bytes too many")


def unsigned(value: int) -> bytes:
    """Raises `ValueError` for what `Reader.unsigned` would refuse."""
    if not 0 <= value < 1 << 7 * _MOST_BYTES:
        raise ValueError(f"{value:,} does not fit")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """Zigzag: small numbers of both signs stay short."""
    return unsigned(2 * value if value >= 0 else -2 * value - 1)

"""A cursor over bytes that are read only when they are asked for."""

from __future__ import annotations

from typing import BinaryIO

from coding.varint import Reader


class Source(Reader):
    """Like `Reader`, of a stream; `left` is not known. Raises `ValueError` where it ends."""

    __slots__ = ("_stream",)

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(b"")
        self._stream = stream

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, length: int) -> memoryview:
        part = self._stream.read(length)
        while len(part) < length:
            more = self._stream.read(length - len(part))
            if not more:
                raise ValueError("it is cut short")
            part += more
        return memoryview(part)

    def some(self, most: int) -> bytes:
        """What comes next, up to `most` bytes; nothing at the end."""
        return self._stream.read(most)

    def skip(self, length: int) -> None:
        """Go on behind `length` bytes; the end is noticed by what is read next."""
        self._stream.seek(length, 1)

    def end(self) -> None:
        if self._stream.read(1):
            raise ValueError("bytes behind the end")

"""The file that a delta starts from, as far as a decoder looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Base(Protocol):
    """Bytes anywhere in a file."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises `ValueError` beyond the end, `OSError`."""
        ...


@dataclass(frozen=True, slots=True)
class BaseColumn:
    """`count` elements that lie in `size` bytes from `start` on."""

    start: int
    form: int
    element: int
    tag: int
    count: int
    size: int
    names: tuple[bytes, ...] = ()

    @property
    def end(self) -> int:
        return self.start + self.size

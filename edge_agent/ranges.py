"""Which bytes of a payload are asked for over HTTP, and which answers to that are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from protocol.errors import OutriderError, PeerError, Unavailable
from protocol.payload import FRAME_SIZE

_OTHER_SERVERS_PROBLEM: Final = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Run:
    """Frames `first` to `last` of a payload of `size` bytes, with nothing between them missing."""

    first: int
    last: int
    size: int
    begun: int = 0
    """Bytes of the first frame that are here, and are not asked for."""

    @property
    def start(self) -> int:
        return self.first * FRAME_SIZE + self.begun

    @property
    def end(self) -> int:
        """Behind its last byte."""
        return min((self.last + 1) * FRAME_SIZE, self.size)

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def header(self) -> str:
        return f"bytes={self.start}-{self.end - 1}"


def missing_run(have: bytes | bytearray, size: int) -> Run | None:
    """The first frames that are not here (`have`: per frame 1 or 0), up to one that is."""
    first = have.find(0)
    if first < 0:
        return None
    after = have.find(1, first)
    return Run(first, (after if after >= 0 else len(have)) - 1, size)


def accept(status: int, headers: Mapping[str, str], run: Run) -> int:
    """Bytes of the run that the answer's body begins with: all of them.

    `headers` by lower-case name. Raises `Unavailable` (OUT-F107) where asking later may help,
    `PeerError` (OUT-F108) for an answer to another question.
    """
    _require_plain(status, headers)
    length = headers.get("content-length")
    if status == HTTPStatus.PARTIAL_CONTENT:
        wanted = f"bytes {run.start}-{run.end - 1}/{run.size}"
        if headers.get("content-range") != wanted:
            raise PeerError("OUT-F108", f"{headers.get('content-range', 'no range')!r:.80}")
        if length is not None and length != str(run.length):
            raise PeerError("OUT-F108", f"{length!r:.30} bytes for a range of {run.length:,}")
        return run.length
    if status == HTTPStatus.OK and run.start == 0:
        if length is not None and length != str(run.size):
            raise PeerError("OUT-F108", f"{length!r:.30} bytes, the payload has {run.size:,}")
        return run.length
    raise refusal(status)


def accept_lists(status: int, headers: Mapping[str, str], length: int) -> int:
    """The same for frame lists of `length` bytes, which are asked for whole."""
    _require_plain(status, headers)
    if status != HTTPStatus.OK:
        raise refusal(status)
    if headers.get("content-length", str(length)) != str(length):
        raise PeerError("OUT-F108", f"frame lists of another length than {length:,}")
    return length


def refusal(status: int) -> OutriderError:
    """What an answer means that brings nothing."""
    if status >= 500 or status in _OTHER_SERVERS_PROBLEM:
        return Unavailable("OUT-F107", f"it answered {status}")
    return PeerError("OUT-F108", f"it answered {status}")


def retry_after_s(headers: Mapping[str, str], most: float) -> float:
    """Seconds that the server asks to be left alone; dates are not understood, and say nothing."""
    said = headers.get("retry-after", "")
    return min(float(said), most) if said.isascii() and said.isdigit() else 0.0


def _require_plain(status: int, headers: Mapping[str, str]) -> None:
    coding = headers.get("content-encoding", "identity").lower()
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT) and coding != "identity":
        raise PeerError("OUT-F108", f"it is packed as {coding!r:.30}")

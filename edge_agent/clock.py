"""Trusted time: what this device believes the time is, whatever its wall clock says.

    now = max(wall clock, if the kernel says that it is synchronised,
              floor + time elapsed since the floor was set)

The floor is the newest moment that signed metadata proves to have passed. It is kept over
restarts, only rises, and never rises because of the wall clock: a machine that once woke up in
2040 must not remember it. Time is compared with expiries, never used to measure durations.

One thing lowers the floor: root holders who replace the keys that raised it. Else whoever stole
them could put off, until approvals expire, all that their successors say.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from edge_agent import durable
from protocol import codec
from protocol.errors import PeerError

log = logging.getLogger(__name__)

EARLIEST_MS: Final = 1_793_491_200_000
"""1 November 2026: no device runs this source earlier."""

_STA_UNSYNC: Final = 0x40
_TIME_ERROR: Final = 5
_TIMESYNCD = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Basis = Literal["synchronised", "floor", "wall clock (development)"]


class _Timex(ctypes.Structure):
    """The head of Linux's `struct timex`; the rest is room that the kernel may write to."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def kernel_synchronised() -> bool:
    """Whether some time service disciplines the kernel's clock, or systemd-timesyncd says so."""
    if _TIMESYNCD.exists():
        return True
    query = _Timex(modes=0)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(query))
    except (OSError, AttributeError):
        # Not Linux, or forbidden: nobody vouches for the wall clock, so it is not used.
        return False
    return state not in (-1, _TIME_ERROR) and not query.status & _STA_UNSYNC


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _since_boot_s() -> float:
    """Counts while the machine sleeps, unlike `time.monotonic`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where time comes from; tests bring their own."""

    wall_ms: Callable[[], int] = _wall_ms
    since_boot_s: Callable[[], float] = _since_boot_s
    monotonic_s: Callable[[], float] = time.monotonic
    synchronised: Callable[[], bool] = kernel_synchronised
    boot: Callable[[], str] = _boot_id


@dataclass(frozen=True, slots=True)
class Floor:
    """A moment (Unix ms) that has passed, and when of which boot it was set."""

    at_ms: int
    boot: str = ""
    since_boot_s: float = 0.0
    keys: str = ""
    """Name of the keys that said so; empty: nobody whose word can be taken back."""


class Clock:
    """`trust_wall` believes an unsynchronised wall clock: for development, and status says so."""

    def __init__(
        self,
        file: Path,
        *,
        trust_wall: bool = False,
        earliest_ms: int | None = None,
        sources: Sources | None = None,
    ) -> None:
        self._file = file
        self._trust_wall = trust_wall
        self._sources = sources if sources is not None else Sources()
        self._boot = self._sources.boot()
        if earliest_ms is None:
            # A development machine may be set to any date, and its control plane shares it.
            earliest_ms = 0 if trust_wall else EARLIEST_MS
        self._earliest_ms = earliest_ms
        self._floor = self._restored(earliest_ms)
        self._kept_ms, self._kept_keys = self._floor.at_ms, self._floor.keys

    def now_ms(self) -> int:
        """Trusted time, Unix ms. May go back when the wall clock loses its synchronisation."""
        proven_ms = self._proven_ms()
        return proven_ms if self.basis == "floor" else max(self._sources.wall_ms(), proven_ms)

    def local_now(self) -> datetime:
        """Local time for hours and days of transfers, and for nothing that trust rests on: here
        the wall clock counts even if nobody vouches for it."""
        at_ms = max(self._sources.wall_ms(), self._proven_ms())
        return self.local_time(at_ms)

    def local_time(self, at_ms: int) -> datetime:
        """A moment in this device's time zone, with its offset."""
        return datetime.fromtimestamp(at_ms / 1000).astimezone()

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment, for durations."""
        return self._sources.monotonic_s()

    @property
    def synchronised(self) -> bool:
        return self._sources.synchronised()

    @property
    def basis(self) -> Basis:
        """What trusted time rests on now."""
        if self._sources.synchronised():
            return "synchronised"
        return "wall clock (development)" if self._trust_wall else "floor"

    @property
    def unset(self) -> bool:
        """Whether nobody vouches for the time: no time service, and no signed metadata yet."""
        return self.basis == "floor" and self._kept_ms <= self._earliest_ms

    @property
    def floor_ms(self) -> int:
        """The newest moment known to have passed, as kept on disk."""
        return self._kept_ms

    def raise_floor(self, at_ms: int, keys: str = "") -> bool:
        """Remember that `at_ms` has passed, durably. False if that was known. Raises `OSError`.

        What is kept is the proven moment itself; time counted since an older one still stands
        while this process lives, so trusted time does not go back by it. `keys` names who said so.
        """
        if at_ms <= self._kept_ms:
            return False
        floor = Floor(at_ms, self._boot, self._sources.since_boot_s(), keys)
        self._keep(floor)
        if at_ms > self._proven_ms():
            self._floor = floor
        return True

    def disown(self, keys: str) -> bool:
        """Begin anew from the earliest, durably, if other keys than these raised the floor. False
        if they did not, or nobody's did. Raises `OSError`. Only for keys that a newer root names
        instead: what they sign says at once how late it is."""
        if self._kept_keys in ("", keys):
            return False
        self._floor = Floor(self._earliest_ms, self._boot, self._sources.since_boot_s())
        self._keep(self._floor)
        return True

    def _keep(self, floor: Floor) -> None:
        durable.replace(self._file, codec.encode(floor))
        self._kept_ms, self._kept_keys = floor.at_ms, floor.keys

    def _proven_ms(self) -> int:
        elapsed_s = self._sources.since_boot_s() - self._floor.since_boot_s
        return self._floor.at_ms + int(max(elapsed_s, 0.0) * 1000)

    def _restored(self, earliest_ms: int) -> Floor:
        """The floor on disk; counting on from it only within the boot in which it was set."""
        now_s = self._sources.since_boot_s()
        try:
            floor = codec.decode(self._file.read_bytes(), Floor, limit=4096)
        except FileNotFoundError:
            return Floor(earliest_ms, self._boot, now_s)
        except (OSError, PeerError) as error:
            # Refusing to start would stop inference; the next trusted metadata raises it again.
            log.warning("the clock's floor cannot be read, starting from the earliest: %s", error)
            return Floor(earliest_ms, self._boot, now_s)
        if floor.at_ms < earliest_ms:
            return Floor(earliest_ms, self._boot, now_s)
        if floor.boot and floor.boot == self._boot and floor.since_boot_s <= now_s:
            return floor
        return Floor(floor.at_ms, self._boot, now_s, floor.keys)

"""What technicians hold this device at: kept on disk, above what plans and documents say.

One small file, `documents/local-pins.json`. A pin is in force from the moment it is durable, so
whoever asked for it may switch the device off. Any thread may change pins; the supervisor reads
them anew in each turn.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent import durable
from protocol.codec import decode, encode
from protocol.device import Pin
from protocol.errors import PeerError, Unavailable
from protocol.identifiers import ModelName, model_name
from protocol.reported import MAX_MODELS, LocalPin

log = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    """The file."""

    v: int = 1
    pins: dict[ModelName, LocalPin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.v != 1 or len(self.pins) > MAX_MODELS:
            raise ValueError(f"at most {MAX_MODELS} pins of version 1")
        for model in self.pins:
            model_name(model)


class LocalPins:
    """The pins and their file; `directory` is there. A file that cannot be read pins nothing: a
    device must start, and what its operators ordered is the next best answer."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "local-pins.json"
        self._lock = threading.Lock()
        self.problem = ""
        """Why the file could not be read, if it could not."""
        self._pins = self._read()

    @property
    def pins(self) -> dict[ModelName, LocalPin]:
        """All of them; never changed in place."""
        return self._pins

    def holding(self, model: ModelName, now_ms: int) -> LocalPin | None:
        """The pin of a model, unless it has ended; `now_ms` is trusted time."""
        pin = self._pins.get(model)
        return pin if pin is not None and pin.holds(now_ms) else None

    def order(self, model: ModelName, now_ms: int) -> Pin | None:
        """The same in the words of a plan."""
        pin = self.holding(model, now_ms)
        return Pin(pin.digest, pin.until_ms) if pin is not None else None

    def put(self, model: ModelName, pin: LocalPin) -> None:
        """Durable on return. Raises `Unavailable` OUT-D201 if it cannot be written."""
        with self._lock:
            self._write({**self._pins, model: pin})

    def take_back(self, model: ModelName) -> LocalPin | None:
        """The pin that was taken back; None if there was none. Raises `Unavailable` OUT-D201."""
        with self._lock:
            pin = self._pins.get(model)
            if pin is not None:
                self._write({name: each for name, each in self._pins.items() if name != model})
            return pin

    def ended(self, now_ms: int) -> tuple[ModelName, ...]:
        """Models whose pin has ended since the last call; they are forgotten. Raises
        `Unavailable` OUT-D201; then they are named again."""
        with self._lock:
            over = tuple(name for name, pin in self._pins.items() if not pin.holds(now_ms))
            if over:
                self._write({name: pin for name, pin in self._pins.items() if name not in over})
            return over

    def _write(self, pins: dict[ModelName, LocalPin]) -> None:
        try:
            durable.replace(self._path, encode(_Kept(pins=pins)))
        except OSError as error:
            raise Unavailable("OUT-D201", f"the pin: {error}") from error
        self._pins, self.problem = pins, ""

    def _read(self) -> dict[ModelName, LocalPin]:
        try:
            return decode(self._path.read_bytes(), _Kept, limit=MAX_BYTES).pins
        except FileNotFoundError:
            return {}
        except (OSError, PeerError) as error:
            self.problem = f"{self._path.name}: {error}"
            log.warning("pins of technicians cannot be read, none is in force: %s", error)
            return {}

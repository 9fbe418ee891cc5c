"""The signed device document: labels, pins, allowances and settings of one device.

It travels as a DSSE envelope of `PAYLOAD_TYPE`, signed with the keys of role `rollouts`. Settings
are a closed list with hard ranges; none of them can lower a health limit, stop a runner or change
broker, CA or root, so a stolen online key cannot either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

from protocol.identifiers import (
    Count,
    DeviceId,
    Digest,
    FleetName,
    ModelName,
    digest,
    fleet_name,
    label_key,
    label_value,
    model_name,
    split_device_id,
)

PAYLOAD_TYPE: Final = "application/vnd.outrider.device.v1+json"
MAX_LABELS: Final = 200

MinuteOfDay = Annotated[int, Meta(ge=0, le=1440)]


@dataclass(frozen=True, slots=True)
class TransferWindow:
    """Local time in which payloads may be fetched; `stop` before `start` crosses midnight."""

    start_minute: MinuteOfDay
    stop_minute: MinuteOfDay

    def __post_init__(self) -> None:
        if self.start_minute == self.stop_minute:
            raise ValueError("a window begins and ends at different minutes")


@dataclass(frozen=True, slots=True)
class Settings:
    """Out of range refuses the whole document. None means "as the device is configured"."""

    state_interval_s: Annotated[int, Meta(ge=60, le=21_600)] | None = None
    buffer_bytes: Annotated[int, Meta(ge=4_000_000, le=1_000_000_000)] | None = None
    bytes_per_day: Count | None = None
    transfer_windows: tuple[TransferWindow, ...] = ()
    capture_off: bool = False
    drift_ln_threshold: Annotated[float, Meta(ge=9, le=25)] | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """One model held at one bundle, until a time (Unix ms) or until it is removed."""

    digest: Digest
    until: Count | None = None

    def __post_init__(self) -> None:
        digest(self.digest)


@dataclass(frozen=True, slots=True)
class DeviceDocument:
    """Version increases strictly per key set; `since` numbers the last change of labels."""

    fleet: FleetName
    device: DeviceId
    version: Count
    since: Count = 0
    labels: dict[str, str] = field(default_factory=dict)
    pins: dict[ModelName, Pin] = field(default_factory=dict)
    allow: dict[ModelName, dict[Digest, Count]] = field(default_factory=dict)
    """Per model and digest a number; raising it above the noted one lifts a local denial."""
    certificate: str | None = None
    settings: Settings = Settings()
    must_understand: tuple[str, ...] = ("document/1",)

    def __post_init__(self) -> None:
        if split_device_id(self.device)[0] != fleet_name(self.fleet):
            raise ValueError(f"{self.device} is not a device of fleet {self.fleet}")
        if len(self.labels) > MAX_LABELS:
            raise ValueError(f"a device has at most {MAX_LABELS} labels")
        for key, value in self.labels.items():
            label_key(key)
            label_value(value)
        for model in (*self.pins, *self.allow):
            model_name(model)
        for numbers in self.allow.values():
            for bundle in numbers:
                digest(bundle)

    @property
    def selectable(self) -> dict[str, str]:
        """Labels as selectors see them: with the reserved `id`, the local part of the name."""
        return {**self.labels, "id": split_device_id(self.device)[1]}

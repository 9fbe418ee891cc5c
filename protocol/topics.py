"""The only place where MQTT topics are built or parsed.

Alphabet `[A-Za-z0-9_/-]`, at most seven slashes, exact topics for everything retained: rules that
hold on every broker we looked at, hosted ones included.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from protocol.identifiers import (
    DeviceId,
    Digest,
    FleetName,
    ModelName,
    digest,
    fleet_name,
    model_name,
    split_device_id,
)

SHARDS: Final = 16
TUF_ROLES: Final = ("timestamp", "snapshot", "targets", "models", "rollouts")


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one fleet. Methods check their arguments, so no name can escape its level."""

    fleet: FleetName

    def __post_init__(self) -> None:
        fleet_name(self.fleet)

    @property
    def prefix(self) -> str:
        return f"outrider/v1/{self.fleet}/"

    def tuf(self, role: str) -> str:
        if role not in TUF_ROLES:
            raise ValueError(f"no TUF role {role!r}")
        return f"{self.prefix}tuf/{role}"

    def root(self, number: int) -> str:
        return f"{self.prefix}tuf/root/{_index(number)}"

    def plan(self, model: ModelName) -> str:
        return f"{self.prefix}plans/{model_name(model)}"

    @property
    def deny(self) -> str:
        return f"{self.prefix}deny"

    def manifest(self, model: ModelName, document: Digest) -> str:
        """Where an OCI index or one of its manifests is retained."""
        return f"{self.prefix}manifests/{model_name(model)}/{digest(document)}"

    def hint(self, model: ModelName, file: Digest) -> str:
        return f"{self.prefix}payloads/{model_name(model)}/{digest(file)}"

    def frame(self, model: ModelName, payload: Digest, number: int) -> str:
        return f"{self.prefix}frames/{model_name(model)}/{digest(payload)}/{_index(number)}"

    def frame_list(self, model: ModelName, payload: Digest, number: int) -> str:
        return f"{self.prefix}frames/{model_name(model)}/{digest(payload)}/i{_index(number)}"

    def document(self, device: DeviceId) -> str:
        return f"{self.prefix}devices/{self._own(device)}/document"

    def ack(self, device: DeviceId) -> str:
        return f"{self.prefix}devices/{self._own(device)}/ack"

    def ingest(self, shard: int) -> str:
        """Retained hello of the ingester that owns the shard."""
        return f"{self.prefix}ingest/{_index(shard)}"

    def up(self, device: DeviceId, kind: str) -> str:
        if kind not in ("records", "want"):
            raise ValueError(f"no upstream kind {kind!r}")
        return f"{self.prefix}up/{shard_of(device)}/{self._own(device)}/{kind}"

    def up_filter(self, shard: int) -> str:
        """What an ingester subscribes; nothing below it is retained."""
        return f"{self.prefix}up/{_index(shard)}/+/+"

    def presence(self, device: DeviceId) -> str:
        return f"{self.prefix}presence/{self._own(device)}"

    def echo(self, name: str) -> str:
        """What the control plane sends to itself: what it asked for before has come by then."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise ValueError(f"not a name for an echo: {name!r:.80}")
        return f"{self.prefix}echo/{name}"

    def parse_up(self, topic: str) -> tuple[DeviceId, str]:
        """`(device, kind)` of an upstream topic. Raises `ValueError` for any other topic."""
        levels = topic.removeprefix(self.prefix).split("/")
        if not topic.startswith(self.prefix) or len(levels) != 4 or levels[0] != "up":
            raise ValueError(f"not an upstream topic: {topic!r:.120}")
        _, shard, device, kind = levels
        if self.up(device, kind) != topic:
            raise ValueError(f"device {device!r} does not publish to shard {shard!r}")
        return device, kind

    def _own(self, device: DeviceId) -> DeviceId:
        if split_device_id(device)[0] != self.fleet:
            raise ValueError(f"{device!r:.80} is not a device of fleet {self.fleet}")
        return device


def shard_of(device: DeviceId) -> int:
    return hashlib.sha256(device.encode("ascii")).digest()[0] % SHARDS


def _index(number: int) -> int:
    if number < 0:
        raise ValueError("indices count from 0")
    return number

"""What lies on a stick that carries models to devices without a link: names and limits only.

    outrider-stick.json                  what it is, written last
    tuf/root/<n>.json  tuf/<role>.json   signed metadata, one consistent set
    plans/<model>.json  deny.json        as `rollouts` lists them
    documents/<device>.dsse              signed device documents
    manifests/<digest>                   bundle indexes and manifests
    hints/<model>/<file digest>.json     how a file can be obtained (a `Hint`)
    payloads/<payload digest>            a payload, all frames in one file

Nothing here is trusted because it lies there: what is signed is verified as if it had come over
the link, and everything else is checked against a signed digest. A reader never lists a folder;
it opens the names that it works out itself, so whatever else lies there does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from protocol.errors import NotUnderstood
from protocol.identifiers import (
    Count,
    DeviceId,
    Digest,
    FleetName,
    ModelName,
    digest,
    fleet_name,
    model_name,
    split_device_id,
)
from protocol.topics import TUF_ROLES

NOTE: Final = "outrider-stick.json"
FORMAT: Final = 1
DENY: Final = "deny.json"
TOP: Final = (NOTE, "tuf", "plans", DENY, "documents", "manifests", "hints", "payloads")
"""Everything that a stick has at its top."""

MAX_NOTE: Final = 512 * 1024
MAX_DEVICES: Final = 5_000
MAX_MODELS: Final = 64
MAX_ROOTS: Final = 64
"""New roots that one installation reads; a longer chain takes another run."""

Path = tuple[str, ...]
"""Of a file, from the top of the stick, level by level."""


@dataclass(frozen=True, slots=True)
class Stick:
    """`outrider-stick.json`: a hint for people and for what to read; nothing in it is trusted."""

    fleet: FleetName
    made_ms: Count
    devices: tuple[DeviceId, ...]
    models: tuple[ModelName, ...] = ()
    """Those whose plans are here."""
    chosen: str = ""
    """In words, whom it was made for: "site = leeds"."""
    versions: dict[str, Count] = field(default_factory=dict)
    """Of the roles of the metadata, and of the newest root."""
    v: Count = FORMAT

    def __post_init__(self) -> None:
        if self.v != FORMAT:
            raise NotUnderstood((f"stick/{self.v}",))
        fleet_name(self.fleet)
        if len(self.devices) > MAX_DEVICES or len(self.models) > MAX_MODELS:
            raise ValueError(f"a stick is for {MAX_DEVICES:,} devices and {MAX_MODELS} models")
        for device in self.devices:
            split_device_id(device)
        for model in self.models:
            model_name(model)


def root(number: int) -> Path:
    if number < 1:
        raise ValueError("roots count from 1")
    return "tuf", "root", f"{number}.json"


def role(name: str) -> Path:
    if name not in TUF_ROLES:
        raise ValueError(f"no TUF role {name!r}")
    return "tuf", f"{name}.json"


def plan(model: ModelName) -> Path:
    return "plans", f"{model_name(model)}.json"


def document(device: DeviceId) -> Path:
    split_device_id(device)
    return "documents", f"{device}.dsse"


def manifest(name: Digest) -> Path:
    """An index or a manifest."""
    return "manifests", digest(name)


def hint(model: ModelName, file: Digest) -> Path:
    return "hints", model_name(model), f"{digest(file)}.json"


def payload(name: Digest) -> Path:
    return "payloads", digest(name)

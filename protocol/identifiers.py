"""The names of things: checked once, when a value that carries them is constructed.

Forms are those of the wire specification. Functions return their argument, so that a check
reads as part of an expression; all raise `ValueError` with the expected form.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

FleetName: TypeAlias = str
DeviceId: TypeAlias = str
ModelName: TypeAlias = str
Version: TypeAlias = str
Digest: TypeAlias = str

MAX_INT: Final = 2**53
"""JSON readers everywhere agree on integers up to here, so nothing larger travels."""

Int53: TypeAlias = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INT)]

_FLEET = re.compile(r"[a-z0-9]{1,32}")
_LOCAL = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"sha256-[0-9a-f]{64}")
_LABEL = re.compile(r"[a-z0-9][a-z0-9_/-]{0,62}")
_MAX_LABEL_VALUE_BYTES: Final = 128


def _check(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{what} must match {pattern.pattern}, got {value!r:.80}")
    return value


def fleet_name(value: str) -> FleetName:
    return _check(_FLEET, value, "a fleet")


def model_name(value: str) -> ModelName:
    return _check(_MODEL, value, "a model")


def version_name(value: str) -> Version:
    return _check(_VERSION, value, "a version")


def digest(value: str) -> Digest:
    return _check(_DIGEST, value, "a digest")


def local_name(value: str) -> str:
    """The part of a device id that people see and type inside one fleet."""
    return _check(_LOCAL, value, "a device name")


def label_key(value: str) -> str:
    return _check(_LABEL, value, "a label key")


def label_value(value: str) -> str:
    if len(value.encode()) > _MAX_LABEL_VALUE_BYTES:
        raise ValueError(f"a label value is text of at most {_MAX_LABEL_VALUE_BYTES} bytes")
    return value


def device_id(fleet: FleetName, local: str) -> DeviceId:
    """Common name, user name, client id, topic level and hash input of one device."""
    return f"{fleet_name(fleet)}-{local_name(local)}"


def split_device_id(value: DeviceId) -> tuple[FleetName, str]:
    """`(fleet, local part)`. A fleet has no hyphen, so the first one separates them."""
    fleet, hyphen, local = value.partition("-")
    if not hyphen:
        raise ValueError(f"a device id is <fleet>-<device>, got {value!r:.80}")
    return fleet_name(fleet), local_name(local)


def digest_of(data: bytes) -> Digest:
    return "sha256-" + hashlib.sha256(data).hexdigest()


def digest_from_hex(hexadecimal: str) -> Digest:
    return digest("sha256-" + hexadecimal)


def digest_hex(value: Digest) -> str:
    return digest(value)[len("sha256-") :]


def short(value: Digest) -> str:
    """The first 8 hex digits: for people, never for decisions."""
    return digest_hex(value)[:8]


def model_version(reference: str) -> tuple[ModelName, Version]:
    """Split the reference `model/version` that people write."""
    model, slash, version = reference.partition("/")
    if not slash:
        raise ValueError(f"a reference is model/version, got {reference!r:.80}")
    return model_name(model), version_name(version)

"""What an operator may change about a device. Decides what its document becomes; stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from control_plane.store.bundles import BundleRow
from control_plane.store.devices import FACT, RUNS, Device
from control_plane.web.problems import FieldError, InvalidFields
from protocol.codec import MAX_DEVICE_DOCUMENT, decode, encode
from protocol.device import DeviceDocument, Pin, Settings
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import ModelName, label_key, split_device_id

_ENVELOPE = 0.7
"""Share of the limit that a document may have: its signed envelope is a third larger."""


def relabelled(device: Device, labels: Mapping[str, str | None]) -> Device:
    """Set labels, or remove those that are None. Raises `InvalidFields`."""
    errors = [error for key in labels if (error := _reserved(key))]
    if errors:
        raise InvalidFields(errors)
    kept = {key: value for key, value in device.labels.items() if key not in labels}
    given = {key: value for key, value in labels.items() if value is not None}
    return _fitting(replace(device, labels={**kept, **given}), "#/labels")


def pinned(device: Device, bundle: BundleRow, until_ms: int | None, now_ms: int) -> Device:
    """Raises `InvalidRequest`: OUT-T104, OUT-T105, OUT-S120."""
    draft = bundle.state == "draft"
    if bundle.state not in ("approved", "revoked"):
        raise InvalidRequest(
            "OUT-T104",
            f"{bundle.reference} is {'a draft' if draft else bundle.state}",
            do=f"an approver runs: outrider model approve {bundle.reference}" if draft else "",
        )
    if bundle.state == "revoked":
        raise InvalidRequest("OUT-T105", bundle.reference)
    if until_ms is not None and until_ms <= now_ms:
        raise InvalidFields([FieldError("#/until", "is in the past")])
    pins = {**device.pins, bundle.model: Pin(bundle.digest, until_ms)}
    return _fitting(replace(device, pins=pins), "#")


def unpinned(device: Device, model: ModelName) -> Device:
    return replace(device, pins={name: pin for name, pin in device.pins.items() if name != model})


def allowed(device: Device, bundle: BundleRow) -> Device:
    """Raise the number of this bundle above what the device noted when it gave it up."""
    state = device.state.models.get(bundle.model) if device.state else None
    note = state.notes.get(bundle.digest) if state else None
    numbers = device.allow.get(bundle.model, {})
    number = max(numbers.get(bundle.digest, 0), note.allow if note else 0) + 1
    allow = {**device.allow, bundle.model: {**numbers, bundle.digest: number}}
    return _fitting(replace(device, allow=allow), "#")


def configured(device: Device, settings: Settings) -> Device:
    """Raises `InvalidFields`, also for ranges that only the protocol's own reader checks."""
    try:
        checked = decode(encode(settings), Settings, limit=MAX_DEVICE_DOCUMENT)
    except PeerError as error:
        raise InvalidFields([FieldError("#", error.why)]) from error
    return _fitting(replace(device, settings=checked), "#")


def _reserved(key: str) -> FieldError | None:
    pointer = "#/labels/" + key.replace("~", "~0").replace("/", "~1")
    try:
        label_key(key)
    except ValueError as error:
        return FieldError(pointer, str(error))
    if key == "id" or key.startswith((FACT, RUNS)):
        return FieldError(pointer, "is written by the control plane")
    return None


def _fitting(device: Device, pointer: str) -> Device:
    """The device, if its document can be signed and sent. Raises `InvalidFields`."""
    try:
        document = DeviceDocument(
            split_device_id(device.id)[0],
            device.id,
            device.version,
            labels=device.labels,
            pins=device.pins,
            allow=device.allow,
            settings=device.settings,
        )
    except ValueError as error:
        raise InvalidFields([FieldError(pointer, str(error))]) from error
    size = len(encode(document))
    if size > MAX_DEVICE_DOCUMENT * _ENVELOPE:
        raise InvalidFields([FieldError(pointer, f"the document would have {size:,} bytes")])
    return device

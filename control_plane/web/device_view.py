"""How a device is shown: what operators said of it, and what it last said of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.store.devices import Device
from protocol.codec import to_wire
from protocol.device import Settings
from protocol.identifiers import DeviceId, Digest
from protocol.problems import problem
from protocol.reported import ModelState
from protocol.wording import rfc3339

References = Mapping[Digest, str]
"""`model/version` by digest."""


@dataclass(frozen=True, slots=True)
class ShownPin:
    model: str
    version: str | None
    """Null: the bundle is no longer in the catalogue."""
    digest: Digest
    until: str | None


@dataclass(frozen=True, slots=True)
class ShownModel:
    """One model on one device, as it last reported."""

    model: str
    state: str
    """healthy, unexercised, on probation, rolled back, failed, fetching, waiting, no model."""
    runs: str | None
    """`model/version`; null: nothing, or a bundle that is not in the catalogue."""
    digest: Digest | None
    since: str | None
    heads_for: str | None
    target: Digest | None
    origin: str
    rollout: str | None
    why: str | None
    """Problem code of what holds it back or what went wrong last."""
    detail: str


@dataclass(frozen=True, slots=True)
class ShownDevice:
    id: DeviceId
    name: str
    labels: dict[str, str]
    enrolled: str
    last_contact: str | None
    models: list[ShownModel]
    pins: list[ShownPin]
    retired: str | None
    """When it left the fleet; null as long as it is in."""


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """The signed document. `read`: the version that the device says it has read."""

    version: int
    published: int
    read: int
    since: int
    allow: dict[str, dict[Digest, int]]
    settings: Settings
    certificate: str | None


@dataclass(frozen=True, slots=True)
class DeviceDetails:
    device: ShownDevice
    document: ShownDocument
    reported: dict[str, Any] | None
    """The whole state as the device sent it; null until it was heard."""


def shown(device: Device, references: References) -> ShownDevice:
    states = device.state.models if device.state else {}
    return ShownDevice(
        device.id,
        device.local,
        device.labels,
        rfc3339(device.enrolled_ms),
        rfc3339(device.last_contact_ms) if device.last_contact_ms else None,
        [_model(name, state, references) for name, state in sorted(states.items())],
        [
            ShownPin(model, _version(references.get(pin.digest)), pin.digest, _moment(pin.until))
            for model, pin in sorted(device.pins.items())
        ],
        _moment(device.retired_ms),
    )


def details(device: Device, references: References) -> DeviceDetails:
    return DeviceDetails(
        shown(device, references),
        ShownDocument(
            device.version,
            device.published,
            device.state.document_version if device.state else 0,
            device.since,
            device.allow,
            device.settings,
            device.certificate,
        ),
        to_wire(device.state) if device.state else None,
    )


def word(state: ModelState) -> str:
    """One word for people: what is wrong comes before what goes on, that before what is fine."""
    note = state.notes.get(state.target) if state.target else None
    last = state.last
    if state.serving is None:
        return "no model" if state.phase == "idle" else state.phase
    if state.answering != "model":
        return "rules answer" if state.answering == "rules" else "refuses"
    if note is not None and note.reason and note.definite:
        return "rolled back" if note.activated else "failed"
    if last is not None and last.reason == problem("superseded").code:
        last = None  # replaced, by an abort for instance: nobody's failure
    if last is not None and last.digest != state.serving and last.digest in state.notes:
        if last.result == "rolled_back":
            return "rolled back"
        if last.result == "rejected":
            return "rolled back" if state.notes[last.digest].activated else "failed"
    if state.phase == "probation":
        return "on probation"
    if state.phase != "idle":
        return state.phase
    return "unexercised" if state.committed_unexercised else "healthy"


def _model(name: str, state: ModelState, references: References) -> ShownModel:
    why, detail = state.waiting, state.waiting_detail
    ended = ("rolled back", "failed", "rules answer", "refuses")
    if why is None and word(state) in ended and state.last is not None:
        why, detail = state.last.reason, state.last.detail
    return ShownModel(
        name,
        word(state),
        references.get(state.serving) if state.serving else None,
        state.serving,
        _moment(state.since_ms or None),
        references.get(state.target) if state.target else None,
        state.target,
        state.origin,
        state.rollout,
        why,
        detail,
    )


def _version(reference: str | None) -> str | None:
    return reference.partition("/")[2] if reference else None


def _moment(at_ms: int | None) -> str | None:
    return rfc3339(at_ms) if at_ms is not None else None

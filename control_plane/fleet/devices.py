"""From a device's row to the document that is signed for it."""

from __future__ import annotations

from collections.abc import Iterable

from control_plane.store.devices import RUNS, Device
from protocol.device import DeviceDocument
from protocol.identifiers import Digest, FleetName, ModelName
from protocol.selector import Selector


def document_of(fleet: FleetName, device: Device) -> DeviceDocument:
    """Labels contain the facts and the `runs/` labels that the control plane has copied there."""
    return DeviceDocument(
        fleet,
        device.id,
        device.version,
        device.since,
        device.labels,
        device.pins,
        device.allow,
        device.certificate,
        device.settings,
    )


def is_pinned(device: Device, model: ModelName, now_ms: int) -> bool:
    pin = device.pins.get(model)
    return pin is not None and (pin.until is None or now_ms < pin.until)


def has_committed(device: Device, model: ModelName, bundle: Digest) -> bool:
    """Whether it last reported this bundle as proven on it."""
    reported = device.state.models.get(model) if device.state else None
    return reported is not None and reported.current == bundle


def asked_runs(selector: Selector | None) -> frozenset[ModelName]:
    """Models whose running version a selector asks for (`runs.m`)."""
    if selector is None:
        return frozenset()
    label = selector.label or ""
    own = {label.removeprefix(RUNS)} if label.startswith(RUNS) else set()
    return frozenset(own).union(*(asked_runs(child) for child in selector.of))


def with_runs(device: Device, running: Iterable[tuple[ModelName, str | None]]) -> dict[str, str]:
    """Its labels with what it runs, `(model, version)`; no label where it runs nothing known."""
    told = dict(running)
    kept = {k: v for k, v in device.labels.items() if k.removeprefix(RUNS) not in told}
    return {**kept, **{RUNS + model: version for model, version in told.items() if version}}

"""Names in paths to what they name; a name that is not known is answered with a similar one."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.fleet.leaving import require_member
from control_plane.store.bundles import BundleRow
from control_plane.store.devices import Device
from control_plane.store.rollouts import Rollout
from control_plane.web.parts import Parts
from control_plane.web.problems import FieldError, InvalidFields
from control_plane.web.unknown import unknown
from protocol.identifiers import Digest, model_version

_PAGE = 500


def device_of(parts: Parts, name: str) -> Device:
    """By local name or full id. Raises `InvalidRequest` OUT-S110."""
    found = parts.store.devices.get(name)
    if found is None:
        raise unknown("device", name, (device.local for device in parts.store.devices.all()))
    return found


def member_of(parts: Parts, name: str) -> Device:
    """Like `device_of`, of those in the fleet. Raises `InvalidRequest` OUT-S110, OUT-A212."""
    return require_member(device_of(parts, name))


def known_model(parts: Parts, name: str) -> str:
    """Raises `InvalidRequest` OUT-S110."""
    models = parts.store.bundles.models()
    if name not in models:
        raise unknown("model", name, models)
    return name


def bundle_of(parts: Parts, reference: str, pointer: str = "?version") -> BundleRow:
    """By `model/version`. Raises `InvalidRequest`: OUT-S120 for another form, OUT-S110."""
    try:
        model, version = model_version(reference)
    except ValueError as error:
        raise InvalidFields([FieldError(pointer, str(error))]) from error
    found = parts.store.bundles.version(known_model(parts, model), version)
    if found is None:
        versions = (bundle.version for bundle in bundles(parts, model))
        raise unknown(f"version of {model}", version, versions)
    return found


def bundles(parts: Parts, model: str | None = None) -> Iterator[BundleRow]:
    """All of a model, or of all models; newest first within each."""
    after = None
    while True:
        found = parts.store.bundles.page(model, after, _PAGE)
        yield from found.items
        after = found.after
        if after is None:
            return


def rollout_of(parts: Parts, name: str) -> Rollout:
    """By id ("digits-7"). Raises `InvalidRequest` OUT-S110."""
    found = parts.store.rollouts.get(name)
    if found is None:
        near = parts.store.rollouts.page(limit=_PAGE).items
        raise unknown("rollout", name, (rollout.id for rollout in near))
    return found


def references(parts: Parts) -> dict[Digest, str]:
    """`model/version` of every bundle, to show digests by."""
    return {bundle.digest: bundle.reference for bundle in bundles(parts)}

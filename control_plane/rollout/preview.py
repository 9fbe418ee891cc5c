"""What a rollout would do, before it does anything: devices, waves, bytes, what can be seen.

`preview` reads the store and puts together what the pure functions below it say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from control_plane.encode.making import Ability
from control_plane.encode.offering import chosen
from control_plane.fleet import grammar
from control_plane.rollout.checking import (
    as_running,
    chosen_of,
    find,
    in_the_way,
    over_of,
    refuse_hasty_silence,
    usable,
    version_of,
)
from control_plane.rollout.evidence import Terms
from control_plane.rollout.foresight import foresee
from control_plane.rollout.spec import RolloutSpec
from control_plane.rollout.starting import Salt, new_salt
from control_plane.rollout.travel import Having, Library, Read, travel
from control_plane.rollout.wanted import stables
from control_plane.rollout.waves import Layout, Target, check_names, lay_out, wave_of
from control_plane.store import Store
from control_plane.store.devices import Device
from protocol.approval import Approvals
from protocol.errors import OutriderError
from protocol.identifiers import DeviceId, Digest, ModelName
from protocol.payload import PLAIN_FEATURES, HintEntry, features_named
from protocol.reported import ModelState
from protocol.selector import matches
from protocol.wording import rfc3339

SITE: Final = "site"
"""Label by which waves are shown where no wave says `per`."""
MONTH_MS: Final = 30 * 86_400_000
MOST_SITES: Final = 50
"""Per wave; the largest are shown."""
_ON_DISK: Final = frozenset({"staged", "probing", "standby", "probation"})


def preview(
    store: Store,
    spec: RolloutSpec,
    approvals: Approvals,
    now_ms: int,
    salt: Salt = new_salt,
    *,
    read: Read | None = None,
    terms: Terms | None = None,
) -> dict[str, Any]:
    """What `start_rollout` would do now, as JSON values. Changes nothing.

    `read` gives stored indexes and manifests; without it nobody knows what will travel. `terms`
    are those of an earlier rollout of the model: how much scores scatter. Raises what
    `start_rollout` raises, but not OUT-R201: other rollouts in the way are listed.
    """
    bundle = usable(store, spec.model, spec.version)
    selector = grammar.parse(spec.to)
    everybody = store.devices.all()
    check_names(spec.waves, {device.local for device in everybody})
    devices = [as_running(store, device, selector) for device in everybody]
    chosen = chosen_of(devices, spec, selector, bundle.digest, approvals, now_ms)
    if spec.supersedes is not None:
        find(store, spec.supersedes)
    refuse_hasty_silence(chosen.targets, spec)
    drawn = salt()
    targets = [Target(device.id, device.selectable) for device in chosen.targets]
    layout = lay_out(spec, targets, drawn)
    silent_ms = int(spec.silent_after_s * 1000)
    linked = {d.id for d in chosen.targets if _heard(d, now_ms - silent_ms)}
    label = _label(layout.spec, chosen.targets)
    return {
        "model": spec.model,
        "version": spec.version,
        "over": version_of(store, over_of(store, spec.model, chosen.targets)),
        "to": grammar.format(selector),
        "matched": len(chosen.targets) + sum(chosen.excluded.values()),
        "targeted": len(chosen.targets),
        "excluded": chosen.excluded,
        "linked": {
            "now": len(linked),
            "within_30_days": sum(
                device.id not in linked and _heard(device, now_ms - MONTH_MS)
                for device in chosen.targets
            ),
            "not": sum(
                device.id not in linked and not _heard(device, now_ms - MONTH_MS)
                for device in chosen.targets
            ),
        },
        "held": layout.held,
        "by": label,
        "waves": waves_shown(layout, targets, drawn, label, linked, now_ms),
        "bundle_size_bytes": bundle.size_bytes,
        **_bytes(store, spec.model, bundle.digest, chosen.targets, read),
        "returns": _returns(store, spec.model, chosen.targets),
        "in_the_way": [
            {"rollout": other.id, "devices": shared}
            for other, shared in in_the_way(store, spec.model, chosen.targets)
            if other.id != spec.supersedes
        ],
        **foresee(layout, len(targets), terms),
    }


# --- waves ----------------------------------------------------------------------------------------


def waves_shown(
    layout: Layout,
    targets: Sequence[Target],
    salt: str,
    label: str | None,
    linked: Iterable[DeviceId],
    now_ms: int,
) -> list[dict[str, Any]]:
    """Each wave: how many devices with those before it, how many more, where, and not before when.

    `earliest`: if every verdict is *pass* as soon as the soak is over, and people do not wait.
    """
    here = frozenset(linked)
    more: Counter[int] = Counter()
    reachable: Counter[int] = Counter()
    sites: dict[int, Counter[str]] = {n: Counter() for n in range(1, len(layout.waves) + 1)}
    for each in targets:
        number = wave_of(layout.waves, salt, each.device, each.labels, holdback=layout.holdback)
        if number is None:
            continue
        more[number] += 1
        reachable[number] += each.device in here
        if label is not None:
            sites[number][each.labels.get(label, "")] += 1
    shown, begins_s = [], 0.0
    for number, planned in enumerate(layout.waves, start=1):
        spec = layout.spec.waves[number - 1]
        shown.append(
            {
                "wave": number,
                "devices": planned.devices,
                "more": more[number],
                "linked": reachable[number],
                "sites": dict(sites[number].most_common(MOST_SITES)),
                "soak_seconds": layout.spec.soak_of(number),
                "approve": spec.approve,
                "earliest": rfc3339(now_ms + int(begins_s * 1000)),
            }
        )
        begins_s += layout.spec.soak_of(number)
    return shown


def _label(spec: RolloutSpec, targets: Iterable[Device]) -> str | None:
    per = next((wave.per for wave in spec.waves if wave.per), None)
    return per or (SITE if any(SITE in device.labels for device in targets) else None)


def _heard(device: Device, since_ms: int) -> bool:
    return device.last_contact_ms is not None and device.last_contact_ms >= since_ms


# --- bytes ----------------------------------------------------------------------------------------


def _bytes(
    store: Store, model: ModelName, bundle: Digest, targets: Iterable[Device], read: Read | None
) -> dict[str, Any]:
    made: dict[Digest, list[HintEntry]] = {}
    for each in store.payloads.of_model(model):
        made.setdefault(each.file, []).append(each.entry)
    kinds = [Ability(PLAIN_FEATURES | features) for features in store.devices.abilities()]
    offered = {file: chosen(entries, kinds) for file, entries in made.items()}
    try:
        theirs = (having(device, model) for device in targets)
        found = travel(bundle, Library(read), offered, theirs) if read else None
    except (KeyError, OutriderError):
        found = None  # a bundle that is not whole here: its size is all that is known
    if found is None:
        return {"published_bytes": None, "received_bytes": None, "received": [], "payloads": []}
    return {
        "published_bytes": found.published_bytes,
        "received_bytes": found.received_bytes,
        "estimated": found.estimated,
        "received": [
            {
                "base": version_of(store, each.base),
                "devices": each.devices,
                "bytes_each": each.bytes_each,
            }
            for each in found.received
        ],
        "payloads": [
            {
                "file": each.file,
                "payload": each.payload,
                "base": each.base,
                "size_bytes": each.size_bytes,
                "devices": each.devices,
            }
            for each in found.payloads
        ],
    }


def having(device: Device, model: ModelName) -> Having:
    """What it reported to be, to decode, and to have in its slots of all models."""
    state = device.state
    if state is None:
        return Having()
    bundles = frozenset[Digest]().union(*map(on_disk, state.models.values()))
    mine = state.models.get(model)
    features = PLAIN_FEATURES | features_named(state.features)
    return Having(state.facts, bundles, mine.serving if mine else None, features)


def on_disk(state: ModelState) -> frozenset[Digest]:
    """Bundles of one model that a device has whole, as far as it said."""
    there = {state.current, state.previous, state.serving}
    if state.phase in _ON_DISK:
        there.add(state.target)
    return frozenset(each for each in there if each is not None)


def _returns(store: Store, model: ModelName, targets: Iterable[Device]) -> dict[str, int]:
    """What is stable for a device, if it had to return: on its disk, to be downloaded, nothing."""
    rules = stables(store, model)
    found = {"on_disk": 0, "download": 0, "nothing": 0}
    for device in targets:
        stable = next((r.digest for r in rules if matches(r.selector, device.selectable)), None)
        state = device.state.models.get(model) if device.state else None
        if stable is None:
            found["nothing"] += 1
        else:
            found["on_disk" if state and stable in on_disk(state) else "download"] += 1
    return found

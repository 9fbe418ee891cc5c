"""How devices leave a fleet, and what takes their place."""

from __future__ import annotations

import re
from typing import Final

from control_plane.store import Store
from control_plane.store.devices import FACT, RUNS, Device
from protocol.errors import InvalidRequest

RETIRED: Final = "retired"
"""Reason of its certificates' revocation."""
_MOST: Final = 1000
_LENGTH: Final = 31
_NUMBERED: Final = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{1,3})")


def retire(store: Store, device: Device, now_ms: int, *, who: str, why: str) -> bool:
    """Take a device out for good; whether it was in. What follows from it others do when they see
    it: the revocation list, the withdrawn document, rollouts that go on without it."""
    with store.write():
        if not store.devices.retire(device.id, now_ms):
            return False
        revoked = store.certificates.revoke(device.id, now_ms, RETIRED)
        about = {"device": device.id, "certificates": revoked}
        topic = f"devices/{device.local}"
        before = {"labels": device.labels, "pins": device.pins}
        store.happened(who, topic, "device.retired", about, now_ms, before=before, why=why)
        return True


def require_member(device: Device) -> Device:
    """The device, unless it is retired. Raises `InvalidRequest` OUT-A212."""
    if device.retired_ms is not None:
        raise InvalidRequest("OUT-A212", f"{device.local} is no device of the fleet any more")
    return device


def inherited(device: Device) -> dict[str, str]:
    """Labels for what takes its place: not those that only tell what it was itself."""
    return {k: v for k, v in device.labels.items() if not k.startswith((FACT, RUNS))}


def next_name(store: Store, device: Device) -> str:
    """A free name that shows whose place it takes: "cam-3", "cam-3-2", "cam-3-3".

    Raises `InvalidRequest` OUT-A203 when none is free.
    """
    stem = device.local
    found = _NUMBERED.fullmatch(stem)
    if found is not None:
        before = store.devices.get(found["stem"])
        # Only if it was itself a replacement: the 3 of "cam-3" is part of its name.
        if before is not None and before.retired_ms is not None:
            stem = found["stem"]
    for number in range(2, _MOST):
        ending = f"-{number}"
        name = stem[: _LENGTH - len(ending)] + ending
        if store.devices.get(name) is None:
            return name
    raise InvalidRequest("OUT-A203", f"no name like {stem} is free", do="give one with --name")

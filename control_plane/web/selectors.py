"""Selector text of a request to a choice of devices."""

from __future__ import annotations

from collections.abc import Callable

from control_plane.fleet.grammar import parse
from control_plane.store.devices import RUNS, Device
from control_plane.web.lookup import references
from control_plane.web.parts import Parts
from protocol.selector import matches


def chooser(parts: Parts, text: str | None) -> Callable[[Device], bool] | None:
    """None: every device. Raises `SelectorUnreadable` (OUT-S101).

    `runs.digits = v1` asks what a device last reported to run. In the signed plans of rollouts
    it becomes a label instead, since devices know only those.
    """
    selector = parse(text) if text and text.strip() else None
    if selector is None:
        return None
    named = references(parts)

    def chosen(device: Device) -> bool:
        states = device.state.models if device.state else {}
        runs = {
            RUNS + model: named[state.serving].partition("/")[2]
            for model, state in states.items()
            if state.serving in named
        }
        return matches(selector, {**device.selectable, **runs})

    return chosen

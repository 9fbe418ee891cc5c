"""Why a device cannot take part in a rollout: in a few words, so that many devices add up."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from control_plane.rollout.plan import SHADOW, WINDOW
from control_plane.rollout.spec import RolloutSpec
from protocol.bundle import Facts, Needs, release

HARDWARE: Final = "other hardware"
ONNXRUNTIME: Final = "old onnxruntime"
AGENT: Final = "old agent"
RAM: Final = "too little RAM"
WINDOWS: Final = "agent without maintenance windows"
SHADOWS: Final = "agent without shadow mode"


def features_of(spec: RolloutSpec) -> frozenset[str]:
    """What an agent must know to do what the spec asks; it refuses the plan without."""
    used = ((WINDOW, bool(spec.maintenance_windows)), (SHADOW, spec.shadow is not None))
    return frozenset(name for name, asked in used if asked)


def why_unfit(
    needs: Needs, wanted: Collection[str], facts: Facts, features: Collection[str]
) -> str | None:
    """The first reason, or None. What a device has not said yet is not held against it.

    `needs` of the bundle and `facts` of the device; `wanted` and `features` are names of what
    its agent must know, and does.
    """
    if facts != Facts():
        if needs.arch and facts.arch not in needs.arch:
            return HARDWARE
        if release(facts.onnxruntime) < release(needs.onnxruntime):
            return ONNXRUNTIME
        if release(facts.agent) < release(needs.agent):
            return AGENT
        if facts.ram_bytes < needs.ram_bytes:
            return RAM
    if features:
        if WINDOW in wanted and WINDOW not in features:
            return WINDOWS
        if SHADOW in wanted and SHADOW not in features:
            return SHADOWS
    return None

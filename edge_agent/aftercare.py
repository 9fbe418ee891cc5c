"""Looks after what was committed: one look at its runner's counts now and then, for good. Pure but
for the looks themselves, which come in as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Final

from edge_agent.disk import Installed
from edge_agent.watch import health
from edge_agent.watch.health import Baseline, Fault
from edge_agent.watch.lately import Lately
from protocol.identifiers import Digest
from protocol.telemetry import InferenceWindow

LOOK_S: Final = 2.0
"""Between two looks."""


@dataclass(slots=True)
class Watched:
    """A committed bundle, and what is known of its recent past. Losing it delays, no more."""

    digest: Digest
    runner: str | None = None
    looked_s: float = -inf
    lately: Lately = Lately()
    deaths: tuple[float, ...] = ()
    """Monotonic times at which runners died of it."""
    fault: Fault | None = None
    compared: Fault | None = None
    """What the last comparison with the version before found."""
    triggers: dict[str, str] = field(default_factory=dict)


def died(watched: Watched, bundles: Iterable[Digest], now_s: float) -> None:
    """Take note of runners' deaths, and forget those of long ago."""
    recent = [at_s for at_s in watched.deaths if now_s - at_s < health.DEATHS_S]
    watched.deaths = (*recent, *(now_s for bundle in bundles if bundle == watched.digest))


def look(
    watched: Watched,
    found: Installed,
    runner: str | None,
    peek: Callable[[str], InferenceWindow | None],
    baseline: Callable[[], Baseline | None],
    now_s: float,
) -> None:
    """Judge what the runner (None: none serves) has counted lately. `baseline` is asked only where
    the policy compares with the version before."""
    policy = found.policy
    if runner != watched.runner:
        watched.runner, watched.lately, watched.compared = runner, Lately(), None
        watched.looked_s = -inf
    window = None
    if runner is not None and now_s - watched.looked_s >= LOOK_S:
        window, watched.looked_s = peek(runner), now_s
    if window is not None:
        watched.lately = watched.lately.saw(window, now_s)
        before = baseline() if health.compares(policy) else None
        watched.triggers = health.standing(window, before, policy, committed=True)
        watched.lately, block = watched.lately.block(window)
        if block is not None and before is not None:
            watched.compared = health.judge_block(block, before, found.contract.classes, policy)
    fault = health.judge_lately(watched.lately, watched.deaths, policy, now_s) or watched.compared
    told = watched.fault
    if fault is None or told is None or fault.trigger != told.trigger:
        # While it lasts it is told once, not again with every request.
        watched.fault = fault

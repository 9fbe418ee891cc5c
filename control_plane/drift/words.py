"""Words of the drift service: what is said of a device or a cohort, and of an alarm."""

from __future__ import annotations

from typing import Final, Literal, get_args

Verdict = Literal[
    "sensor broken",
    "device drifted",
    "cohort drifted",
    "half of the cohort drifted",
    "no drift",
    "not enough data",
]

Kind = Literal["detector", "peer", "cohort", "part"]
"""What found it: a device's own detectors over time, its peers, all devices of a cohort against the
reference, or a cohort that fell apart in two."""

State = Literal["open", "acknowledged", "snoozed", "resolved"]

VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
STATES: Final[tuple[State, ...]] = get_args(State)

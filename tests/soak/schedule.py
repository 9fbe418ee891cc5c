"""What happens in one soak run, as data made from one number: wishes of people, and faults.

Pure. Every fault has an end within the schedule, so whatever it broke is whole again afterwards:
`moves` is the order of play. Faults of one lane never overlap, since nobody stops a process that
is already dead; faults of different lanes do, and that is the point.

What is promised to survive is one damaged file at a time ("two corrupt files" is not established),
so a schedule damages at most one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

FaultKind = Literal[
    "kill supervisor",
    "kill runner",
    "kill control plane",
    "kill broker",
    "stop supervisor",
    "stop runner",
    "stop broker",
    "stop control plane",
    "cut cable",
    "noise",
    "disk full",
    "clock jump",
    "damage member",
    "damage journal",
    "damage trust",
    "damage marks",
    "damage document",
    "damage outbox",
]
WishKind = Literal["roll out", "pin", "unpin", "abort", "deny", "revoke"]

LANES: Final[Mapping[FaultKind, str]] = {
    "kill supervisor": "supervisor",
    "kill runner": "runner",
    "kill control plane": "control plane",
    "kill broker": "broker",
    "stop supervisor": "supervisor",
    "stop runner": "runner",
    "stop broker": "broker",
    "stop control plane": "control plane",
    "cut cable": "cable",
    "noise": "messages",
    "disk full": "disk",
    "clock jump": "clock",
    "damage member": "files",
    "damage journal": "files",
    "damage trust": "files",
    "damage marks": "files",
    "damage document": "files",
    "damage outbox": "files",
}
WEIGHTS: Final[Mapping[FaultKind, int]] = {
    kind: 1 if lane == "files" else 3 for kind, lane in LANES.items()
}
LASTS_S: Final[Mapping[FaultKind, tuple[float, float]]] = {
    # Of a kill: until whoever starts it again does.
    "kill supervisor": (0.1, 2.5),
    "kill runner": (0.0, 0.0),
    "kill control plane": (0.1, 2.0),
    "kill broker": (0.0, 0.0),
    # A runner that does not answer for 2 s is replaced here (`tests.soak.agent`).
    "stop supervisor": (0.1, 4.0),
    "stop runner": (0.1, 4.0),
    "stop broker": (0.1, 5.0),
    "stop control plane": (0.1, 4.0),
    "cut cable": (0.2, 6.0),
    "noise": (1.0, 4.0),
    "disk full": (0.5, 5.0),
    "clock jump": (0.5, 5.0),
    "damage member": (0.0, 0.0),
    "damage journal": (0.0, 0.0),
    "damage trust": (0.0, 0.0),
    "damage marks": (0.0, 0.0),
    "damage document": (0.0, 0.0),
    "damage outbox": (0.0, 0.0),
}

STABLE: Final = "v1"
"""What every device has committed when a schedule begins; `BEFORE` it had this one."""
BEFORE: Final = "v0"
GOOD: Final = ("g1", "g2", "g3")
BAD: Final = ("x1", "x2")
"""x1 fails its golden vectors, x2 aborts its runner at the first request."""
FLEETING: Final = "g3"
"""The one that approvers revoke."""

MIN_S: Final = 6.0
MAX_S: Final = 12.0
QUIET_S: Final = 0.3
"""From the begin to the first move, and from the last end to the end."""
FAULTS: Final = (2, 5)
WISHES: Final = (1, 4)
JUMPS: Final = ("to 1970", "20 years forward", "1 hour back")
_TRIES: Final = 50


@dataclass(frozen=True, slots=True)
class Fault:
    at_s: float
    kind: FaultKind
    for_s: float
    salt: int
    """What is left to chance while it is done: which byte, which jump."""

    @property
    def ends_s(self) -> float:
        return self.at_s + self.for_s

    @property
    def lane(self) -> str:
        return LANES[self.kind]

    @property
    def jump(self) -> str:
        return JUMPS[self.salt % len(JUMPS)]


@dataclass(frozen=True, slots=True)
class Wish:
    at_s: float
    kind: WishKind
    version: str = ""
    how: str = ""
    """Of a revocation: what devices do that run the version."""


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    length_s: float
    wishes: tuple[Wish, ...]
    faults: tuple[Fault, ...]

    def lines(self) -> Iterator[str]:
        """For people, in order."""
        told = [
            (w.at_s, " ".join(part for part in ("wish", w.kind, w.version, w.how) if part))
            for w in self.wishes
        ]
        for fault in self.faults:
            text = fault.kind + (f" {fault.jump}" if fault.kind == "clock jump" else "")
            lasting = f" for {fault.for_s:.1f} s" if fault.for_s else ""
            told.append((fault.at_s, text + lasting))
        for at_s, text in sorted(told):
            yield f"{at_s:5.1f} s  {text}"


@dataclass(frozen=True, slots=True)
class Move:
    at_s: float
    what: Literal["begin", "end"]
    fault: Fault


def schedule(seed: int) -> Schedule:
    """The same seed gives the same schedule, in every process."""
    rng = random.Random(seed)
    length_s = round(rng.uniform(MIN_S, MAX_S), 2)
    wishes = tuple(
        sorted(
            (_wish(rng, length_s) for _ in range(rng.randint(*WISHES))),
            key=lambda wish: wish.at_s,
        )
    )
    faults: list[Fault] = []
    for _ in range(rng.randint(*FAULTS)):
        found = _fault(rng, length_s, faults)
        if found is not None:
            faults.append(found)
    return Schedule(seed, length_s, wishes, tuple(sorted(faults, key=lambda fault: fault.at_s)))


def moves(play: Schedule) -> tuple[Move, ...]:
    """Begins and ends in order; a lane's end comes before its next begin."""
    both = [Move(fault.at_s, "begin", fault) for fault in play.faults]
    both += [Move(fault.ends_s, "end", fault) for fault in play.faults]
    # A fault that takes no time still begins before it ends.
    return tuple(sorted(both, key=lambda move: (move.at_s, move.fault.at_s, move.what)))


def _wish(rng: random.Random, length_s: float) -> Wish:
    at_s = round(rng.uniform(QUIET_S, length_s - 2.0), 2)
    kinds: tuple[WishKind, ...] = ("roll out", "pin", "unpin", "abort", "deny", "revoke")
    kind = rng.choices(kinds, (8, 4, 2, 2, 2, 1))[0]
    match kind:
        case "roll out":
            return Wish(at_s, kind, rng.choice((*GOOD, *GOOD, *BAD)))
        case "pin":
            return Wish(at_s, kind, rng.choice((BEFORE, STABLE, *GOOD, *BAD)))
        case "deny":
            return Wish(at_s, kind, rng.choice((*GOOD, *BAD)))
        case "revoke":
            return Wish(at_s, kind, FLEETING, rng.choice(("stop", "fallback", "report")))
    return Wish(at_s, kind)


def _fault(rng: random.Random, length_s: float, others: list[Fault]) -> Fault | None:
    for _ in range(_TRIES):
        kind = rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
        at_s = round(rng.uniform(QUIET_S, length_s - QUIET_S), 2)
        room_s = length_s - QUIET_S - at_s
        for_s = round(min(rng.uniform(*LASTS_S[kind]), room_s), 2)
        fault = Fault(at_s, kind, for_s, rng.getrandbits(32))
        if all(_apart(fault, other) for other in others):
            return fault
    return None


def _apart(one: Fault, other: Fault) -> bool:
    if one.lane != other.lane:
        return True
    if one.lane == "files":
        return False
    # Time in between, for what was broken to be started again.
    return one.ends_s + 1.0 < other.at_s or other.ends_s + 1.0 < one.at_s

"""A rollout at one look, drawn from the API's body."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from control_plane.cli.frames import frame
from control_plane.web.rollouts import Rollout
from protocol.identifiers import digest_of

NOW_MS = 1_795_000_000_000  # 18 Nov 2026 11:06:40 UTC
FUNNEL = ("targeted", "reached", "staged", "activated", "healthy", "unexercised", "failed")
ENDS = ("rolled_back", "silent", "refused", "unlinked")


def counts(*numbers: int, **ends: int) -> dict[str, int]:
    named = dict(zip(FUNNEL, numbers, strict=False))
    return {name: {**named, **ends}.get(name, 0) for name in (*FUNNEL, *ENDS)}


def wave(number: int, state: str, devices: int, counted: Mapping[str, int]) -> dict[str, Any]:
    soak = 86_400.0
    return {
        "wave": number,
        "state": state,
        "devices": devices,
        "soak_seconds": soak,
        "counts": dict(counted),
    }


def rollout(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": "digits-7",
        "model": "digits",
        "version": "v2",
        "over": "v1",
        "candidate": digest_of(b"v2"),
        "to": "all",
        "status": "running",
        "attempt": 1,
        "wave": 1,
        "waves": [
            wave(1, "running", 12, counts(12, 11, 8, 6, 4)),
            wave(2, "waiting", 77, counts(65)),
            wave(3, "waiting", 78, counts(1)),
        ],
        "targeted": 78,
        "excluded": {},
        "verdict": "insufficient",
        "sentence": "6 activated, judged from 10",
        "counts": counts(12, 11, 8, 6, 4),
        "reasons": {},
        "why": "",
        "plan": 34,
        "started": "2026-11-18T10:00:00Z",
        "ended": None,
    }
    body |= changes
    TypeAdapter(Rollout).validate_python(body)
    return body


WHY = "3 of 11 activated devices rolled back; more than 10 % aborts"
FRAMES = {
    "running": (
        rollout(),
        """\
digits-7   digits/v2 over digits/v1   wave 1 of 3, running     11:06:40 UTC
verdict    insufficient: 6 activated, judged from 10
├─ wave 1  targeted 12  reached 11  staged 8  activated 6  healthy 4
│          failed 0  rolled back 0  silent 0  refused 0
├─ wave 2  65 wait for wave 1
└─ wave 3  1 waits for wave 2
""",
    ),
    "what is rare is shown where it happens": (
        rollout(
            over=None,
            waves=[wave(1, "running", 3, counts(3, 3, 3, 3, 1, 1, unlinked=1))],
            sentence="pass so far; soak ends in 6 h 28 min",
            reasons={"OUT-D310": 1, "OUT-D201": 2},
        ),
        """\
digits-7   digits/v2   wave 1 of 1, running                    11:06:40 UTC
verdict    pass so far; soak ends in 6 h 28 min
└─ wave 1  targeted 3  reached 3  staged 3  activated 3  healthy 1
           failed 0  rolled back 0  silent 0  refused 0
           unexercised 1  not linked 1
reasons    2 for OUT-D201, 1 for OUT-D310
""",
    ),
    "paused": (
        rollout(status="paused", why="look first", sentence="", verdict=None, wave=0, waves=[]),
        """\
digits-7   digits/v2 over digits/v1   0 waves, paused          11:06:40 UTC
why        look first
""",
    ),
    "completed": (
        rollout(status="completed", counts=counts(78, 78, 78, 78, 78), pending=0),
        "digits-7  digits/v2  completed  78 of 78 healthy\n",
    ),
    "completed for those that are there": (
        rollout(
            status="completed",
            wave=3,
            counts=counts(78, 70, 70, 70, 70),
            pending=8,
            ended="2026-11-16T18:52:00Z",
        ),
        """\
digits-7   completed for reachable devices, 8 pending      16 Nov 18:52 UTC
└─ wave 3  targeted 78  reached 70  staged 70  activated 70  healthy 70
stable     digits/v2 (plan 34); the 8 get it when they return
""",
    ),
    "aborted by itself": (
        rollout(
            status="aborted",
            verdict="fail",
            sentence=WHY,
            why=WHY,
            reasons={"OUT-D310": 3},
            returning={"confirmed": 6, "of": 8},
            ended="2026-11-18T10:31:02Z",
        ),
        f"""\
digits-7   digits/v2 over digits/v1   aborted by itself        10:31:02 UTC
why        {WHY}
           each for OUT-D310
returning  from their own disk: 6 of 8 confirmed, the others may run it until
           they read the plan
next       outrider device list
""",
    ),
    "aborted by an operator": (
        rollout(
            status="aborted",
            why="class 8 below floor",
            returning={"confirmed": 8, "of": 8},
            ended="2026-11-18T10:31:02Z",
        ),
        """\
digits-7   digits/v2 over digits/v1   aborted                  10:31:02 UTC
why        class 8 below floor
returning  from their own disk: 8 of 8 confirmed
next       outrider device list
""",
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_look_at_a_rollout(name):
    body, lines = FRAMES[name]
    assert "\n".join(frame(body, NOW_MS)) + "\n" == lines
    assert max(map(len, lines.splitlines())) <= 80

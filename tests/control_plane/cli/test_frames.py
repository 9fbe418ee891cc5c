"""A rollout at one look, drawn from the API's body."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from control_plane.cli.frames import frame
from control_plane.web.rollout_view import Rollout
from protocol.identifiers import digest_of

NOW_MS = 1_795_000_000_000  # 18 Nov 2026 11:06:40 UTC
FUNNEL = ("targeted", "reached", "staged", "activated", "healthy", "unexercised", "failed")
ENDS = ("downloading", "rolled_back", "silent", "refused", "unlinked", "excluded")
DIGEST = digest_of(b"record")


def counts(*numbers: int, **ends: int) -> dict[str, int]:
    named = dict(zip(FUNNEL, numbers, strict=False))
    return {name: {**named, **ends}.get(name, 0) for name in (*FUNNEL, *ENDS)}


def wave(
    number: int, state: str, devices: int, counted: Mapping[str, int], **more: Any
) -> dict[str, Any]:
    return {
        "wave": number,
        "state": state,
        "devices": devices,
        "soak_seconds": 86_400.0,
        "approve": False,
        "counts": dict(counted),
        "began": None,
        "ended": None,
        "verdict": None,
        "sentence": "",
        "evidence": None,
        **more,
    }


def score(metric: str, **more: Any) -> dict[str, Any]:
    return {
        "series": f"{metric}/21600",
        "metric": metric,
        "part": None,
        "sign": 1,
        "exposure_seconds": 21_600.0,
        "unit": "ratio",
        "allowed": 1.15,
        "seen": 1.02,
        "role": "guard",
        "state": "within",
        "candidates": 11,
        "controls": 241,
        "candidates_of": 12,
        "controls_of": 295,
        "ln_evidence": -1.0,
        "ln_threshold": 6.9,
        "ln_within": 3.2,
        **more,
    }


NOBODY = {"version": None, "devices": 0, "reporting": 0}
ALL_REACHED = {"devices": 0, "newest": []}


def away(device: str, seconds: float | None) -> dict[str, Any]:
    heard = None if seconds is None else "2026-11-09T10:00:00Z"
    return {"device": device, "last_contact": heard, "silent_seconds": seconds}


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
        "held": 0,
        "excluded": {},
        "verdict": "insufficient",
        "verdict_id": "under_way",
        "sentence": "6 of 12 devices are judged.",
        "evidence": DIGEST,
        "gates": [],
        "counts": counts(12, 11, 8, 6, 4),
        "reasons": {},
        "control": {"version": "v1", "devices": 66, "reporting": 61},
        "soak": None,
        "shadow": None,
        "not_reached": {"devices": 1, "newest": [away("cam-0204", 9 * 86_400.0)]},
        "waits_for": None,
        "why": "",
        "superseded_by": None,
        "plan": 34,
        "started": "2026-11-18T10:00:00Z",
        "ended": None,
    }
    body |= changes
    TypeAdapter(Rollout).validate_python(body)
    return body


def ended(status: str, **changes: Any) -> dict[str, Any]:
    more = {"control": NOBODY, "not_reached": ALL_REACHED, "ended": "2026-11-18T10:31:02Z"}
    return rollout(status=status, **{**more, **changes})


WHY = "3 of 11 devices rolled back: more than the limit of 2 % explains."
APPROVED = {
    "code": "OUT-R205", "wave": 2, "why": "wave 2 waits for a person", "help": "look",
}  # fmt: skip
UNPROVEN = {"code": "OUT-R213", "wave": None, "why": "Not proven: latency.", "help": "look"}
FRAMES = {
    "running": (
        rollout(),
        """\
digits-7   digits/v2 over digits/v1   wave 1 of 3, running     11:06:40 UTC
verdict    insufficient: 6 of 12 devices are judged.
├─ wave 1  targeted 12  reached 11  staged 8  activated 6  healthy 4
│          failed 0  rolled back 0  silent 0  refused 0
│          not reached: cam-0204, heard 9 d ago
├─ wave 2  65 wait for wave 1
└─ wave 3  1 waits for wave 2
control    66 on digits/v1, 61 reporting
""",
    ),
    "scores and a soak": (
        rollout(
            gates=[
                score("latency"),
                score("latency", exposure_seconds=86_400.0, state="open", ln_evidence=2.0),
                score(
                    "confidence", unit="sd", seen=0.012, allowed=0.05, role="watch", state="open"
                ),
                *(
                    score(
                        "class_mix",
                        part=part,
                        sign=sign,
                        seen=seen,
                        state="open",
                        role="watch",
                        ln_evidence=seen,
                    )
                    for part, sign, seen in ((3, -1, 0.9), (4, 1, 1.3))
                ),
                score("error_rate", state="no data", seen=None),
            ],
            soak={"seconds": 86_400.0, "since": "2026-11-18T10:00:00Z", "left_seconds": 23_280.0},
            not_reached=ALL_REACHED,
        ),
        """\
digits-7   digits/v2 over digits/v1   wave 1 of 3, running     11:06:40 UTC
verdict    insufficient: 6 of 12 devices are judged.
├─ wave 1  targeted 12  reached 11  staged 8  activated 6  healthy 4
│          failed 0  rolled back 0  silent 0  refused 0
│          score                seen   allowed  new  control  verdict
│          latency, 1 d       x 1.02    x 1.15   11      241  open
│          confidence, 6 h  0.012 sd  0.050 sd   11      241  open, watched
│          class 4 up, 6 h    x 1.30    x 1.15   11      241  open, watched
│          not judged, not enough traffic so far: error rate
├─ wave 2  65 wait for wave 1
└─ wave 3  1 waits for wave 2
soak       6 h 28 min left of 1 d
control    66 on digits/v1, 61 reporting
""",
    ),
    "what is rare is shown where it happens": (
        rollout(
            over=None,
            attempt=2,
            waves=[
                wave(1, "running", 3, counts(3, 3, 3, 3, 1, 1, unlinked=1, downloading=1)),
            ],
            sentence="Proven so far; soak ends in 6 h.",
            reasons={"OUT-D310": 1, "OUT-D201": 2},
            control=NOBODY,
            soak={"seconds": 60.0, "since": None, "left_seconds": None},
            not_reached={
                "devices": 5,
                "newest": [
                    away("cam-0204", 9 * 86_400.0),
                    away("cam-0300", None),
                    away("cam-0301", None),
                    away("cam-0302", None),
                ],
            },
        ),
        """\
digits-7   digits/v2   wave 1 of 1, running                    11:06:40 UTC
verdict    insufficient: Proven so far; soak ends in 6 h.
attempt    2: devices that gave it up before try again
└─ wave 1  targeted 3  reached 3  staged 3  activated 3  healthy 1
           downloading 1  failed 0  rolled back 0  silent 0  refused 0
           unexercised 1  not linked 1
           not reached: cam-0204, heard 9 d ago; cam-0300, never heard;
           cam-0301, never heard; and 2 more
soak       1 min, from when enough devices have activated
control    no device is left to compare with
reasons    2 for OUT-D201, 1 for OUT-D310
""",
    ),
    "beside the current version": (
        rollout(
            shadow={
                "active": True,
                "rows_wanted": 200,
                "agreement_wanted": 0.95,
                "devices": 12,
                "with_rows": 9,
                "rows": 1_800,
                "agreed": 1_780,
            },
            sentence="",
            verdict=None,
            not_reached=ALL_REACHED,
        ),
        """\
digits-7   digits/v2 over digits/v1   wave 1 of 3, running     11:06:40 UTC
├─ wave 1  targeted 12  reached 11  staged 8  activated 6  healthy 4
│          failed 0  rolled back 0  silent 0  refused 0
├─ wave 2  65 wait for wave 1
└─ wave 3  1 waits for wave 2
shadow     9 of 12 devices compared 200 rows; 1,780 of 1,800 agree (98.9 %),
           wanted 95 %; nothing activates before
control    66 on digits/v1, 61 reporting
""",
    ),
    "waiting for approval": (
        rollout(
            status="paused",
            why="wave 2 waits for a person",
            waits_for=APPROVED,
            verdict="pass",
            sentence="0 of 12 devices failed; rates above 22 % are excluded (95 %).",
            waves=[
                wave(1, "running", 12, counts(12, 12, 12, 12, 12)),
                wave(2, "waiting", 78, counts(66), approve=True),
            ],
            not_reached=ALL_REACHED,
        ),
        """\
digits-7   digits/v2 over digits/v1   wave 1 of 2, paused      11:06:40 UTC
why        wave 2 waits for a person
verdict    pass: 0 of 12 devices failed; rates above 22 % are excluded (95 %).
├─ wave 1  targeted 12  reached 12  staged 12  activated 12  healthy 12
│          failed 0  rolled back 0  silent 0  refused 0
└─ wave 2  66 wait for wave 1, then for approval
control    66 on digits/v1, 61 reporting
next       outrider rollout approve digits-7
""",
    ),
    "unproven at the end": (
        rollout(
            status="paused",
            why="Not proven: latency.",
            waits_for=UNPROVEN,
            verdict="inconclusive",
            sentence="Not proven: latency.",
            waves=[wave(1, "running", 12, counts(12, 12, 12, 12, 12))],
            control=NOBODY,
            not_reached=ALL_REACHED,
        ),
        """\
digits-7   digits/v2 over digits/v1   wave 1 of 1, paused      11:06:40 UTC
verdict    inconclusive: Not proven: latency.
└─ wave 1  targeted 12  reached 12  staged 12  activated 12  healthy 12
           failed 0  rolled back 0  silent 0  refused 0
control    no device is left to compare with
next       outrider rollout explain digits-7
           then: outrider rollout approve digits-7   for its completion
           or:   outrider rollout abort digits-7
""",
    ),
    "paused": (
        rollout(
            status="paused",
            why="look first",
            sentence="",
            verdict=None,
            wave=0,
            waves=[],
            not_reached=ALL_REACHED,
        ),
        """\
digits-7   digits/v2 over digits/v1   0 waves, paused          11:06:40 UTC
why        look first
""",
    ),
    "completed": (
        ended("completed", counts=counts(78, 78, 78, 78, 78), pending=0),
        "digits-7  digits/v2  completed  78 of 78 healthy\n",
    ),
    "completed with some that are not healthy": (
        ended("completed", counts=counts(78, 78, 78, 77, 74, 2, 1, rolled_back=1), pending=0),
        """\
digits-7  digits/v2  completed  74 of 78 healthy
others     unexercised 2  failed 1  rolled back 1
""",
    ),
    "completed for those that are there": (
        ended(
            "completed",
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
        ended(
            "aborted",
            verdict="fail",
            sentence=WHY,
            why=WHY,
            reasons={"OUT-D310": 3},
            returning={"confirmed": 6, "of": 8, "not_linked": 2},
        ),
        f"""\
digits-7   digits/v2 over digits/v1   aborted by itself        10:31:02 UTC
why        {WHY}
           each for OUT-D310
returning  from their own disk: 6 of 8 confirmed, 2 not heard since: may run it
           until they read plan 34
next       outrider rollout explain digits-7
""",
    ),
    "aborted by an operator": (
        ended(
            "aborted",
            why="class 8 below floor",
            evidence=None,
            returning={"confirmed": 8, "of": 8, "not_linked": 0},
        ),
        """\
digits-7   digits/v2 over digits/v1   aborted                  10:31:02 UTC
why        class 8 below floor
returning  from their own disk: 8 of 8 confirmed
next       outrider device list
""",
    ),
    "aborted, and kept where it runs": (
        ended(
            "aborted", why="enough", kept=True, returning={"confirmed": 0, "of": 0, "not_linked": 0}
        ),
        """\
digits-7   digits/v2 over digits/v1   aborted                  10:31:02 UTC
why        enough
kept       devices that run digits/v2 keep it until a later rollout completes
next       outrider rollout explain digits-7
""",
    ),
    "superseded": (
        ended("aborted", why="superseded by digits-8", superseded_by="digits-8"),
        """\
digits-7   digits/v2 over digits/v1   aborted                  10:31:02 UTC
why        superseded by digits-8
next       outrider rollout status digits-8
""",
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_look_at_a_rollout(name):
    body, lines = FRAMES[name]
    assert "\n".join(frame(body, NOW_MS)) + "\n" == lines
    assert max(map(len, lines.splitlines())) <= 80

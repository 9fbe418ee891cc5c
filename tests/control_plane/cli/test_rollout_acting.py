"""What is asked before a rollout goes on, and what is worth another line while it is watched."""

from typing import Any

import pytest

from control_plane.cli.acting import next_of
from control_plane.cli.looking import without_time
from tests.control_plane.cli.test_frames import ALL_REACHED, APPROVED, UNPROVEN, away, rollout

SHADOW = {
    "active": True,
    "rows_wanted": 200,
    "agreement_wanted": 0.95,
    "devices": 12,
    "with_rows": 12,
    "rows": 2_400,
    "agreed": 1_000,
}
NEXT: dict[str, tuple[dict[str, Any], tuple[str, int]]] = {
    "the first wave": ({"wave": 0}, ("Wave 1 touches 12 more devices now.", 12)),
    "a later wave": ({"wave": 1}, ("Wave 2 touches 65 more devices now.", 65)),
    "the last wave of one": ({"wave": 2}, ("Wave 3 touches 1 more device now.", 1)),
    "the end": (
        {"wave": 3, "held": 20},
        ("It completes, also for 20 devices that are held back.", 20),
    ),
    "a shadow that disagrees": (
        {"wave": 1, "shadow": SHADOW, "waits_for": {**UNPROVEN, "wave": 1}},
        ("12 devices of wave 1 may activate it then.", 12),
    ),
    "a shadow of which nothing is asked": (
        {"wave": 1, "shadow": SHADOW},
        ("Wave 2 touches 65 more devices now.", 65),
    ),
    "approval": ({"wave": 1, "waits_for": APPROVED}, ("Wave 2 touches 65 more devices now.", 65)),
}


@pytest.mark.parametrize("name", NEXT)
def test_who_lets_a_rollout_go_on_is_told_how_many_devices_that_touches(name):
    changes, said = NEXT[name]
    assert next_of(rollout(**changes)) == said


def test_that_time_passes_is_not_worth_another_line():
    def shown(left_s: float, silent_s: float, **more: Any) -> dict[str, Any]:
        soak = {"seconds": 60.0, "since": "2026-11-18T10:00:00Z", "left_seconds": left_s}
        quiet = {"devices": 1, "newest": [away("cam-0204", silent_s)]}
        return without_time(rollout(**{"soak": soak, "not_reached": quiet, **more}))

    assert shown(50.0, 10.0) == shown(49.0, 11.0)
    assert shown(50.0, 10.0) != shown(49.0, 11.0, not_reached=ALL_REACHED)
    assert shown(50.0, 10.0) != shown(49.0, 11.0, sentence="7 of 12 devices are judged.")
    assert shown(50.0, 10.0) != shown(49.0, 11.0, soak=None)

"""What wishes come to, and what a control plane may not forget."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.soak.wishes import Known


def known(
    *rollouts: tuple[str, str],
    pin: str | None = None,
    shown: str | None = None,
    denied: frozenset[str] = frozenset(),
    wished: tuple[str, ...] = (),
    denials: frozenset[str] = frozenset(),
    revoked: frozenset[str] = frozenset(),
) -> Known:
    """`rollouts`: version and status, newest first; `pin`, `wished` and `denials` were confirmed,
    `shown` and `denied` are what the control plane has."""
    wisher: Any = SimpleNamespace(pin=pin, rollouts=list(wished), denied=denials, revoked=revoked)
    device = {"device": {"pins": [{"model": "toy", "version": shown}] if shown else []}}
    listed = [
        {
            "id": f"toy-{9 - number}",
            "version": f"toy/{version}",
            "status": status,
            "ended": 9 - number,
        }
        for number, (version, status) in enumerate(rollouts)
    ]
    return Known(wisher, device, listed, set(denied))


@pytest.mark.parametrize(
    "what, wanted",
    [
        (known(), "v1"),
        (known(("g1", "running")), "g1"),
        (known(("g1", "paused")), "g1"),
        (known(("g2", "aborted"), ("g1", "completed")), "g1"),
        (known(("g2", "running"), ("g1", "completed")), "g2"),
        (known(("g2", "completed"), ("g1", "completed")), "g2"),
        (known(("g1", "running"), pin="v0"), "v0"),
        (known(("g1", "running"), pin="g3", revoked=frozenset({"g3"})), "g1"),
        (known(("g1", "completed"), denied=frozenset({"g1"})), "v1"),
    ],
)
def test_a_pin_beats_a_rollout_and_that_what_completed_before_it(what, wanted):
    assert what.wanted() == wanted


def test_what_was_confirmed_must_be_known():
    assert known(pin="g1", shown="g1").forgotten() == ()
    assert known(pin="g1").forgotten()
    assert known(shown="g1").forgotten()
    assert known(("g1", "aborted"), wished=("toy-9",)).forgotten() == ()
    assert known(("g1", "aborted"), wished=("toy-8",)).forgotten()
    assert known(denials=frozenset({"g1"}), denied=frozenset({"g1"})).forgotten() == ()
    assert known(denials=frozenset({"g1"})).forgotten()

"""What a device does about a bundle that was proven here and works no longer: the signed action, or
the best that is left of it. Nothing but `refuse` leaves a device without an answer.
"""

from __future__ import annotations

from typing import Final, Literal

from protocol.members import Action, Policy, Trigger

Remedy = Literal["previous", "fallback", "rules", "refuse", "keep"]
"""`keep`: nothing better is here, so it keeps serving, and says so."""

_ORDER: Final[tuple[Action, ...]] = ("previous", "fallback", "rules")


def remedy(policy: Policy, trigger: Trigger, *, previous: bool, fallback: bool) -> Remedy:
    """`previous`, `fallback`: whether there is a usable one."""
    asked = policy.action(trigger)
    if asked == "refuse":
        return "refuse"
    usable = {"previous": previous, "fallback": fallback, "rules": policy.rules is not None}
    for action in (asked, *_ORDER):
        if usable[action]:
            return action
    return "keep"

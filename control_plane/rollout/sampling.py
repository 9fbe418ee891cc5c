"""Which devices bet in scores: chance chooses, and a second hash is the chance.

The first hash has put each device on its side. The second is independent of it and of everything
that a device does, so the sample is as fair as all of the devices would be, and the work of
judging does not grow with the fleet. Failures and silence count every device.
"""

from __future__ import annotations

import hashlib
from typing import Final

from protocol.identifiers import DeviceId

SCORED_MOST: Final = 5000
"""Devices that bet, per wave and side."""
RESERVE: Final = 2 * SCORED_MOST
"""Devices per wave that are kept to choose from: not all of them are there when it begins."""
SCALED_MOST: Final = 2000
"""Devices from which the scatter of changes is measured before the start."""
ELIGIBLE_MS: Final = 24 * 3_600_000
"""A device bets if it was heard within this time before its wave began."""


def score_place(salt: str, device: DeviceId) -> int:
    """Place of a device among those that may bet, in [0, 2^53): the lowest ones do.

    The top 53 bits of SHA-256("score", NUL, salt, NUL, device id).
    """
    data = b"score\0" + salt.encode("ascii") + b"\0" + device.encode("ascii")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 11

"""Which method writes a block in the fewest bytes.

Everything that applies is tried cheaply, what came near the best is tried again with all effort.
What did badly in the first blocks of a column is left out of the others: the blocks of a column
are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from coding.elements import Array
from coding.methods import (
    DIFF,
    DIFF_SORTED,
    ONE_OF,
    PAIRS,
    PLAIN,
    PLANES,
    RANKS,
    ROTATED,
    SAME,
    SPARSE,
    STEPS,
    TOKENS,
    TOKENS_SORTED,
    VALUES,
    Context,
)
from coding.streams import LZMA_BELOW, Packer
from control_plane.encode.transforms import Window, encode

ROUGH_LEVEL: Final = 3
SMALL: Final = 32 * 1024
"""Bytes of elements up to which every choice gets all effort: there it costs nothing."""
FIRST_BLOCKS: Final = 4
PROBES: Final = 8
PROBE: Final = 128
"""Elements of each piece of a block that is looked for in the base."""
WITH_LZMA: Final = 2
"""The smallest choices, which are tried with lzma as well."""
HOPELESS: Final = 1.3
BEATEN: Final = 1.02
SAME_AGAIN: Final = 0.25
"""Share of elements that are as in the base, from which on OF_FEW are always tried."""
OF_FEW: Final = frozenset({DIFF, SPARSE, PAIRS})


@dataclass(frozen=True, slots=True)
class Effort:
    """`level` of zstd and whether lzma may be used; at most `refine` choices within `near` times
    the smallest rough result are tried with it."""

    level: int = 19
    lzma: bool = True
    refine: int = 3
    near: float = 1.06

    @property
    def packer(self) -> Packer:
        return Packer(self.level, self.lzma)


@dataclass(frozen=True, slots=True)
class Choice:
    """A method, and the part of the base that stands before its stream."""

    method: int
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """What a block became (method byte first), and how many bytes each choice would take."""

    data: bytes
    rough: dict[Choice, int]
    fine: dict[Choice, int]


def choices(context: Context, windows: Sequence[Window] = ()) -> tuple[Choice, ...]:
    """All that are worth a trial, those that are cheaper to decode first."""
    element = context.element
    based = context.base is not None
    methods: list[int] = []
    if based:
        methods.append(SAME)
    methods.append(PLAIN)
    if element.itemsize > 1:
        methods.append(PLANES)
    if element.mantissa:
        methods.append(ROTATED)
    else:
        methods.append(STEPS)
    if not based or not element.mantissa:
        methods.append(VALUES)
    if based:
        methods += [DIFF, TOKENS, SPARSE, PAIRS]
        methods += [DIFF_SORTED, TOKENS_SORTED] if element.mantissa else []
    if context.values is not None:
        methods.append(RANKS)
    if context.group:
        methods.append(ONE_OF)
    plain = [Choice(method) for method in methods]
    return tuple(
        plain
        + [
            Choice(method, window)
            for method in methods
            if method in (PLAIN, PLANES, ROTATED, STEPS)
            for window in windows
        ]
    )


def best(x: Array, context: Context, effort: Effort) -> bytes:
    """Method byte and data of the smallest choice."""
    return trial(x, context, effort, choices(context)).data


def trial(x: Array, context: Context, effort: Effort, tried: Sequence[Choice]) -> Trial:
    """The smallest of `tried`; of equal ones the first."""
    if Choice(SAME) in tried and encode(SAME, x, context, effort.packer) is not None:
        return Trial(bytes([SAME]), {Choice(SAME): 1}, {Choice(SAME): 1})
    rough = {}
    if x.nbytes > SMALL and len(tried) > 1:
        cheap = _written(x, context, Packer(ROUGH_LEVEL), tried)
        rough = {choice: len(data) for choice, data in cheap.items()}
        ranked = sorted(rough, key=lambda choice: rough[choice])
        most = min(rough.values(), default=0) * effort.near
        near = [choice for choice in ranked if rough[choice] <= most][: effort.refine]
        if _mostly_same(x, context):
            # A rough look takes a bit at least for each number, however rarely it differs.
            near += [choice for choice in ranked if choice.method in OF_FEW and choice not in near]
        # Only all effort finds a long run of the base that moved.
        moved = [choice for choice in ranked if is_moved(choice) and choice not in near]
        near += [choice for choice in moved if _is_in_base(x, context, choice.window)]
        tried = near
    written = _fine(x, context, effort, tried)
    if not written:
        # What did well before does not apply to this block.
        written = _fine(x, context, effort, (Choice(PLAIN),))
    fine = {choice: len(data) for choice, data in written.items()}
    return Trial(min(written.values(), key=len), rough or fine, fine)


def _fine(
    x: Array, context: Context, effort: Effort, tried: Sequence[Choice]
) -> dict[Choice, bytes]:
    """Without lzma, and of the smallest with it where the block is worth its time."""
    written = _written(x, context, Packer(effort.level), tried)
    if not effort.lzma or not written:
        return written
    small = x.nbytes <= SMALL
    ranked = sorted(written, key=lambda choice: len(written[choice]))
    packed = _written(x, context, effort.packer, ranked if small else ranked[:WITH_LZMA])
    most = (1 if small else LZMA_BELOW) * len(written[ranked[0]])
    return written | {choice: data for choice, data in packed.items() if len(data) < most}


def promising(trials: Sequence[Trial], tried: Sequence[Choice]) -> tuple[Choice, ...]:
    """Of what was `tried` in some blocks: what may yet be smallest in others of the column."""
    left = []
    for choice in tried:
        hopeless = all(
            choice in each.rough
            and choice not in each.fine
            and each.rough[choice] > HOPELESS * min(each.rough.values())
            for each in trials
        )
        measured = [each for each in trials if choice in each.fine]
        beaten = len(measured) == len(trials) and all(
            each.fine[choice] > BEATEN * len(each.data) for each in measured
        )
        if not hopeless and not beaten:
            left.append(choice)
    return tuple(left) if any(choice.method != SAME for choice in left) else tuple(tried)


def is_moved(choice: Choice) -> bool:
    """Elements as they lie in the base, elsewhere: of trees that stayed, among others that came."""
    return choice.method == PLAIN and choice.window is not None


def _mostly_same(x: Array, context: Context) -> bool:
    base = context.base
    return base is not None and int(np.count_nonzero(x == base)) >= SAME_AGAIN * len(x)


def _is_in_base(x: Array, context: Context, window: Window | None) -> bool:
    """Whether some of a few pieces of `x` lie in that part of the base."""
    if window is None or context.window is None:
        return False
    base = context.window(*window).tobytes()
    starts = np.linspace(0, max(0, len(x) - PROBE), PROBES).astype(int)
    return any(x[start : start + PROBE].tobytes() in base for start in starts)


def _written(
    x: Array, context: Context, packer: Packer, tried: Sequence[Choice]
) -> dict[Choice, bytes]:
    return {
        choice: bytes([choice.method]) + data
        for choice in tried
        if (data := encode(choice.method, x, context, packer, choice.window)) is not None
    }

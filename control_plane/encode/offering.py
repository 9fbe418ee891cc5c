"""Which payloads of a file are offered, and what its hint says: pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, Protocol

from protocol import codec
from protocol.payload import MAX_HINT_ENTRIES, MAX_URLS, PLAIN_FEATURES, Hint, HintEntry

WORTH: Final = 0.95
"""A delta takes at most this share of what travels without one,"""
WORTH_BYTES: Final = 512
"""and is at least this much smaller."""


class Able(Protocol):
    """What a kind of device can decode: `encode.making.Ability`."""

    def grants(self, features: int, memory: int) -> bool: ...


def is_plain(entry: HintEntry) -> bool:
    """Whether every device can decode it, whatever it has."""
    return entry.base is None and not entry.features & ~PLAIN_FEATURES


def worth(size: int, full: int) -> bool:
    """Whether a delta of `size` bytes is offered beside `full` bytes without a base."""
    return size <= min(WORTH * full, full - WORTH_BYTES)


def chosen(entries: Sequence[HintEntry], abilities: Collection[Able]) -> tuple[HintEntry, ...]:
    """Payloads of one file to offer to devices with these abilities, smallest first.

    Per ability the smallest without a base, and every delta that is worth it for somebody. Always
    also the smallest that every device can decode: for those that have not said yet what they
    can, and for those that fail at all others.
    """
    kept = dict.fromkeys(sorted(filter(is_plain, entries), key=_by_size)[:1])
    for ability in abilities:
        usable = [each for each in entries if ability.grants(each.features, each.decode_memory)]
        full = min((each for each in usable if each.base is None), key=_by_size, default=None)
        if full is None:
            continue
        kept[full] = None
        for each in usable:
            if each.base is not None and worth(each.size, full.size):
                kept[each] = None
    return tuple(sorted(kept, key=_by_size))


def hint_of(entries: Sequence[HintEntry], urls: Sequence[str]) -> Hint:
    """The hint of a file whose payloads are also below these addresses, in this order.

    It fits `codec.MAX_HINT`: where it would not, later entries go without addresses; then the
    largest deltas are left out, since those without a base are of use to everybody.
    """
    left, below = list(entries), tuple(urls[:MAX_URLS])
    while len(left) > MAX_HINT_ENTRIES:
        del left[_least_missed(left)]
    with_urls = len(left)
    while True:
        hint = Hint(
            tuple(
                replace(each, urls=below if number < with_urls else ())
                for number, each in enumerate(left)
            )
        )
        if len(codec.encode(hint)) <= codec.MAX_HINT:
            return hint
        if with_urls:
            with_urls -= 1
        else:
            del left[_least_missed(left)]


def _least_missed(entries: Sequence[HintEntry]) -> int:
    """Place of the largest delta; of the largest payload if there is none."""
    return max(range(len(entries)), key=lambda n: (entries[n].base is not None, entries[n].size))


def _by_size(entry: HintEntry) -> tuple[int, str]:
    return entry.size, entry.payload

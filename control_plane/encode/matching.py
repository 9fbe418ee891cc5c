"""Which column of the base each column of the target starts from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from coding.bits import bit_lengths
from coding.elements import difference
from control_plane.encode.columns import Read
from control_plane.encode.segments import Key

SAMPLE: Final = 4_096
"""Elements of which two columns without a common name are compared."""
ALIKE_BELOW: Final = 0.8
"""Of an element's bits: differences that are not shorter on average tell of nothing in common."""
NEAREST: Final = 64
"""Columns of the base that one column is compared with, so that files of thousands stay quick."""


@dataclass(frozen=True, slots=True)
class Match:
    """`base`: the place of the base's column; -1 for "none"."""

    kind: Literal["same", "alike", "other count", "none"]
    base: int = -1


NONE: Final = Match("none")


def match(
    target: Sequence[Read], base: Sequence[Read], nodes: Mapping[Key, Key] | None = None
) -> tuple[Match, ...]:
    """One match per column of the target.

    Equal bytes win over equal keys, and those over columns of the same shape whose numbers are
    near. `nodes` says which node of the base stands for one of the target under another key.
    """
    keys = [_key(read, nodes or {}) for read in target]
    state = _State(target, base, keys, [NONE] * len(target), set())
    state.same()
    state.named()
    state.near()
    return tuple(state.found)


@dataclass(slots=True)
class _State:
    target: Sequence[Read]
    base: Sequence[Read]
    keys: Sequence[Key]
    found: list[Match]
    used: set[int]

    def same(self) -> None:
        """Equal bytes: of the same key, else unused ones, else used ones."""
        contents = [_content(read) for read in self.base]
        named = {}
        places = defaultdict(list)
        for place in reversed(range(len(self.base))):
            named[contents[place], self.base[place].segment.key] = place
            places[contents[place]].append(place)
        wanted = [_content(read) for read in self.target]
        for place, content in enumerate(wanted):
            equal = named.get((content, self.keys[place]))
            if equal is not None and equal not in self.used:
                self._take(place, "same", equal)
        for place, content in enumerate(wanted):
            free = places.get(content)
            if self.found[place] is not NONE or not free:
                continue
            while len(free) > 1 and free[-1] in self.used:
                free.pop()
            self._take(place, "same", free[-1])

    def named(self) -> None:
        """Equal keys: first with as many elements, then with more or fewer."""
        by_count = defaultdict(list)
        by_key = defaultdict(list)
        for place in reversed(range(len(self.base))):
            read = self.base[place]
            key = (read.segment.key, read.kind)
            by_key[key].append(place)
            by_count[key, len(read.values)].append(place)
        for place in self._left():
            read = self.target[place]
            self._first(place, "alike", by_count[(self.keys[place], read.kind), len(read.values)])
        for place in self._left():
            self._first(place, "other count", by_key[self.keys[place], self.target[place].kind])

    def near(self) -> None:
        """Of unused columns of the same shape that with the nearest numbers."""
        alike: dict[Hashable, list[int]] = defaultdict(list)
        for place in range(len(self.base)):
            if place not in self.used:
                alike[_class(self.base[place], self.base[place].segment.key)].append(place)
        for place in self._left():
            read = self.target[place]
            others = alike.get(_class(read, self.keys[place]))
            if not others:
                continue
            some = others[:NEAREST]
            lengths = [_distance(read, self.base[other]) for other in some]
            nearest = int(np.argmin(lengths))
            if lengths[nearest] < ALIKE_BELOW * read.element.bits:
                others.pop(nearest)
                self._take(place, "alike", some[nearest])

    def _left(self) -> list[int]:
        return [place for place, match in enumerate(self.found) if match is NONE]

    def _first(self, place: int, kind: Literal["alike", "other count"], among: list[int]) -> None:
        """The first one that is unused, else the last that was used."""
        while len(among) > 1 and among[-1] in self.used:
            among.pop()
        if among:
            self._take(place, kind, among[-1])

    def _take(self, place: int, kind: Literal["same", "alike", "other count"], base: int) -> None:
        self.found[place] = Match(kind, base)
        self.used.add(base)


def _key(read: Read, nodes: Mapping[Key, Key]) -> Key:
    key = read.segment.key
    return (*nodes[key[:-1]], key[-1]) if key[:-1] in nodes else key


def _content(read: Read) -> Hashable:
    """Equal for columns of equal bytes and form: each element has one way to be written."""
    values = np.ascontiguousarray(read.values).view(np.uint8)
    return read.kind, read.names, hashlib.sha256(values.data).digest()


def _class(read: Read, key: Key) -> Hashable:
    """What columns without a common key need to have in common. Attributes keep their names."""
    part = key[-1] if key[0] != "T" else ""
    return read.kind, len(read.values), read.segment.shape, key[0], part


def _distance(read: Read, base: Read) -> float:
    """Mean bits of the differences."""
    z = difference(read.values[:SAMPLE], base.values[:SAMPLE], read.element)
    return float(bit_lengths(z).mean())

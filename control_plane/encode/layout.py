"""What each byte of a file is made of: copied from the base, told as numbers, derived, or plain.

Equal columns are copied, and the copies grow into the bytes around them as far as those are
equal too; columns of numbers start from the column of the base that matches them; what is left
is plain.

Long because parts, gaps and limits are decided together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from coding import forms
from coding.limits import KIB, MAX_ENSEMBLES, MAX_HELD, MAX_LOADED, MAX_NAMES, MAX_NODES
from coding.trees import MODES
from coding.varint import Buffer
from control_plane.encode import columns
from control_plane.encode.columns import Read
from control_plane.encode.copies import different_blocks, equal_ahead, equal_behind, equal_runs
from control_plane.encode.ensembles import (
    FEATURES,
    Ensemble,
    ensembles,
    modes_in_order,
    pairs,
)
from control_plane.encode.matching import NONE, match
from control_plane.encode.segments import Segment

LEAST_COPY: Final = 24
"""Equal bytes inside of a gap; fewer cost more as a copy of their own."""
SMALL_GAP: Final = 256
"""A gap between numbers has no copies up to here: packed with the base before it, it is cheaper
than a copy for each of its equal runs."""
MOST_RUNS: Final = 256
"""Copies inside of one gap."""
SPLIT_BLOCK: Final = 4 * KIB
SPLIT_EQUAL: Final = 0.95
MOST_SPLITS: Final = 16
"""A column whose blocks nearly all are equal is copied but for that many places."""
LARGEST_PLAIN: Final = 64 * KIB
"""Longer plain parts are columns of opaque bytes."""
MOST_PLAIN: Final = 448 * KIB
MOST_PARTS: Final = 8_000
"""Plain bytes of a file and its other parts: a payload takes few more."""
COARSER: Final = (0, 4 * KIB, 64 * KIB, 1 << 62)
"""Least bytes of a column, raised until a file of very many columns fits."""
MOST_HELD: Final = 2 * MAX_HELD
"""Nodes whose features are held, of all ensembles together."""

Role = Literal["tensor", "threshold", "leaf value", "feature", "other"]


@dataclass(frozen=True, slots=True)
class Plain:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Same:
    """As in the base from `base_start` on."""

    start: int
    end: int
    base_start: int


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """`ensemble` with role "leaf value": `group` numbers per leaf; otherwise 0 at its leaves.

    The base of a column that is 0 at leaves has the nodes of `base_ensemble` and never counts
    as one of the same count. Names of both are the same.
    """

    start: int
    end: int
    read: Read
    base: Read | None = None
    base_same_count: bool = False
    ensemble: int | None = None
    base_ensemble: int | None = None
    role: Role = "other"


@dataclass(frozen=True, slots=True, eq=False)
class DerivedColumn:
    """`column` and `first` as in `coding.ops.Derived`; modes are named (branch, leaf)."""

    start: int
    end: int
    column: int
    ensemble: int
    read: Read
    first: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class HeldColumn:
    """The feature ids of an ensemble."""

    start: int
    end: int
    ensemble: int
    read: Read


Part = Plain | Same | Numbers | DerivedColumn | HeldColumn


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """`parts` cover the file in order, without gaps. Ensembles are those that a part names, and
    of the base those that match them: the first one that of the first that has one."""

    parts: tuple[Part, ...]
    ensembles: tuple[Ensemble, ...] = ()
    base_ensembles: tuple[Ensemble, ...] = ()


def lay_out(
    target: Buffer,
    segments: Sequence[Segment],
    base: Buffer | None = None,
    base_segments: Sequence[Segment] = (),
) -> Layout:
    """How `target` is told, given `base`. `segments` are sorted and disjoint, of each file."""
    layout = Layout(())
    for least in COARSER:
        reads = _reads(target, segments, least)
        base_reads = _reads(base, base_segments, least) if base is not None else ()
        layout = _Laying(target, reads, base, base_reads).layout()
        if _fits(layout):
            break
    return layout


def _reads(data: Buffer, segments: Iterable[Segment], least: int) -> tuple[Read, ...]:
    large = (segment for segment in segments if segment.end - segment.start >= least)
    read = (columns.column(data, segment) for segment in large)
    return tuple(each for each in read if each is not None)


def _fits(layout: Layout) -> bool:
    plain = sum(part.end - part.start for part in layout.parts if isinstance(part, Plain))
    told = sum(not isinstance(part, Plain) for part in layout.parts)
    return plain <= MOST_PLAIN and told <= MOST_PARTS


class _Laying:
    """One file against one base (or none)."""

    def __init__(
        self, target: Buffer, reads: Sequence[Read], base: Buffer | None, base_reads: Sequence[Read]
    ) -> None:
        self._target_data, self._base_data = target, base if base is not None else b""
        self._target = np.frombuffer(self._target_data, np.uint8)
        self._base = np.frombuffer(self._base_data, np.uint8)
        self._reads = reads
        self._base_reads = base_reads
        self._ensembles = _within_limits(ensembles(reads))
        base_ensembles = _within_limits(ensembles(base_reads))
        self._pairs = tuple(
            None if place is None else base_ensembles[place]
            for place in pairs(self._ensembles, base_ensembles)
        )
        together = zip(self._ensembles, self._pairs, strict=True)
        nodes = {own.node: other.node for own, other in together if other is not None}
        self._matches = match(reads, base_reads, nodes)
        self._owner = {
            place: number
            for number, each in enumerate(self._ensembles)
            for place in each.places.values()
        }
        # Where a column that is derived would lie in the base tells where its neighbours do.
        self._expected = {
            read.start: (base_reads[found.base].start, base_reads[found.base].end)
            for read, found in zip(reads, self._matches, strict=True)
            if found is not NONE
        }

    def layout(self) -> Layout:
        parts = [part for place in range(len(self._reads)) for part in self._column(place)]
        parts = list(_joined(self._with_gaps(parts)))
        parts = [self._opaque(parts, place) for place in range(len(parts))]
        return self._numbered(parts)

    def _column(self, place: int) -> Iterator[Part]:
        read, found, number = self._reads[place], self._matches[place], self._owner.get(place)
        if found.kind == "same":
            yield Same(read.start, read.end, self._base_reads[found.base].start)
            return
        base = self._base_reads[found.base] if found is not NONE else None
        if number is not None:
            yield self._of_trees(place, read, base, number)
        elif base is None or found.kind != "alike":
            yield _based(Numbers(read.start, read.end, read, base, role=_role(read)))
        else:
            yield from _alike(read, base, _role(read))

    def _of_trees(self, place: int, read: Read, base: Read | None, number: int) -> Part:
        ensemble, pair = self._ensembles[number], self._pairs[number]
        start, end = read.start, read.end
        if (derived := ensemble.derived.get(place)) is not None:
            told = modes_in_order(ensemble) if derived.column == MODES else read
            return DerivedColumn(start, end, derived.column, number, told, derived.first)
        if ensemble.features is read:
            return HeldColumn(start, end, number, read)
        role: Role = "feature" if place == ensemble.places.get(FEATURES) else "other"
        if place in ensemble.masked:
            if role == "other" and read.element.mantissa:
                role = "threshold"
            if pair is None or base not in pair.columns or len(base.values) != len(pair.leaves):
                return Numbers(start, end, read, ensemble=number, role=role)
            return _based(Numbers(start, end, read, base, False, number, number, role))
        same_count = base is not None and len(base.values) == len(read.values)
        if place in ensemble.leaf_values:
            return _based(Numbers(start, end, read, base, same_count, number, role="leaf value"))
        return _based(Numbers(start, end, read, base, same_count, role=role))

    def _with_gaps(self, parts: Sequence[Part]) -> Iterator[Part]:
        at, before = 0, None
        for after in (*parts, None):
            end = after.start if after else len(self._target)
            if at < end:
                yield from self._gap(at, end, before, after)
            if after:
                yield after
                at, before = after.end, after

    def _gap(self, start: int, end: int, before: Part | None, after: Part | None) -> Iterator[Part]:
        """What lies between two columns: copies from where it would lie in the base, and plain."""
        base_start, base_end = self._base_end(before), self._base_start(after)
        # Next to a copy every equal byte is for nothing; elsewhere it takes a copy of its own.
        least = LEAST_COPY if end - start >= SMALL_GAP else end - start + 1
        ahead = behind = 0
        # What begins with the length of a message ends like the base, not the other way round.
        if base_end is not None:
            behind = equal_behind(self._target, end, self._base, base_end, end - start)
            behind = behind if isinstance(after, Same) or behind >= least else 0
        if base_start is not None:
            most = end - start - behind
            ahead = equal_ahead(self._target, start, self._base, base_start, most)
            ahead = ahead if isinstance(before, Same) or ahead >= least else 0
        first, last = start + ahead, end - behind
        if ahead:
            yield Same(start, first, base_start or 0)
        shifts = [
            shift
            for shift in (
                None if base_start is None else base_start - start,
                None if base_end is None else base_end - end,
            )
            if shift is not None
        ]
        yield from self._inside(first, last, shifts if end - start >= SMALL_GAP else [])
        if behind:
            yield Same(last, end, (base_end or 0) - behind)

    def _inside(self, start: int, end: int, shifts: Sequence[int]) -> Iterator[Part]:
        """Equal runs at the first shift, between those at the others."""
        if not shifts:
            if start < end:
                yield Plain(start, end)
            return
        # Places before the beginning of the base have nothing to be compared with.
        first = min(max(start, -shifts[0]), end)
        runs = equal_runs(
            self._target[first:end], self._base[first + shifts[0] :], LEAST_COPY, MOST_RUNS
        )
        at = start
        for run_start, run_end in runs:
            yield from self._inside(at, first + run_start, shifts[1:])
            at = first + run_end
            yield Same(first + run_start, at, first + run_start + shifts[0])
        yield from self._inside(at, end, shifts[1:])

    def _base_end(self, part: Part | None) -> int | None:
        """Where in the base that begins which lies behind `part`."""
        if part is None:
            return 0
        placed = self._placed(part)
        return placed[1] if placed else None

    def _base_start(self, part: Part | None) -> int | None:
        if part is None:
            return len(self._base)
        placed = self._placed(part)
        return placed[0] if placed else None

    def _placed(self, part: Part) -> tuple[int, int] | None:
        if isinstance(part, Same):
            return part.base_start, part.base_start + part.end - part.start
        if isinstance(part, Numbers) and part.base is not None:
            return part.base.start, part.base.end
        return self._expected.get(part.start)

    def _opaque(self, parts: Sequence[Part], place: int) -> Part:
        """A plain part that is too long for one is a column without a meaning."""
        part = parts[place]
        if not isinstance(part, Plain) or part.end - part.start <= LARGEST_PLAIN:
            return part
        first = self._base_end(parts[place - 1] if place else None)
        last = self._base_start(parts[place + 1] if place + 1 < len(parts) else None)
        read = columns.opaque(self._target_data, part.start, part.end)
        if first is None or last is None or first >= last:
            return Numbers(part.start, part.end, read)
        base = columns.opaque(self._base_data, first, last)
        return Numbers(part.start, part.end, read, base, len(base.values) == len(read.values))

    def _numbered(self, parts: Sequence[Part]) -> Layout:
        """With only those ensembles that a part names."""
        named = sorted({number for part in parts if (number := _ensemble_of(part)) is not None})
        numbers = {number: place for place, number in enumerate(named)}
        paired = [number for number in named if self._pairs[number] is not None]
        base_numbers = {number: place for place, number in enumerate(paired)}
        renumbered: list[Part] = []
        for part in parts:
            number = _ensemble_of(part)
            if number is None or isinstance(part, Plain | Same):
                renumbered.append(part)
            elif isinstance(part, Numbers) and part.base_ensemble is not None:
                base_number = base_numbers[part.base_ensemble]
                renumbered.append(
                    replace(part, ensemble=numbers[number], base_ensemble=base_number)
                )
            else:
                renumbered.append(replace(part, ensemble=numbers[number]))
        return Layout(
            tuple(renumbered),
            tuple(self._ensembles[number] for number in named),
            tuple(pair for number in paired if (pair := self._pairs[number]) is not None),
        )


def _within_limits(found: Sequence[Ensemble]) -> tuple[Ensemble, ...]:
    """As many as a payload may name, and features held of as many nodes as it may."""
    kept: list[Ensemble] = []
    nodes = held = 0
    for each in found[:MAX_ENSEMBLES]:
        nodes += len(each.leaves)
        if nodes > MAX_NODES:
            break
        if each.features is not None:
            held += len(each.leaves)
        kept.append(each if held <= MOST_HELD else replace(each, features=None))
    return tuple(kept)


def _role(read: Read) -> Role:
    return "tensor" if read.segment.form == forms.BYTES else "other"


def _based(part: Numbers) -> Numbers:
    """With a base that a device can read beside the column, or without one."""
    read, base = part.read, part.base
    if base is None:
        return part
    sequential = part.base_same_count or read.segment.form in forms.FIXED
    if not sequential and len(base.values) > MAX_LOADED:
        return replace(part, base=None, base_ensemble=None)
    names = tuple(sorted({*read.names, *base.names}))
    if len(names) > MAX_NAMES:
        return replace(part, base=None, base_same_count=False)
    if read.names != base.names:
        return replace(part, read=columns.renamed(read, names), base=columns.renamed(base, names))
    return part


def _alike(read: Read, base: Read, role: Role) -> Iterator[Part]:
    """Copies but for some places, if nearly all is equal; otherwise numbers."""
    whole = Numbers(read.start, read.end, read, base, True, role=role)
    if read.segment.form not in forms.FIXED:
        yield _based(whole)
        return
    block = SPLIT_BLOCK // read.element.itemsize
    places = different_blocks(read.values, base.values, block)
    different = sum(last - first for first, last in places)
    if different > (1 - SPLIT_EQUAL) * len(read.values) or len(places) > MOST_SPLITS:
        yield whole
        return
    at = 0
    for first, last in (*places, (len(read.values), len(read.values))):
        if at < first:
            copy, origin = columns.part(read, at, first), columns.part(base, at, first)
            yield Same(copy.start, copy.end, origin.start)
        if first < last:
            some, origin = columns.part(read, first, last), columns.part(base, first, last)
            yield Numbers(some.start, some.end, some, origin, True, role=role)
        at = last


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Neighbours that are plain, or copied from neighbours, are one."""
    last: Part | None = None
    for part in parts:
        if isinstance(last, Plain) and isinstance(part, Plain):
            last = Plain(last.start, part.end)
        elif (
            isinstance(last, Same)
            and isinstance(part, Same)
            and last.base_start + last.end - last.start == part.base_start
        ):
            last = Same(last.start, part.end, last.base_start)
        else:
            if last is not None:
                yield last
            last = part
    if last is not None:
        yield last


def _ensemble_of(part: Part) -> int | None:
    return None if isinstance(part, Plain | Same) else part.ensemble

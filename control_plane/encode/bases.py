"""From which files a new one is made smaller: pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from protocol.bundle import Member
from protocol.identifiers import Digest

MOST_BASES: Final = 8
NEWEST: Final = 3
"""Versions that are bases whether or not any device has them yet."""


def bases_for(
    role: str,
    path: str,
    target: Digest,
    held: Mapping[Digest, int],
    newest: Sequence[Digest],
    members: Callable[[Digest], Sequence[Member]],
) -> tuple[tuple[Digest, Digest, int], ...]:
    """`(base file, bundle, devices)` for the file `target` that is `path` in its bundle: what most
    devices have first, then what is in the newest versions, newest first.

    `held`: how many devices have which bundle; `newest`: versions of the model, newest first.
    `members` of a bundle, over all of its variants; none of one that nobody knows any more. Of
    several bundles with the same file the first counts, with the devices of all of them.
    """
    recent = list(newest[:NEWEST])
    order = sorted(held, key=lambda bundle: (-held[bundle], _place(bundle, recent), bundle))
    found: dict[Digest, tuple[Digest, int]] = {}
    for bundle in dict.fromkeys((*order, *recent)):
        for base in _counterparts(role, path, members(bundle)):
            if base != target:
                first, devices = found.get(base, (bundle, 0))
                found[base] = first, devices + held.get(bundle, 0)
    ranked = sorted(found.items(), key=lambda each: -each[1][1])
    return tuple((base, bundle, devices) for base, (bundle, devices) in ranked[:MOST_BASES])


def _counterparts(role: str, path: str, members: Sequence[Member]) -> tuple[Digest, ...]:
    """The files of the same name, in all variants; else those of the same role."""
    alike = [each for each in members if each.role == role]
    named = [each.digest for each in alike if each.path == path]
    return tuple(dict.fromkeys(named or [each.digest for each in alike]))


def _place(bundle: Digest, newest: Sequence[Digest]) -> int:
    return newest.index(bundle) if bundle in newest else len(newest)

"""Payloads that are wrong in ways that reach far into the decoder."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from coding import streams, table
from coding.limits import MAX_TABLE
from coding.streams import Packer
from coding.varint import Reader, unsigned
from protocol.payload import FEATURE_LZMA, FEATURE_SEGMENTS
from tests.fuzz.corpus import Case

EDGES: Final = (0, 1, 2, 127, 128, 255, 16_383, 16_384, 65_536, 262_144, 524_288, (1 << 55) - 1)


def mutated(case: Case, other: Case, random: Random) -> Case:
    """`case` with some of it changed; `other` lends bytes."""
    if case.header.features & FEATURE_SEGMENTS and random.random() < 0.6:
        found = _another_table(case, random)
        if found is not None:
            return found
    body = bytearray(case.body)
    for _ in range(random.randint(1, 3)):
        change = random.choice((_bit, _byte, _edge, _cut, _twice))
        change(body, random)
    if random.random() < 0.1:
        at = random.randint(0, len(body))
        body[at:] = other.body[random.randint(0, len(other.body)) :]
    return replace(case, body=bytes(body))


def _another_table(case: Case, random: Random) -> Case | None:
    """The table unpacked, one thing in it changed, and packed again."""
    reader = Reader(case.body)
    lzma = bool(case.header.features & FEATURE_LZMA)
    try:
        packed = streams.read_open(reader, MAX_TABLE, lzma=lzma)
    except ValueError:
        return None
    changed = bytearray(packed)
    random.choice((_bit, _byte, _edge))(changed, random)
    rest = bytes(reader.take(reader.left))
    target = case.header.target_size
    try:
        # A table that is whole all the same is asked for what it says now.
        size = table.unpack(bytes(changed), target, len(case.base or b"")).size
    except (ValueError, IndexError):
        size = random.choice((target, target + random.choice((1, 4, 65_536))))
    header = replace(case.header, target_size=size)
    return replace(case, header=header, body=Packer().open(bytes(changed)) + rest)


def _at(body: bytearray, random: Random) -> int:
    return random.randrange(max(1, len(body)))


def _bit(body: bytearray, random: Random) -> None:
    if body:
        body[_at(body, random)] ^= 1 << random.randrange(8)


def _byte(body: bytearray, random: Random) -> None:
    if body:
        body[_at(body, random)] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))


def _edge(body: bytearray, random: Random) -> None:
    at = _at(body, random)
    body[at : at + random.randint(0, 3)] = unsigned(random.choice(EDGES))


def _cut(body: bytearray, random: Random) -> None:
    at = _at(body, random)
    del body[at : at + random.randint(1, 16)]


def _twice(body: bytearray, random: Random) -> None:
    at = _at(body, random)
    body[at:at] = body[at : at + random.randint(1, 64)]

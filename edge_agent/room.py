"""Whether a device has memory for two runners at once, and what it may do if it has not.

No I/O. Sizes are bytes. `free` is what a new process can have without anything being swapped or
ended: page cache counts as free. A margin is always left for the rest of the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from protocol.bundle import Index, Variant
from protocol.identifiers import Digest
from protocol.members import SessionOptions

Room = Literal["roomy", "tight", "scarce", "none"]
"""roomy: the previous runner may stay loaded through a trial. tight: two at once only while one
takes over from the other. scarce: one has to go before the other is loaded. none: not even that."""

MIB: Final = 1024 * 1024
RUNNER_BYTES: Final = 40 * MIB
"""Private memory of a runner before its first model: interpreter, numpy, onnxruntime, HTTP."""
COPIES: Final = 2.0
"""Private bytes per byte of a model that onnxruntime reads: its own copy, and the packed one."""
MAPPED_SHARE: Final = 0.1
"""Private bytes per byte of weights that stay in their file and are mapped."""
LARGE_WEIGHTS: Final = 10 * MIB
"""Weights outside of the model's file are packed (copied) up to this size, if nobody says so."""

LEAST_MARGIN: Final = 16 * MIB
MOST_MARGIN: Final = 128 * MIB
MARGIN_SHARE: Final = 1 / 32

ADDRESSES: Final = 1536 * MIB
"""Address space of any runner: libraries, stacks and arenas, most of which is never touched."""
ADDRESSES_PER_BYTE: Final = 4
"""For each byte that a model needs: its activations, and what freeing leaves scattered."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the machine, or the control group that the agent lives in, can still give."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Need:
    """What one model adds to a runner."""

    private_bytes: int = 0
    """Given back only by the end of the runner."""
    mapped_bytes: int = 0
    """Of files that are mapped: address space and page cache, which can be taken back any time."""


def packs(weights_bytes: int, session: SessionOptions) -> bool:
    """Whether weights are copied into the form that runs fastest.

    `weights_bytes` are those outside of the model's file; without them there is nothing to save.
    """
    if session.prepacking == "auto":
        return weights_bytes <= LARGE_WEIGHTS
    return session.prepacking == "on"


def need_of(index: Index, manifest: Digest, variant: Variant, session: SessionOptions) -> Need:
    """Of the variant `manifest` of a bundle; its `needs.ram_bytes`, where signed, is the word."""
    weights = sum(member.size for member in variant.members if member.role == "weights")
    model = variant.member("model").size
    if packs(weights, session):
        private, mapped = round((model + weights) * COPIES), weights
    else:
        private, mapped = round(model * COPIES + weights * MAPPED_SHARE), weights
    declared = next((v.needs.ram_bytes for v in index.variants if v.digest == manifest), 0)
    if declared:
        private = max(declared - RUNNER_BYTES, 0)
    return Need(private, mapped)


def runner_bytes(needs: Iterable[Need]) -> int:
    """Private memory of one runner that holds all of these."""
    return RUNNER_BYTES + sum(need.private_bytes for need in needs)


def margin(memory: Memory) -> int:
    """What is left to the rest of the device."""
    return min(max(round(memory.total_bytes * MARGIN_SHARE), LEAST_MARGIN), MOST_MARGIN)


def room(memory: Memory | None, needed: int, held: int) -> Room:
    """For a runner that needs `needed` beside those that are there and would give back `held`.

    Where memory cannot be measured, the answer is the one that any device of this size can live
    with: tight.
    """
    if memory is None:
        return "tight"
    left = memory.free_bytes - needed
    if left >= 2 * margin(memory):
        return "roomy"
    if left >= margin(memory):
        return "tight"
    return "scarce" if held > 0 and left + held >= margin(memory) else "none"


def keeps_warm(memory: Memory | None, *, parked: bool) -> bool:
    """Whether a runner that answers nobody may stay loaded; `parked`: it does already.

    It has to go later than it could come, so that memory that goes up and down a little does not
    decide anew each time.
    """
    if memory is None:
        return False
    return memory.free_bytes >= margin(memory) * (1 if parked else 2)


def shortage(memory: Memory, needed: int, margins: int = 1) -> str:
    """For people, why there is no room; so many margins are left to the rest of the device."""
    free = max(memory.free_bytes - margins * margin(memory), 0)
    return f"needs {_mb(needed)} of memory, {_mb(free)} can be had"


def address_space(needs: Iterable[Need], total_bytes: int) -> int:
    """Limit of a runner's address space: generous, but no model can ask for the whole machine.

    Address space is not memory: what is reserved and never touched counts as well.
    """
    each = list(needs)
    private = sum(need.private_bytes for need in each) * ADDRESSES_PER_BYTE
    return ADDRESSES + min(private, total_bytes) + sum(need.mapped_bytes for need in each)


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def kept_for_records(growth_bytes: int, free_bytes: int) -> int:
    """Of the disk that is free, what a bundle may not have because records will come.

    At most a quarter: records that nobody has made yet are no reason to refuse a model for good
    on a small disk, and the outbox gets by with less than its quota.
    """
    return min(growth_bytes, free_bytes // 4)

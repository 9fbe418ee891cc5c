"""Files of a bundle on the disk: which are missing, and how a payload becomes one.

All of it hashes or decodes, so a fetch has it done on a thread of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge_agent.contents import forget_hint
from edge_agent.decode import decode
from edge_agent.partial import Partial
from edge_agent.siblings import BASE_PREFIX, bases, hold_base, still_missing
from protocol.bundle import Member
from protocol.errors import OutriderError, PeerError, TrustError, Unavailable
from protocol.identifiers import Digest
from protocol.payload import HintEntry

log = logging.getLogger(__name__)

DECODER_ENDED: Final = "OUT-F109"


def survey(
    bundles: Path, directory: Path, members: Sequence[Member]
) -> tuple[tuple[Member, ...], Mapping[Digest, Path]]:
    """What is still missing in `directory`, and what deltas may start from. Raises `OSError`."""
    return still_missing(bundles, directory, members), bases(bundles, directory)


def resume(
    partial: Partial, directory: Path, entry: HintEntry, bases: Mapping[Digest, Path]
) -> tuple[tuple[bytes, ...], bytearray] | None:
    """The digests of a payload's frames and, per frame, 1 or 0: what of it lies here; None without
    its lists. Whatever it starts from stays here from now on. Raises `OSError`."""
    found = bases.get(entry.base) if entry.base is not None else None
    if entry.base is not None and found is not None:
        with suppress(FileNotFoundError):  # then decoding says so
            hold_base(directory, entry.base, found)
    digests = partial.load_lists()
    return None if digests is None else (digests, partial.present(digests))


def become(
    partial: Partial, directory: Path, member: Member, base: Digest | None, stopping: Stopping
) -> OutriderError | None:
    """Decode a payload that is complete, and put away what it took. None, or why it did not become
    the member: OUT-F109 if that may be otherwise another time. Raises `OSError`."""
    held = None if base is None else directory / f"{BASE_PREFIX}{base}"
    target = directory / member.path
    try:
        decode(partial.path, target, member.digest, member.size, held, stopping=stopping)
    except Unavailable as error:
        return error
    except (PeerError, TrustError) as error:
        if partial.damaged():
            return Unavailable(DECODER_ENDED, f"it was damaged on the disk: {error.why}")
        log.warning("payload %s is refused: %s %s", partial.path.name, error.code, error.why)
        return error
    partial.discard()
    forget_hint(directory, member)
    if held is not None:
        held.unlink(missing_ok=True)
    return None


Stopping = Callable[[], bool]
"""Whether decoding should go on another time."""

"""Unpacks what devices packed, in bounded memory whatever they sent."""

from __future__ import annotations

from typing import Final

import zstandard

_MAX_WINDOW: Final = 8 * 1024 * 1024
"""Bytes of history a frame may ask for: what `zstd` itself uses up to level 19."""


def unpack(packed: bytes, limit: int) -> bytes:
    """The content of one zstd frame, never more than `limit` bytes.

    Raises `ValueError` for more and for damage. Of a frame that is cut short the start comes
    back: whoever parses it finds out.
    """
    # The content size in the header is only a claim, so output is read up to the limit.
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        with unpacker.stream_reader(packed, read_across_frames=False) as stream:
            data = stream.read(limit + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"not zstd: {error}") from error
    if len(data) > limit:
        raise ValueError(f"unpacks to more than {limit:,} bytes")
    return data

"""The simplest delta: a whole file, packed by zstd with another one before it."""

from __future__ import annotations

import zstandard

from protocol.identifiers import digest_of
from protocol.payload import FEATURE_PATCH, MAX_BLOCK, Header


def patch(file: bytes, base: bytes, target: bytes | None = None) -> bytes:
    """A payload that says it gives `target`, by default what it does give."""
    named = file if target is None else target
    header = Header(FEATURE_PATCH, digest_of(base), digest_of(named), len(named), MAX_BLOCK)
    packer = zstandard.ZstdCompressor(
        dict_data=zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT),
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            19,
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            window_log=20,
            write_dict_id=False,
            write_content_size=True,
        ),
    )
    return header.pack() + packer.compress(file)

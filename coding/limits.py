"""Most that a payload may declare; a decoder checks each before it allocates anything."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024

MAX_STREAM: Final = 512 * KIB
"""Plain bytes of a packed stream, except of those in bsdiff bodies."""
STREAM_WINDOW: Final = 1024 * KIB
"""Bytes that a stream and its prefix may have together."""
LZMA_DICTIONARY: Final = 512 * KIB

MAX_TABLE: Final = 512 * KIB
MAX_LITERALS: Final = 512 * KIB
MAX_OPS: Final = 8_192
MAX_ENSEMBLES: Final = 16
MAX_NODES: Final = 4_194_304
"""Nodes of one ensemble."""
MAX_GROUP: Final = 256
"""Values that each leaf has."""
MAX_FEATURES: Final = 65_536
MAX_HELD: Final = 131_072
"""Branch nodes of an ensemble whose features are held."""
MAX_LEAF_NAME: Final = 32
MAX_SETS: Final = 16
MAX_VALUES: Final = 131_072
"""Values of all value sets together, and elements of the base that one is made of."""
MAX_POOLS: Final = 16
MAX_GATHERED: Final = 512 * KIB
"""Bytes of all gathered pools together."""
MAX_GATHERED_OP: Final = 16 * KIB
MAX_NAMES: Final = 255
MAX_NAME: Final = 127
MAX_FRONT: Final = 3 * 1024 * KIB
"""Bytes that are kept until the last block."""
MAX_TREE: Final = 65_536
"""Nodes of a tree whose columns can be derived."""

BLOCK: Final = 256 * KIB
"""Output bytes of a block."""
MAX_STORED: Final = BLOCK + 1_024
"""Stored bytes of a block."""
BLOCK_NUMBERS: Final = 16_384
"""Elements of a block of a varint column, and of strings at most."""
FLAGS_BLOCK: Final = 256 * KIB
"""Leaf flags in one stream."""
MAX_SPARSE: Final = 65_536
"""Elements of a block that differ, if only those are listed."""

MAX_BASE_WINDOW: Final = 768 * KIB
"""Bytes of a base column that may stand before a stream."""
MAX_LOADED: Final = 65_536
"""Elements of a base column of other length whose elements have no fixed size."""
PREFIX_RUN: Final = 64 * KIB
PREFIX: Final = 512 * KIB
"""Bytes of the base that stand before the literal pool: of each uncovered run, and of all."""

MAX_PATCH: Final = 4 * 1024 * KIB
"""Base and target of a patch together."""
MAX_BSDIFF: Final = 2 * 1024 * KIB
"""Base of a bsdiff, its target, and each of its streams."""
MAX_TRIPLES: Final = 65_536
BROTLI_WINDOW: Final = 4 * 1024 * KIB

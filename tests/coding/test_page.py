"""The page of the format says what the code does."""

import re
from pathlib import Path

from coding import elements, forms, limits, methods, table, trees
from protocol import payload
from tests.coding import bodies

PAGE = (Path(__file__).parents[2] / "docs/reference/payload-format.md").read_text("utf-8")


def row(*cells: object) -> bool:
    return "| " + " | ".join(map(str, cells)) in re.sub(r" +", " ", PAGE)


def test_every_feature_is_on_the_page():
    for bit, name in payload.FEATURE_NAMES.items():
        constant = next(
            key
            for key, value in vars(payload).items()
            if key.startswith("FEATURE_") and value == bit
        )
        assert row(bit.bit_length() - 1, f"`{constant}`", f"`{name}`")


def test_every_method_and_form_and_kind_is_on_the_page():
    names = {value: key for key, value in vars(methods).items() if value in range(14)}
    for number in range(14):
        assert row(number, names[number])
    for number, name in enumerate(("BYTES", "TAGGED", "VARINT", "TAGGED_VARINT", "STRINGS")):
        assert getattr(forms, name) == number
        assert row(f"{number} {name}")
    for number, name in enumerate(("END", "COPY", "COLUMN", "GATHERED", "DERIVED", "HELD")):
        assert getattr(table, name) == number
        assert row(number, name)
    assert trees.MODES == table.MODES == 7


def test_every_element_is_on_the_page():
    assert row("element", *elements.ELEMENTS)
    assert row("bytes", *(each.itemsize for each in elements.ELEMENTS.values()))
    assert [each.mantissa for each in elements.ELEMENTS.values() if each.mantissa] == [
        10,
        7,
        23,
        52,
    ]


def test_every_limit_is_on_the_page():
    said = {
        "MAX_STREAM": "n never more\nthan 524,288",
        "MAX_TABLE": "open stream, up to 512 KiB",
        "MAX_LITERALS": "uv literal bytes                <= 524,288",
        "MAX_OPS": "<= 8,192",
        "MAX_ENSEMBLES": "uv T  target ensembles          <= 16",
        "MAX_NODES": "uv nodes (1..4,194,304)",
        "MAX_GROUP": "uv group (0..256)",
        "MAX_FEATURES": "uv features (<= 65,536",
        "MAX_HELD": "element 2, up to 131,072",
        "MAX_LEAF_NAME": "u8 length (1..32)",
        "MAX_SETS": "uv S  value sets                <= 16",
        "MAX_VALUES": "uv new values (<= 131,072",
        "MAX_POOLS": "uv G  gathered pools            <= 16",
        "MAX_GATHERED": "All together up to 524,288",
        "MAX_GATHERED_OP": "up to 16,384 bytes",
        "MAX_NAMES": "uv k (1..255)",
        "MAX_NAME": "u8 length (<= 127)",
        "MAX_TREE": "A tree has at most 65,536 nodes",
        "BLOCK": "than 262,144 bytes",
        "MAX_STORED": "uv stored (<= 263,168)",
        "BLOCK_NUMBERS": "longest name), up to 16,384",
        "FLAGS_BLOCK": "in streams of up to 262,144 nodes",
        "MAX_SPARSE": "uv m (<= 65,536)",
        "MAX_BASE_WINDOW": "up to 786,432 bytes",
        "MAX_LOADED": "have at most 65,536 elements",
        "PREFIX_RUN": "of each\n   the first 65,536 bytes",
        "PREFIX": "of all the first 524,288",
        "MAX_PATCH": "at most 4,194,304 bytes together",
        "MAX_BSDIFF": "at most 2,097,152 bytes each",
        "MAX_TRIPLES": "uv triples (<= 65,536)",
    }
    page = " ".join(PAGE.split())
    for name, words in said.items():
        assert " ".join(words.split()) in page, name
        value = getattr(limits, name)
        assert f"{value:,}" in words or str(value) in words or f"{value // 1024} KiB" in words, name
    assert limits.STREAM_WINDOW == 1024 * 1024
    assert limits.LZMA_DICTIONARY == 512 * 1024
    assert limits.BROTLI_WINDOW == payload.MAX_WINDOW == 4 * 1024 * 1024
    assert limits.MAX_FRONT == 3 * 1024 * 1024
    assert f"{payload.MAX_DECODE_MEMORY:,}" in PAGE
    assert limits.BLOCK == payload.MAX_BLOCK


def test_the_example_is_a_payload():
    shown = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)", PAGE, re.MULTILINE)
    each = bodies.tiny()
    assert bytes.fromhex("".join(shown)) == each.header.pack() + each.body

"""Payloads as they were once written: what they stand for never changes."""

from io import BytesIO
from pathlib import Path

import pytest

from coding import decoding
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_SETS, Header
from tests.coding.bodies import ALL, Bytes
from tests.golden.payloads import GOLDEN

FOLDER = Path(__file__).parent / "payload_v1"
PAYLOADS = sorted(FOLDER.glob("*.payload"))
BY_HAND = ("tiny", "forest")


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_a_golden_payload_decodes_to_its_target_for_ever(path):
    data = path.read_bytes()
    header, start = Header.unpack(data)
    base = Bytes(path.with_suffix(".base").read_bytes()) if header.base else None
    if base is not None:
        assert digest_of(base.data) == header.base
    found = b"".join(decoding.blocks(BytesIO(data[start:]), header, base))
    assert found == path.with_suffix(".target").read_bytes()
    assert digest_of(found) == header.target


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_written_by_hand_is_written_as_it_was(name):
    each = ALL[name]()
    assert (FOLDER / f"{name}.payload").read_bytes() == each.header.pack() + each.body


def test_there_is_a_golden_payload_of_all_encodings_that_go_together():
    assert {Header.unpack(path.read_bytes())[0].features for path in PAYLOADS} == FEATURE_SETS
    assert {path.stem for path in PAYLOADS} == {*GOLDEN, *BY_HAND}

"""Files of records: whole, bounded, and nothing in them that the head does not vouch for."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import records_file
from protocol.codec import MAX_UP_PACKED
from protocol.errors import InvalidRequest, TrustError
from protocol.identifiers import digest_of
from protocol.records_file import MAX_FILE, Head, put_together, take_apart


def head(inside, **changes):
    fields: dict[str, Any] = {
        "v": 1,
        "fleet": "north",
        "device": "north-cam-1",
        "made_ms": 5,
        "number": 1,
        "records": 3,
        "sizes": tuple(map(len, inside)),
        "batches": digest_of(b"".join(inside)),
        "certificate": "-----BEGIN CERTIFICATE-----\n",
    }
    return Head(**(fields | changes))


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8), st.binary(max_size=96))
def test_what_was_put_together_is_taken_apart(batches, signature):
    note = head(batches)
    opened = take_apart(put_together(note, signature, batches))
    assert (opened.head, opened.signature, list(opened.batches)) == (note, signature, batches)
    assert opened.signed == records_file.signed_bytes(note)


WHOLE = put_together(head([b"one", b"two"]), b"signature", [b"one", b"two"])


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_that_is_cut_short_anywhere_is_refused(length):
    with pytest.raises(InvalidRequest) as refused:
        take_apart(WHOLE[:length])
    assert refused.value.code == "OUT-D505"


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_changes_what_is_verified(place, flip):
    changed = bytearray(WHOLE)
    changed[place] ^= flip
    before = take_apart(WHOLE)
    with contextlib.suppress(InvalidRequest, TrustError):
        opened = take_apart(bytes(changed))
        # Then the signature, or what it is over, is another: it will not fit.
        assert (opened.signed, opened.signature) != (before.signed, before.signature)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_a_code(data):
    with pytest.raises(InvalidRequest):
        take_apart(data)


def test_other_batches_than_the_signed_ones_are_no_matter_of_form():
    with pytest.raises(TrustError) as refused:
        take_apart(WHOLE[:-1] + b"O")
    assert refused.value.code == "OUT-D504"
    with pytest.raises(TrustError):
        take_apart(WHOLE + b"more")


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"device": "south-cam-1"},
        {"sizes": (MAX_UP_PACKED + 1,)},
        {"sizes": (0,)},
        {"sizes": (1,) * 513},
        {"batches": "sha256-no"},
    ],
)
def test_a_head_is_valid_or_none(changes):
    with pytest.raises(ValueError, match=r"."):
        head([b"one"], **changes)


def test_a_file_has_a_limit_that_is_checked_first():
    with pytest.raises(InvalidRequest, match="at most"):
        take_apart(bytes(MAX_FILE + 1))

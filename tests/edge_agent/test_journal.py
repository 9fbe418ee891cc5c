import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.journal import (
    MAX_DETAIL,
    SLOT_BYTES,
    Journal,
    Note,
    decode_slot,
    encode_slot,
)
from protocol.identifiers import digest_of
from protocol.reported import MAX_NOTES, Outcome


def d(name: object) -> str:
    return digest_of(str(name).encode())


FULL = Journal(
    "m",
    7,
    d("a"),
    d("b"),
    ((d("c"), Note(reason="OUT-D310", detail="confidence", definite=True, attempt=2)),),
    (Outcome(3, "m", d("c"), "rejected", "OUT-D310"),),
    (1, 2, 3),
    d("c"),
    99,
    True,
)


def test_a_slot_gives_back_what_was_written():
    assert decode_slot(encode_slot(FULL)) == FULL


def test_every_slot_has_the_same_size():
    assert len(encode_slot(FULL)) == len(encode_slot(Journal("m"))) == SLOT_BYTES


def test_the_largest_journal_fits_its_slot():
    worst = "\0" * (MAX_DETAIL + 50)
    journal = FULL
    for n in range(20):
        journal = journal.with_note(d(n), Note(reason="OUT-D310", detail=worst, rollout="r" * 96))
        journal = journal.with_outcome(Outcome(n, "m", d(n), "rejected", "OUT-D310", worst))
    assert decode_slot(encode_slot(journal)) == journal


@pytest.mark.parametrize(
    "data", [b"", b"OUJ1", bytes(SLOT_BYTES), b"\xff" * SLOT_BYTES], ids=["none", "cut", "0", "1"]
)
def test_what_was_never_written_is_no_journal(data):
    assert decode_slot(data) is None


USED = len(encode_slot(FULL).rstrip(b"\0"))


@given(st.integers(0, USED - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(place, change):
    data = bytearray(encode_slot(FULL))
    data[place] ^= change
    assert decode_slot(bytes(data)) is None


@given(st.integers(0, USED - 1))
def test_any_cut_is_noticed(length):
    data = encode_slot(FULL)[:length]
    assert decode_slot(data) is None
    assert decode_slot(data.ljust(SLOT_BYTES, b"\0")) is None


def test_a_slot_torn_between_two_generations_is_noticed():
    older, newer = encode_slot(FULL), encode_slot(Journal("m", 9, d("z")))
    for place in range(1, USED - 1):
        torn = newer[:place] + older[place:]
        assert decode_slot(torn) in (None, FULL, Journal("m", 9, d("z")))


def test_notes_are_bounded_and_slots_and_the_wanted_one_keep_theirs():
    journal = Journal("m", current=d("a"), previous=d("b"))
    for name in ("a", "b", "wanted"):
        journal = journal.with_note(d(name), Note(loads=1))
    for n in range(30):
        journal = journal.with_note(d(n), Note(reason="OUT-D310", definite=True), (d("wanted"),))
    names = [name for name, _ in journal.notes]
    assert len(names) == MAX_NOTES
    assert {d("a"), d("b"), d("wanted"), d(29)} <= set(names)


def test_what_is_held_against_a_bundle_outlives_what_is_not():
    journal = Journal("m")
    journal = journal.with_note(d("denied"), Note(reason="OUT-D310", definite=True))
    journal = journal.with_note(d("revoked"), Note(revoked="stop"))
    for n in range(30):
        journal = journal.with_note(d(n), Note(loads=1))
    assert {d("denied"), d("revoked")} <= {name for name, _ in journal.notes}


def test_a_note_that_says_nothing_is_not_kept():
    journal = Journal("m").with_note(d("a"), Note(loads=1))
    assert journal.with_note(d("a"), Note()).notes == ()


def test_only_the_last_six_outcomes_and_eight_trials_are_kept():
    journal = Journal("m")
    for n in range(20):
        journal = journal.with_outcome(Outcome(n, "m", d(n), "committed")).with_trial(d(n), n)
    assert [outcome.number for outcome in journal.outcomes] == [14, 15, 16, 17, 18, 19]
    assert journal.trials == (12, 13, 14, 15, 16, 17, 18, 19)
    assert journal.tried == d(19)


def test_outcome_numbers_go_on_from_whichever_source_is_ahead():
    journal = Journal("m").with_outcome(Outcome(4, "m", d("a"), "committed"))
    assert journal.next_number(2) == 5
    assert journal.next_number(9) == 10
    assert Journal("m").next_number(0) == 1

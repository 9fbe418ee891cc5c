"""Records: which may merge, and that merging is exact."""

import random
from dataclasses import replace
from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import telemetry
from protocol.codec import convert, to_wire
from protocol.errors import PeerError
from protocol.reported import ReportedState
from protocol.telemetry import (
    FINAL,
    DriftWindow,
    EventWindow,
    Hello,
    InferenceWindow,
    Record,
    Upload,
    covers,
    merge_bodies,
    merge_ranges,
    merge_records,
    private,
    read_body,
    stream_name,
    without_histograms,
)

M, P = "sha256-" + "a" * 64, "sha256-" + "b" * 64
STREAM = stream_name("inference", M, P)


def window(n, seed=0):
    rng = random.Random(seed)
    return InferenceWindow(
        M,
        P,
        answers=n,
        rows=n,
        errors=rng.randrange(3),
        confidence=tuple(rng.randrange(5) for _ in range(20)),
        classes=(n, 0),
    )


def record(lo, hi=None, n=1, **changes):
    values = {"e": 7, "s": STREAM, "lo": lo, "hi": lo if hi is None else hi, "n": n}
    return Record(**(values | {"b": to_wire(window(n, lo))} | changes))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"lo": 1, "hi": 2}, id="misaligned"),
        pytest.param({"lo": 0, "hi": 2}, id="three windows are no block"),
        pytest.param({"lo": 2, "hi": 1}, id="backwards"),
        pytest.param({"lo": -1, "hi": -1}, id="negative"),
        pytest.param({"lo": 0, "hi": 1, "part": 3}, id="a partial block"),
        pytest.param({"part": 0}, id="part zero"),
        pytest.param({"part": FINAL + 1}, id="part beyond final"),
        pytest.param({"n": -1}, id="negative count"),
        pytest.param({"n": 2**53 + 1}, id="beyond 2^53"),
        pytest.param({"e": -1}, id="negative epoch"),
        pytest.param({"s": "weather/-/-"}, id="unknown kind"),
        pytest.param({"s": "inference/xyz/-"}, id="a stream of other form"),
        pytest.param({"s": "state/-/-", "n": 2}, id="a state is one"),
        pytest.param({"b": []}, id="a body is an object"),
    ],
)
def test_a_record_that_cannot_be_is_refused(bad):
    with pytest.raises(PeerError):
        convert(to_wire(record(0)) | bad, Record)


@pytest.mark.parametrize("size", telemetry.BLOCKS)
def test_a_complete_aligned_block_merges_to_one_record(size):
    if size > 24:
        parts = [record(lo, lo + 23, 24) for lo in range(size, 2 * size, 24)]
    else:
        parts = [record(lo) for lo in range(size, 2 * size)]
    merged = merge_records(parts)
    assert (merged.lo, merged.hi, merged.n) == (size, 2 * size - 1, size)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([record(0), record(2)], id="a window is missing"),
        pytest.param([record(1), record(2)], id="misaligned"),
        pytest.param([record(0), record(1, e=8)], id="two epochs"),
        pytest.param([record(0), record(1, s=stream_name("inference", P, M))], id="two streams"),
        pytest.param([record(0), record(1, part=4)], id="an open window"),
        pytest.param([record(0), record(0)], id="one twice"),
        pytest.param(
            [record(n, s="state/-/-", b={"order": n, "agent": "1"}) for n in (0, 1)], id="states"
        ),
    ],
)
def test_anything_less_does_not_merge(parts):
    with pytest.raises(ValueError):
        merge_records(parts)


# Bytes are counts that cost little to draw.
COUNTS = st.binary(min_size=3, max_size=3).map(tuple) | st.just(())
BINS = st.binary(min_size=20, max_size=20).map(tuple) | st.just(())
TOTAL = st.integers(0, 99)
WINDOWS = st.builds(
    InferenceWindow,
    manifest=st.just(M),
    profile=st.just(P),
    answers=TOTAL,
    rows=TOTAL,
    confidence=BINS,
    classes=COUNTS,
    labelled=TOTAL,
    correct=TOTAL,
    labelled_bins=BINS,
    correct_bins=BINS,
    score=COUNTS,
)
# Few values over many streams: ties are common, and so is what does not fit any more.
EVIDENCE = st.dictionaries(st.integers(0, 30), st.integers(30, 36), max_size=16).map(
    lambda found: tuple(sorted(found.items()))
)
DRIFTS = st.builds(
    DriftWindow,
    manifest=st.just(M),
    profile=st.just(P),
    rows=TOTAL,
    counts=st.tuples(COUNTS, COUNTS) | st.just(()),
    residual=COUNTS,
    looks=TOTAL,
    evidence=EVIDENCE,
)
EVENTS = st.builds(
    EventWindow, st.dictionaries(st.sampled_from(["OUT-D310", "OUT-D301"]), st.integers(1, 5))
)


@given(st.one_of(*[st.tuples(kind, kind, kind) for kind in (WINDOWS, DRIFTS, EVENTS)]))
def test_windows_are_a_commutative_monoid_also_with_labels_residual_and_evidence(bodies):
    a, b, c = bodies
    assert merge_bodies(a, merge_bodies(b, c)) == merge_bodies(merge_bodies(a, b), c)
    assert merge_bodies(a, b) == merge_bodies(b, a)
    nothing = EventWindow() if isinstance(a, EventWindow) else type(a)(M, P)
    assert merge_bodies(a, nothing) == merge_bodies(nothing, a) == a


@given(st.lists(DRIFTS, min_size=2, max_size=6))
def test_merged_evidence_is_the_largest_of_each_stream_and_of_all_the_sixteen_largest(windows):
    best: dict[int, int] = {}
    for each in windows:
        best |= {stream: max(tenths, best.get(stream, 0)) for stream, tenths in each.evidence}
    ordered = sorted(best, key=lambda stream: (-best[stream], stream))
    merged = reduce(merge_bodies, windows)
    assert isinstance(merged, DriftWindow)
    assert merged.evidence == tuple((n, best[n]) for n in sorted(ordered[:16]))
    assert merged.looks == max(each.looks for each in windows)


@given(
    st.one_of(*[st.tuples(kind, kind) for kind in (WINDOWS, DRIFTS)]),
    st.sampled_from(["manifest", "profile"]),
)
def test_windows_of_other_models_or_profiles_never_merge(bodies, which):
    a, b = bodies
    with pytest.raises(ValueError, match="do not merge"):
        merge_bodies(a, replace(b, **{which: "sha256-" + "c" * 64}))


@given(st.lists(st.integers(1, 50), min_size=8, max_size=8))
def test_grouping_does_not_change_the_sum(numbers):
    fine = [record(lo, n=n) for lo, n in enumerate(numbers)]
    at_once = merge_records(fine)
    stepwise = merge_records([merge_records(fine[i : i + 4]) for i in (0, 4)])
    assert at_once == stepwise
    assert at_once.n == sum(numbers)
    body = read_body(at_once)
    assert isinstance(body, InferenceWindow)
    assert body.answers == at_once.n


def test_of_two_states_the_higher_order_stays_whichever_came_last():
    old, new = ReportedState(3, "1"), ReportedState(9, "1")
    assert merge_bodies(new, old) == merge_bodies(old, new) == new


def test_windows_of_different_kinds_do_not_merge():
    with pytest.raises(ValueError, match="do not merge"):
        merge_bodies(window(1), DriftWindow(M, P))


@pytest.mark.parametrize(
    "first, second",
    [
        pytest.param(DriftWindow(M, P, 1, ((1,),)), DriftWindow(M, P, 1, ((1,), (1,))), id="table"),
        pytest.param(
            DriftWindow(M, P, residual=(1,)), DriftWindow(M, P, residual=(1, 2)), id="residual"
        ),
        pytest.param(
            InferenceWindow(M, P, score=(1,)), InferenceWindow(M, P, score=(1, 2)), id="score"
        ),
    ],
)
def test_counts_over_other_slots_do_not_merge(first, second):
    with pytest.raises(ValueError, match="do not merge"):
        merge_bodies(first, second)


BINNED = tuple(range(20))
LABELLED = replace(
    window(7),
    labelled=19,
    correct=12,
    labelled_bins=BINNED,
    correct_bins=BINNED,
    score=(1, 2, 3, 4),
)


def test_totals_and_evidence_stay_when_histograms_go():
    totals = InferenceWindow(M, P, answers=7, rows=7, errors=window(7).errors)
    assert without_histograms(LABELLED) == replace(totals, labelled=19, correct=12)
    seen = DriftWindow(M, P, rows=7, looks=4, evidence=((2, 31),))
    assert without_histograms(replace(seen, counts=((1, 2),), residual=(3, 4))) == seen


def test_a_window_of_few_answers_leaves_as_totals_and_few_labels_without_their_bins():
    assert private(LABELLED, 19) == without_histograms(LABELLED)
    few = private(LABELLED, 20)
    assert few == replace(LABELLED, labelled_bins=(), correct_bins=())
    enough = replace(LABELLED, labelled=20)
    assert private(enough, 20) == enough
    assert private(window(30), 30) == window(30)
    drift = DriftWindow(M, P, 20, ((1, 2),), (3, 4))
    assert (private(drift, 20), private(drift, 19)) == (drift, without_histograms(drift))


RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 5)).map(lambda r: (r[0], r[0] + r[1]))
)


@given(RANGES)
def test_merged_ranges_cover_exactly_what_went_in(ranges):
    merged = merge_ranges(ranges)
    assert {x for lo, hi in merged for x in range(lo, hi + 1)} == {
        x for lo, hi in ranges for x in range(lo, hi + 1)
    }
    assert all(a[1] + 1 < b[0] for a, b in pairwise(merged))
    assert all(covers(merged, lo, hi) for lo, hi in ranges)


@pytest.mark.parametrize(
    "bad",
    [
        {"v": 2},
        {"v": 1, "held": [[1, "inference/-/-", 5, 4]]},
        {"v": 1, "held": [[1, "x", 0, 0]]},
        {"v": 1, "x": [1]},
        {"v": 1, "x": [to_wire(record(0))] * 501},
    ],
)
def test_a_malformed_upload_is_refused(bad):
    with pytest.raises(PeerError):
        convert(bad, Upload)


@pytest.mark.parametrize(
    "body",
    [
        {"manifest": 1},
        {"manifest": M},
        {"manifest": M, "profile": P, "classes": [-1]},
        {"manifest": M, "profile": P, "latency": [1]},
        {"manifest": M, "profile": P, "labelled": -1},
        {"manifest": M, "profile": P, "labelled_bins": [1]},
        {"manifest": M, "profile": P, "correct_bins": [1] * 21},
    ],
)
def test_a_body_of_other_form_is_the_peers_fault(body):
    with pytest.raises(PeerError):
        read_body(record(0, b=body))


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param([[0, 31], [0, 31]], id="a stream twice"),
        pytest.param([[3, 31], [2, 31]], id="not in their order"),
        pytest.param([[4097, 31]], id="a stream that no profile has"),
        pytest.param([[0, 401]], id="more than the cap"),
        pytest.param([[0, -1]], id="less than nothing"),
        pytest.param([[n, 31] for n in range(17)], id="seventeen"),
    ],
)
def test_evidence_that_cannot_be_is_the_peers_fault(evidence):
    body = {"manifest": M, "profile": P, "evidence": evidence}
    with pytest.raises(PeerError):
        read_body(record(0, s=stream_name("drift", M, P), b=body))


def test_evidence_of_the_last_stream_at_the_cap_is_taken():
    body = {"manifest": M, "profile": P, "evidence": [[0, 30], [4096, 400]]}
    read = read_body(record(0, s=stream_name("drift", M, P), b=body))
    assert read == DriftWindow(M, P, evidence=((0, 30), (4096, 400)))


def test_what_new_members_default_to_is_not_sent():
    assert to_wire(DriftWindow(M, P, 3)) == {"manifest": M, "profile": P, "rows": 3}
    assert to_wire(InferenceWindow(M, P, 3)) == {"manifest": M, "profile": P, "answers": 3}
    assert to_wire(Hello(5)) == {"g": 5}
    assert convert({"g": 5}, Hello).codecs == (1, 2)

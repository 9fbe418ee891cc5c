"""Which bytes are asked for, and which answers count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.ranges import Run, accept, accept_lists, missing_run, retry_after_s
from protocol.errors import PeerError, Unavailable
from protocol.payload import FRAME_SIZE

SIZE = 10 * FRAME_SIZE + 17
WHOLE = Run(0, 10, SIZE)
MIDDLE = Run(3, 5, SIZE)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_runs_are_exactly_what_is_missing(have):
    size = (len(have) - 1) * FRAME_SIZE + 1
    left, asked = bytearray(have), []
    while (run := missing_run(left, size)) is not None:
        frames = list(range(run.first, run.last + 1))
        assert not any(left[number] for number in frames)
        assert run.end <= size
        assert run.length > 0
        for number in frames:
            left[number] = 1
        asked += frames
    assert asked == [number for number, here in enumerate(have) if not here]


def answer(run: Run, **changed: str) -> dict[str, str]:
    said = {
        "content-range": f"bytes {run.start}-{run.end - 1}/{run.size}",
        "content-length": str(run.length),
    }
    return said | {name.replace("_", "-"): value for name, value in changed.items()}


def test_the_range_that_was_asked_for_is_taken():
    assert MIDDLE.header == f"bytes={3 * FRAME_SIZE}-{6 * FRAME_SIZE - 1}"
    assert accept(206, answer(MIDDLE), MIDDLE) == 3 * FRAME_SIZE
    assert accept(206, answer(WHOLE), WHOLE) == SIZE


def test_a_whole_file_is_taken_only_from_its_beginning():
    whole = {"content-length": str(SIZE)}
    assert accept(200, whole, Run(0, 2, SIZE)) == 3 * FRAME_SIZE
    with pytest.raises(PeerError, match="F108"):
        accept(200, whole, MIDDLE)


@pytest.mark.parametrize(
    "status, headers",
    [
        (206, answer(MIDDLE, content_range=f"bytes 0-9/{SIZE}")),
        (206, answer(MIDDLE, content_range=f"bytes {MIDDLE.start}-{MIDDLE.end - 1}/*")),
        (206, answer(MIDDLE, content_length="5")),
        (206, {}),
        (206, answer(MIDDLE, content_encoding="gzip")),
        (302, {"location": "http://127.0.0.1/"}),
        (404, {}),
        (416, {}),
    ],
)
def test_an_answer_to_another_question_is_refused(status, headers):
    with pytest.raises(PeerError, match="F108"):
        accept(status, headers, MIDDLE)


def test_a_file_of_another_size_is_refused():
    with pytest.raises(PeerError, match="F108"):
        accept(200, {"content-length": "5"}, WHOLE)
    with pytest.raises(PeerError, match="F108"):
        accept_lists(200, {"content-length": "5"}, 64)
    assert accept_lists(200, {}, 64) == 64


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_may_be_asked_later(status):
    with pytest.raises(Unavailable, match="F107"):
        accept(status, {}, WHOLE)


@pytest.mark.parametrize(
    "said, seconds", [("7", 7), ("999999", 60), ("-1", 0), ("Wed, 21 Oct", 0), ("", 0), ("²", 0)]
)
def test_a_server_says_in_seconds_how_long_to_stay_away(said, seconds):
    assert retry_after_s({"retry-after": said}, 60) == seconds


def test_of_a_frame_that_was_begun_only_the_rest_is_asked_for():
    size = 5 * FRAME_SIZE + 7
    run = Run(1, 5, size, begun=1000)
    assert run.header == f"bytes={FRAME_SIZE + 1000}-{size - 1}"
    assert run.length == 4 * FRAME_SIZE + 7 - 1000
    answer = {"content-range": f"bytes {FRAME_SIZE + 1000}-{size - 1}/{size}"}
    assert accept(206, answer, run) == run.length
    with pytest.raises(PeerError, match="F108"):
        accept(200, {}, Run(0, 5, size, begun=1000))

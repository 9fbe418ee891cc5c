"""Copies of requests: within bounds, one after the other, and only while they are wanted."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.samples import (
    KEPT_S,
    MOST_BYTES,
    MOST_REQUESTS,
    TAKEN_BYTES,
    Sample,
    Samples,
    array_of,
)
from protocol import codec
from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec

CONTRACT = Contract(
    (TensorSpec("x", "FP32", (-1, -1)),),
    (TensorSpec("y", "INT64", (-1,)), TensorSpec("t", "BYTES", (-1,))),
)
OUTPUTS = {"y": np.array([7]), "t": np.array(["seven"], np.object_)}


def row(values: int = 1, fill: float = 1.0) -> dict[str, np.ndarray]:
    return {"x": np.full((1, values), fill, np.float32)}


def every_request() -> Samples:
    return Samples(CONTRACT, 0.0, 0.0)


def test_a_copy_is_what_was_asked_and_answered():
    samples = every_request()
    asked = row(3, 0.5)
    samples.offer(asked, OUTPUTS, 1.0)
    asked["x"][:] = 9  # the caller's buffer is used again
    (sample,) = samples.take(1.0)
    sent = codec.decode(codec.encode(sample), Sample, limit=10_000)
    assert [array_of(tensor).tolist() for tensor in sent.inputs] == [[[0.5, 0.5, 0.5]]]
    assert [array_of(tensor).tolist() for tensor in sent.outputs] == [[7], ["seven"]]


def test_what_is_taken_is_no_longer_there():
    samples = every_request()
    samples.offer(row(), OUTPUTS, 1.0)
    assert len(samples.take(1.0)) == 1
    assert samples.take(1.0) == ()


def test_when_it_is_full_requests_are_dropped():
    samples = every_request()
    for turn in range(MOST_REQUESTS + 50):
        samples.offer(row(fill=turn), OUTPUTS, float(turn))
    taken = samples.take(0.0)
    assert len(taken) == MOST_REQUESTS
    assert array_of(taken[0].inputs[0])[0, 0] == 0
    samples.offer(row(), OUTPUTS, 10**6)
    assert len(samples.take(0.0)) == 1


@given(st.lists(st.integers(1, MOST_BYTES // 4), min_size=1, max_size=12))
def test_they_never_take_more_than_their_bytes(values):
    samples = every_request()
    for turn, count in enumerate(values):
        samples.offer(row(count // 8), OUTPUTS, float(turn))
    waiting: list[Sample] = []
    while taken := samples.take(0.0):
        size = sum(sample.size_bytes for sample in taken)
        assert size <= TAKEN_BYTES or len(taken) == 1
        waiting += taken
    assert sum(sample.size_bytes for sample in waiting) <= MOST_BYTES


def test_a_request_that_is_too_large_is_not_copied():
    samples = every_request()
    samples.offer(row(MOST_BYTES // 4 + 1), OUTPUTS, 1.0)
    assert samples.take(1.0) == ()


def test_only_one_request_in_a_while_is_copied():
    samples = Samples(CONTRACT, 1.0, 0.0)
    for turn in range(10_000):
        samples.offer(row(), OUTPUTS, 1 + turn / 1000)
    assert 6 <= len(samples.take(0.0)) <= 20


def test_an_answer_that_cannot_be_copied_is_none_the_less_given():
    samples = every_request()
    samples.offer(row(), {"y": np.array([7]), "t": np.array([object()], np.object_)}, 1.0)
    assert samples.take(1.0) == ()


def test_without_being_asked_for_they_are_given_up():
    samples = every_request()
    samples.take(100.0)
    assert not samples.forgotten(100.0 + KEPT_S)
    assert samples.forgotten(100.1 + KEPT_S)


def test_one_thread_offers_while_another_takes():
    samples = every_request()
    taken: list[Sample] = []
    end = threading.Event()

    def take() -> None:
        while not end.is_set() or samples._waiting:
            taken.extend(samples.take(0.0))

    thread = threading.Thread(target=take)
    thread.start()
    for turn in range(3_000):
        samples.offer(row(fill=turn), OUTPUTS, float(turn))
    end.set()
    thread.join()
    numbers = [float(array_of(sample.inputs[0])[0, 0]) for sample in taken]
    assert numbers == sorted(set(numbers))
    assert samples._added_bytes == samples._taken_bytes


def test_bytes_that_are_not_what_they_say_are_refused():
    samples = every_request()
    samples.offer(row(2), OUTPUTS, 1.0)
    (sample,) = samples.take(1.0)
    wire = codec.to_wire(sample)
    wire["inputs"][0]["shape"] = [1, 3]
    with pytest.raises(InvalidRequest):
        array_of(codec.convert(wire, Sample).inputs[0])

"""Whatever way an answer takes through the ring, the same is counted of it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.watch.fold import answer_rows
from edge_agent.watch.ring import MAX_ROWS, Block, Ring
from protocol.histogram import LATENCY_SLOTS, latency_slot
from protocol.members import Contract, TensorSpec

CONTRACT = Contract(
    inputs=(TensorSpec("x", "FP64", (-1, 2)),),
    outputs=(
        TensorSpec("label", "INT64", (-1,), role="label"),
        TensorSpec("p", "FP32", (-1, 3), role="probabilities"),
        TensorSpec("score", "FP16", (-1, 2, 2), role="score"),
    ),
    classes=("a", "b", "c"),
)
FREE = Contract(
    inputs=CONTRACT.inputs,
    outputs=(*CONTRACT.outputs[:2], TensorSpec("score", "FP16", (-1, 2, -1), role="score")),
    classes=CONTRACT.classes,
)
"""The same with a free dimension, so that nothing can be kept row after row."""

Outputs = dict[str, NDArray[np.generic]]


def answer(rows: int, seed: int) -> tuple[NDArray[np.float64], Outputs, float]:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(rows, 2, 2)).astype(np.float16)
    if seed % 3 == 0:
        score[rng.integers(rows), 1, 0] = np.nan
    p = rng.dirichlet(np.ones(3), rows).astype(np.float32)
    if seed % 5 == 0:
        p[rng.integers(rows), 2] = np.inf
    return rng.normal(size=(rows, 2)), {"label": p.argmax(1), "p": p, "score": score}, rng.random()


def never() -> None:
    raise AssertionError("not full yet")


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 99)), max_size=20))
@pytest.mark.parametrize("contract", [CONTRACT, FREE], ids=["row by row", "a free dimension"])
@pytest.mark.parametrize("width", [None, 2], ids=["the first input", "columns made of inputs"])
def test_what_is_drained_is_what_was_pushed(contract, width, requests):
    blocks: list[Block] = []
    ring = Ring(contract, never, columns=True, width=width, score=True)
    answers = [answer(rows, seed) for rows, seed in requests]
    if width is not None:
        answers = [(first.astype(np.float32), outputs, s) for first, outputs, s in answers]
    for first, outputs, seconds in answers:
        ring.push(first, outputs, len(first), seconds)
        for array in (first, *outputs.values()):
            array[...] = 0  # the caller's own again
    block = ring.drain()
    assert ring.drain() is None
    if not requests:
        assert block is None
        return
    assert block is not None
    blocks.append(block)
    wanted = [answer(rows, seed) for rows, seed in requests]
    assert (block.requests, block.rows) == (len(requests), sum(rows for rows, _ in requests))
    latency = np.bincount([latency_slot(s) for _, _, s in wanted], minlength=LATENCY_SLOTS)
    assert block.latency.tolist() == latency.tolist()
    assert block.nonfinite == sum(seed % 3 == 0 or seed % 5 == 0 for _, seed in requests)
    assert block.columns is not None
    columns = np.concatenate([first for first, _, _ in wanted]).astype(np.float32)
    assert sorted(block.columns.tolist()) == sorted(columns.tolist())
    assert block.scores is not None
    scores = np.concatenate([outputs["score"][:, 0, 0] for _, outputs, _ in wanted])
    assert _sorted(block.scores[:, 0]) == _sorted(scores.astype(np.float32))
    found = np.concatenate([answer_rows(contract, o, len(f)) for f, o, _ in wanted])
    assert sorted(block.answers.tolist()) == sorted(found.tolist())


def _sorted(values: NDArray[np.float32]) -> list[str]:
    """As text, for NaN to equal itself."""
    return sorted(map(str, values.tolist()))


def test_what_takes_the_shortcut_is_drained_with_the_rest():
    contract = Contract((TensorSpec("x", "FP32", (-1, 2)),), CONTRACT.outputs[:2], ("a", "b", "c"))
    ring = Ring(contract, never, columns=True)
    assert ring.shortcut is not None
    p = np.array([[0.1, 0.2, 0.7]], np.float32)
    outputs: Outputs = {"label": np.zeros(1, np.int64), "p": p}
    ring.push(np.array([[1, 1]], np.float32), outputs, 1, 0.1)
    bad = np.array([[2, 2]], np.float32).tobytes() + (p * np.inf).tobytes()
    assert len(bad) == ring.shortcut.row_bytes
    ring.shortcut.rows.append((bad, 1, 0.1))
    twice = {name: np.concatenate([each, each]) for name, each in outputs.items()}
    ring.push(np.array([[3, 3], [4, 4]], np.float32), twice, 2, 0.1)
    block = ring.drain()
    assert block is not None
    assert (block.requests, block.rows, block.nonfinite) == (3, 4, 1)
    assert block.columns is not None
    assert block.columns[:, 0].tolist() == [1, 2, 3, 4]
    assert block.answers[:, 1].tolist() == [2, -1, 2, 2]
    assert ring.drain() is None


@pytest.mark.parametrize(
    "least, most, outside",
    [(None, None, 0), (0.0, None, 3), (None, 1.0, 3), (0.0, 1.0, 4), (-9.0, 9.0, 2)],
)
def test_rows_outside_of_the_range_are_counted_with_those_that_have_no_number(least, most, outside):
    spec = TensorSpec("x", "FP32", (-1, 2), minimum=least, maximum=most)
    ring = Ring(Contract((spec,), CONTRACT.outputs[:1]), never, columns=True)
    x = [[0, 1], [0.5, -1], [2, 0.5], [np.nan, 0], [-np.inf if most is None else np.inf, 0]]
    ring.push(np.array(x, np.float32), {"label": np.zeros(5, np.int64)}, 5, 0.1)
    block = ring.drain()
    assert block is not None
    assert block.outside == outside


@pytest.mark.parametrize(
    "width, outside", [pytest.param(None, 2, id="first input"), pytest.param(1, 0, id="made of it")]
)
def test_the_range_of_the_contract_is_that_of_the_first_input_alone(width, outside):
    spec = TensorSpec("x", "FP32", (-1, 1), minimum=0.0, maximum=1.0)
    ring = Ring(Contract((spec,), CONTRACT.outputs[:1]), never, columns=True, width=width)
    label = {"label": np.zeros(3, np.int64)}
    ring.push(np.array([[0.5], [2], [np.nan]], np.float32), label, 3, 0.1)
    block = ring.drain()
    assert block is not None
    assert (block.outside, block.scores) == (outside, None)


def test_a_score_of_whole_numbers_is_kept_and_one_of_another_length_is_not():
    contract = Contract(CONTRACT.inputs, (TensorSpec("score", "INT32", (-1,), role="score"),))
    ring = Ring(contract, never, columns=True, score=True)
    first = np.zeros((2, 2))
    ring.push(first, {"score": np.array([3, 4], np.int32)}, 2, 0.1)
    ring.push(first, {"score": np.array([5], np.int32)}, 2, 0.1)
    ring.push(first[:1], {"score": np.array([6], np.int32)}, 1, 0.1)
    block = ring.drain()
    assert block is not None
    assert block.scores is not None
    assert (block.requests, block.rows) == (3, 5)
    assert sorted(block.scores.tolist()) == [[3], [4], [6]]


@pytest.mark.parametrize("rows", [1, 3, 17, 100])
@pytest.mark.parametrize("contract", [CONTRACT, FREE], ids=["row by row", "a free dimension"])
def test_it_says_when_enough_rows_wait_however_many_come_at_once(contract, rows):
    told: list[int] = []
    ring = Ring(contract, lambda: told.append(1), columns=True)
    first, outputs, seconds = answer(rows, 1)
    for _ in range(2):
        for _ in range(-(-MAX_ROWS // rows) - 1):
            ring.push(first, outputs, rows, seconds)
        assert told == []
        ring.push(first, outputs, rows, seconds)
        assert told == [1]
        told.clear()
        ring.drain()


def test_it_says_at_once_when_a_request_is_large():
    told: list[int] = []
    ring = Ring(CONTRACT, lambda: told.append(1), columns=True)
    first, outputs, seconds = answer(MAX_ROWS, 1)
    ring.push(first, outputs, MAX_ROWS, seconds)
    assert told == [1]


def test_what_is_pushed_by_many_threads_is_drained_once():
    contract = Contract(CONTRACT.inputs, CONTRACT.outputs[:1], CONTRACT.classes)
    found: list[Block] = []
    draining = threading.Lock()

    def full() -> None:
        with draining:
            if (block := ring.drain()) is not None:
                found.append(block)

    ring = Ring(contract, full, columns=True)

    def push(number: int) -> None:
        for count in range(3 * MAX_ROWS):
            rows = 2 if count % 7 == 0 else 1
            first = np.full((rows, 2), number, np.float64)
            ring.push(first, {"label": np.zeros(rows, np.int64)}, rows, 0.1)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    full()
    each = sum(2 if count % 7 == 0 else 1 for count in range(3 * MAX_ROWS))
    assert ring.drain() is None
    assert sum(block.requests for block in found) == 4 * 3 * MAX_ROWS
    assert sum(int(block.latency.sum()) for block in found) == 4 * 3 * MAX_ROWS
    assert sum(block.rows for block in found) == 4 * each
    values = np.concatenate([block.columns for block in found if block.columns is not None])
    assert np.bincount(values[:, 0].astype(int)).tolist() == [each] * 4


def test_numbers_of_another_type_than_the_contract_says_are_counted_by_value():
    contract = Contract(
        (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("score", "INT32", (-1,), role="score"),)
    )
    ring = Ring(contract, never, columns=True, score=True)
    first = np.array([[1, 2], [3, 4]], np.int32)
    ring.push(first, {"score": np.array([0.5, 2], np.float32)}, 2, 0.1)
    block = ring.drain()
    assert block is not None
    assert block.columns is not None
    assert block.scores is not None
    assert sorted(block.columns.tolist()) == [[1, 2], [3, 4]]
    assert sorted(block.scores.tolist()) == [[0.5], [2]]


def test_wide_rows_wait_in_smaller_numbers():
    told: list[int] = []
    wide = Contract((TensorSpec("x", "FP32", (-1, 200_000)),), CONTRACT.outputs[:1])
    ring = Ring(wide, lambda: told.append(1), columns=True)
    ring.push(np.zeros((1, 200_000), np.float32), {"label": np.zeros(1, np.int64)}, 1, 0.1)
    assert told == [1]


@pytest.mark.parametrize("batch", [-1, 1], ids=["free", "always one row"])
def test_a_label_without_probabilities_is_counted(batch):
    contract = Contract(
        (TensorSpec("x", "FP32", (batch, 2)),),
        (TensorSpec("label", "INT64", (batch,), role="label"),),
        classes=("0", "1"),
    )
    ring = Ring(contract, never, columns=False)
    for label in (1, 1, 0, 7):
        ring.push(np.zeros((1, 2), np.float32), {"label": np.array([label])}, 1, 0.1)
    block = ring.drain()
    assert block is not None
    assert (block.columns, block.nonfinite) == (None, 0)
    assert block.answers[:, 1].tolist() == [1, 1, 0, -1]


def test_outputs_of_another_length_than_the_rows_are_counted_all_the_same():
    ring = Ring(CONTRACT, never, columns=True)
    first, outputs, seconds = answer(1, 1)
    ring.push(first, {**outputs, "p": np.full((5, 3), 1 / 3, np.float32)}, 1, seconds)
    block = ring.drain()
    assert block is not None
    assert (block.requests, block.rows, len(block.answers)) == (1, 1, 1)

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.watch.ring import MAX_ROWS, Ring


@given(st.lists(st.integers(0, 3 * MAX_ROWS), max_size=12), st.integers(1, 3))
def test_every_row_is_folded_once_and_in_order(sizes, columns):
    folded: list[float] = []
    ring = Ring(columns, lambda rows: folded.extend(rows[:, 0].tolist()))
    pushed = 0
    for size in sizes:
        rows = np.repeat(np.arange(pushed, pushed + size, dtype=np.float32)[:, None], columns, 1)
        ring.push(rows)
        pushed += size
        assert pushed - len(folded) < MAX_ROWS
    ring.flush()
    ring.flush()
    assert folded == [float(n) for n in range(pushed)]


def test_wide_rows_wait_in_smaller_numbers():
    blocks: list[int] = []
    ring = Ring(200_000, lambda rows: blocks.append(len(rows)))
    ring.push(np.zeros((3, 200_000), np.float32))
    ring.flush()
    assert blocks == [1, 1, 1]

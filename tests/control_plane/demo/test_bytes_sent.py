"""What the demo says of bytes is what control plane and devices counted."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.demo.bytes_sent import Bytes, Moved, moved, sentence
from control_plane.demo.transcript import Transcript

COUNTS = st.integers(0, 10**13)
MOST = st.builds(Bytes, COUNTS, COUNTS)


def payload(base: str | None, published: int, served: int = 0) -> dict[str, Any]:
    return {"base": base, "published_bytes": published, "served_bytes": served}


def test_bytes_are_those_that_left_over_the_broker_and_over_http_and_those_that_devices_fetched():
    payloads = [payload(None, 300), payload(None, 40, 2), payload("sha256-b", 20, 5)]
    counters = [
        {"fetched full bytes": 700, "answers": 9},
        {"fetched delta bytes": 80, "fetched full bytes": 1},
        {},
    ]
    assert moved(payloads, counters) == Moved(Bytes(342, 25), Bytes(701, 80))
    assert moved([], []) == Moved()


@pytest.mark.parametrize(
    "sent, fetched, said",
    [
        (Bytes(), Bytes(), ""),
        (Bytes(340_000), Bytes(), "340 kB full"),
        (Bytes(340_000), Bytes(2_720_000), "340 kB full; fetched 2.72 MB full"),
        (
            Bytes(340_000, 38_000),
            Bytes(0, 304_000),
            "340 kB full, 38.0 kB delta; fetched 304 kB delta",
        ),
        (Bytes(), Bytes(4_000, 500), "fetched 4.00 kB full, 500 B delta"),
    ],
)
def test_what_moved_is_said_full_and_as_deltas_and_nothing_of_nothing(sent, fetched, said):
    assert sentence(sent, fetched) == said


@given(MOST, MOST)
def test_the_lines_fit_80_columns(sent, fetched):
    stream = io.StringIO()
    Transcript(stream).line("sent", sentence(sent, fetched))
    assert all(len(line) <= 80 for line in stream.getvalue().splitlines())


@given(MOST, MOST)
def test_what_a_scene_moved_is_the_difference_of_two_looks(before, scene):
    assert (before + scene) - before == scene

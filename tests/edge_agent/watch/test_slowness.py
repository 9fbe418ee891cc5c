"""Slower means: by a factor that matters, by an amount that matters, and not by chance."""

import numpy as np
import pytest

from edge_agent.watch.health import Baseline, Terms, judge
from edge_agent.watch.slowness import slower
from protocol.histogram import LATENCY_SLOTS, latency_slot
from protocol.identifiers import digest_of
from protocol.members import Limits
from protocol.telemetry import InferenceWindow

MANIFEST = digest_of(b"manifest")
LIMITS = Limits()


def counts(*groups: tuple[int, float]) -> tuple[int, ...]:
    found = np.zeros(LATENCY_SLOTS, int)
    for n, seconds in groups:
        found[latency_slot(seconds)] += n
    return tuple(found.tolist())


BEFORE = counts((9_500, 0.004), (500, 0.006))


@pytest.mark.parametrize(
    "mine, before, limits, found",
    [
        pytest.param(counts((50, 0.004)), BEFORE, LIMITS, False, id="as fast"),
        pytest.param(counts((50, 0.001)), BEFORE, LIMITS, False, id="faster"),
        pytest.param(counts((50, 0.02)), BEFORE, LIMITS, True, id="five times, at once"),
        pytest.param(counts((5_000, 0.006)), BEFORE, LIMITS, False, id="not by enough"),
        pytest.param(
            counts((5_000, 0.0003)),
            counts((5_000, 0.0001)),
            LIMITS,
            False,
            id="three times next to nothing",
        ),
        pytest.param(counts((47, 0.004), (3, 0.5)), BEFORE, LIMITS, False, id="slow to begin with"),
        pytest.param(
            counts((700, 0.004), (100, 0.5)), BEFORE, LIMITS, True, id="slow again and again"
        ),
        pytest.param(
            counts((50, 0.006)),
            BEFORE,
            Limits(latency_ratio=1.2, latency_floor_s=0.001),
            True,
            id="a stricter policy",
        ),
        pytest.param(counts((50, 0.5)), counts((49, 0.004)), LIMITS, False, id="no baseline"),
        pytest.param((), BEFORE, LIMITS, False, id="no latencies"),
        pytest.param(counts((50, 0.5)), (), LIMITS, False, id="none before"),
    ],
)
def test_slower(mine, before, limits, found):
    assert (slower(mine, before, 1, limits) is not None) is found


def test_what_was_seen_is_said_in_milliseconds():
    def window(latency: tuple[int, ...]) -> InferenceWindow:
        return InferenceWindow(MANIFEST, MANIFEST, answers=sum(latency), latency=latency)

    before = Baseline(window(BEFORE), "digits/v2")
    terms = Terms(1800, 86_400, 50, LIMITS)
    verdict = judge(window(counts((200, 0.02))), before, (), terms)
    assert verdict.trigger == "latency"
    assert verdict.latency_looks == 3
    assert verdict.failed == "p95 21.3 ms, was 4.5 ms under digits/v2 (200 requests)"


def test_two_samples_of_one_distribution_hardly_ever_differ():
    """With the factor and the floor taken away, chance alone is what the looks are for."""
    rng = np.random.default_rng(7)
    limits = Limits(latency_ratio=1.0, latency_floor_s=0.0, alpha=0.05)
    alarms = 0
    for _ in range(400):
        before, mine = (
            counts(*((1, float(s)) for s in rng.lognormal(-5, 0.5, n))) for n in (400, 200)
        )
        alarms += slower(mine, before, 1, limits) is not None
    # One look of one test spends alpha / 6, and only slower counts: 400 * 0.05 / 6 is 3.3.
    assert alarms <= 10

"""Which of many tests are called together: Benjamini and Hochberg's step-up rule (1995).

A family has to hold every test that was done, also those that nobody looks at: with the rest left
out, its level would be another one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def called(tests: Mapping[K, float], q: float) -> tuple[frozenset[K], float]:
    """The tests that are called at level `q`, and the cut-off: those with p up to it are.

    The expected share of false ones among them is at most `q`; where nothing is to be found, that
    is the chance of any call. The cut-off is 0 where none is called. Raises `ValueError` for what
    is no p-value.
    """
    if not all(0 <= p <= 1 for p in tests.values()):
        raise ValueError("p-values lie between 0 and 1")
    count = len(tests)
    cut = 0.0
    for rank, p in enumerate(sorted(tests.values()), 1):
        if p <= q * rank / count:
            cut = q * rank / count
    if not cut:
        return frozenset(), 0.0
    return frozenset(name for name, p in tests.items() if p <= cut), cut

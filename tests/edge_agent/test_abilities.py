"""What a device says that it can decode is what it can decode."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_agent import abilities
from edge_agent.abilities import find_abilities
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_SEGMENTS,
    KNOWN_FEATURES,
    PLAIN_FEATURES,
)

DELTAS = FEATURE_SEGMENTS | FEATURE_PATCH | FEATURE_BSDIFF


@pytest.fixture
def installed(monkeypatch):
    """`find_abilities` of a device with these modules, and this version of brotli."""

    def of(*modules: str, brotli: str = "") -> int:
        monkeypatch.setattr(abilities, "_is_here", {*modules}.__contains__)
        monkeypatch.setattr(abilities, "version_of", lambda _: brotli)
        return find_abilities()

    return of


def test_whatever_is_missing_whole_payloads_can_be_decoded(installed):
    assert installed() == PLAIN_FEATURES
    assert installed("_lzma", "brotli", brotli="1.2.0") == PLAIN_FEATURES
    assert installed("zstandard") == installed("numpy") == PLAIN_FEATURES


def test_deltas_take_numpy_and_zstandard(installed):
    assert installed("numpy", "zstandard") == PLAIN_FEATURES | DELTAS


def test_a_python_without_lzma_says_so(installed):
    assert installed("numpy", "zstandard", "_lzma") == PLAIN_FEATURES | DELTAS | FEATURE_LZMA


@pytest.mark.parametrize(
    "version, counts",
    [
        ("1.2.0", True),
        ("1.10", True),
        ("2.0.0", True),
        ("1.1.0", False),
        ("1", False),
        ("", False),
        ("1.x", False),
    ],
)
def test_only_a_brotli_that_bounds_what_it_gives_counts(installed, version, counts):
    found = installed("numpy", "zstandard", "brotli", brotli=version)
    assert bool(found & FEATURE_BROTLI) == counts


def test_everything_is_installed_here_and_nothing_else_is_claimed():
    assert find_abilities() == KNOWN_FEATURES


def test_looking_loads_nothing():
    script = (
        "import sys; from edge_agent.abilities import find_abilities; find_abilities();"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"numpy", "brotli", "coding"} & set(said) == set()

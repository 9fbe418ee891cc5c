"""Moments as people write them."""

from datetime import UTC, datetime

import pytest

from protocol.moments import ago, ahead

NOW = datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def said(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="minutes")[:16]


@pytest.mark.parametrize(
    "text, moment",
    [
        ("1dec", "2026-12-01 00:00"),
        ("1Jan", "2027-01-01 00:00"),
        ("18nov", "2027-11-18 00:00"),
        ("2026-12-01", "2026-12-01 00:00"),
        ("2026-12-01T10:00:00+02:00", "2026-12-01 08:00"),
        ("14d", "2026-12-02 11:06"),
        ("6h", "2026-11-18 17:06"),
        ("30min", "2026-11-18 11:36"),
        ("2020-01-01", "2020-01-01 00:00"),
    ],
)
def test_a_moment_ahead(text, moment):
    assert said(ahead(text, NOW_MS)) == moment


@pytest.mark.parametrize(
    "text, moment",
    [("2h", "2026-11-18 09:06"), ("1d", "2026-11-17 11:06"), ("2026-11-01", "2026-11-01 00:00")],
)
def test_a_moment_ago(text, moment):
    assert said(ago(text, NOW_MS)) == moment


@pytest.mark.parametrize("text", ["", "soon", "1", "31feb", "29feb", "-3d", "12345d", "d"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError):
        ahead(text, NOW_MS)
    with pytest.raises(ValueError):
        ago(text, NOW_MS)

"""Thirty days without a link, window by window on a real file; and a year of restarts, to scale."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.edge_agent.test_quota import Site, on_disk, windows

pytestmark = pytest.mark.timeout(1800)

DAYS = 30
MINUTES = 1440


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM buf").fetchone()[0])


@pytest.mark.parametrize("quota", [20_000_000, 32_000_000])
def test_thirty_days_of_minutes_and_fifty_features_fit_twenty_megabytes(tmp_path, quota):
    """Restarted daily, every other time without being asked. Nothing but resolution is lost."""
    site = Site(tmp_path / "outbox.db", quota)
    site.windows = windows(random.Random(3), 100)
    for day in range(DAYS):
        site.many(MINUTES)
        site.restart(orderly=day % 2 == 0)
    site.check()
    state = site.outbox.state()
    print(f"{quota:,}: at most {site.most:,} bytes, {state}")
    assert site.most <= 20_000_000
    assert state.thinned == 0
    assert state.bytes == on_disk(site.path)


def test_restarts_every_hour_for_a_year_are_bounded_and_keep_every_count(tmp_path):
    """A tenth of a year in a tenth of the default quota: one window an epoch never merges."""
    site = Site(tmp_path / "outbox.db", 3_200_000)
    for hour in range(876):
        site.minute()
        site.restart(orderly=hour % 3 == 0)
    site.check()
    state = site.outbox.state()
    print(f"at most {site.most:,} bytes, {state}")
    assert state.merged == 0
    assert state.thinned > 0
    assert rows(site.path) == 2 * 876

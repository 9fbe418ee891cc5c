"""Two soak runs with fixed seeds: all of the machinery, and a little of the chance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = 209_600
"""Short ones with most kinds of faults and of wishes between the two."""
SCHEDULES = 2
LIMIT_S = 450
"""Of a busy machine; alone it takes about 40 s."""


@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S)
def test_the_invariants_hold_over_random_faults(tmp_path):
    command = [sys.executable, "-m", "tests.soak.run", "--workers=1"]
    command += [f"--schedules={SCHEDULES}", f"--seed={SEED}", f"--results={tmp_path / 'soak.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"soak: {SCHEDULES} schedules" in done.stdout
    assert " 0 violations" in done.stdout

"""The numbers of the page about drift are those of the code."""

from pathlib import Path

import pytest

from control_plane.drift import budget, heterogeneity, peers, robust, verdicts
from control_plane.drift.budget import terms
from protocol import edetector
from protocol.windows import PRIVATE_BELOW

PAGE = Path(__file__).parents[3] / "docs/explanation/drift.md"
STREAMS, VERSIONS = 31, 4


def rows(first: str) -> list[list[str]]:
    """Of the table whose first heading this is."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


@pytest.mark.parametrize("row", rows("Devices"), ids=lambda row: row[0])
def test_the_thresholds_of_the_page_follow_from_its_budget(row):
    devices = int(row[0].replace(",", ""))
    found = terms(
        1.0,
        streams=devices * STREAMS,
        starts=devices * STREAMS * VERSIONS,
        slots_per_year=8766,
        days_per_year=365.25,
    )
    assert row[1] == f"{found.ln_threshold:.1f}"
    assert row[2] in ("-", f"{found.peer_p:.1e}")
    assert row[3] in ("-", f"{found.cohort_q:.1e}")


@pytest.mark.parametrize(
    "said, meant",
    [
        ("fewer than 20 rows", PRIVATE_BELOW == 20),
        ("tilts of rank scores by .15, .4 and 1", edetector.TILTS == (0.15, 0.4, 1.0)),
        ("two standard deviations of the reference's own error", edetector.KAPPA == 2),
        ("first 60 windows", edetector.BURN_IN == 60),
        ("λ = 1/(1.5·VIF) where VIF is above 1.35", edetector.VIF_SAFETY == 1.5),
        ("A VIF of up to 1.35 cannot be told from 1", edetector.VIF_NOTED == 1.35),
        ("until then λ = 1/30", edetector.BURN_IN_EXPONENT == 1 / 30),
        ("ln M is capped at 40", edetector.CAP == 40),
        ("uses 15.4", edetector.DEFAULT_THRESHOLD == 15.4),
        ("2 of its last 3 hours", (peers.NEEDED, peers.LOOKED_AT) == (2, 3)),
        ("With 5 to 11 devices", (peers.LEAST_PEERS, peers.FITTED_FROM) == (5, 12)),
        ("nothing below 5", robust.LEAST_DEVICES == 5),
        ("plain means below 10 devices", robust.TRIMMED_FROM == 10),
        ("Yuen's t with 20 % trimmed means", robust.TRIM == 0.2),
        ("at least 12 devices", heterogeneity.LEAST_DEVICES == 12),
        ("the groups explain 85 %", heterogeneity.MOST_WITHIN == 0.15),
        ("lie .4 standard deviations apart", heterogeneity.LEAST_GAP == 0.4),
        ("needs a PSI above .02", verdicts.LEAST_PSI == 0.02),
        ("its PSI is above .02", verdicts.LEAST_PSI == 0.02),
        ("Never below 5.", budget.LEAST_LN == 5),
        ("at most 1e-4", budget.MOST_PEER_P == 1e-4),
        ("at most .05", budget.MOST_COHORT_Q == 0.05),
    ],
)
def test_what_the_page_says_is_what_the_code_does(said, meant):
    assert said in " ".join(PAGE.read_text(encoding="utf-8").split())
    assert meant

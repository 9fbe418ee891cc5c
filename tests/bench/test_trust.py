"""The measurement goes through and verifies what it says it verifies."""

import pytest

from tests.bench import trust
from tests.bench.trusting import publications
from tests.bench.trusting.verifier import PUBLICATIONS, WARM


@pytest.fixture
def published(tmp_path):
    return publications.publish(tmp_path / "fleet", 3)


@pytest.mark.parametrize("who", ["ours", "tuf", "dsse"])
def test_every_verifier_goes_through_all_publications_and_starts_again(tmp_path, published, who):
    with trust.http_server(published.folder) as url:
        found = trust.verify(who, published, tmp_path / "state", url)
    for step in (*PUBLICATIONS, WARM):
        assert found[f"CPU ms, {step}"] > 0, step
        assert found[f"bytes, {step}"] > 0, step
    assert found["RSS MB, cold"] > 5


@pytest.mark.parametrize(
    "publication, changed",
    [
        ("re-stamp", {"timestamp"}),
        ("plan change", {"timestamp", "snapshot", "rollouts", "plan"}),
        ("approval", {"timestamp", "snapshot", "models"}),
    ],
)
def test_a_publication_changes_what_its_name_says(published, publication, changed):
    before = published.of(PUBLICATIONS[PUBLICATIONS.index(publication) - 1])
    differs = {
        path.stem
        for path in published.of(publication).glob("*.json")
        if not (before / path.name).exists()
        or path.read_bytes() != (before / path.name).read_bytes()
    }
    assert differs - {"everything"} == changed

"""The catalogue: every code is complete, and areas mean what their letter says."""

import re

import pytest

from protocol.errors import Unavailable
from protocol.problems import CATALOGUE, problem

SLUGS_OF_REASONS = {
    "disk_full": "OUT-D201",
    "probe": "OUT-D301",
    "contract": "OUT-D302",
    "health": "OUT-D310",
    "crashes": "OUT-D311",
    "interrupted": "OUT-D312",
    "timeout": "OUT-D313",
    "superseded": "OUT-D314",
    "rescued": "OUT-D320",
    "agent_too_old": "OUT-D330",
}


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.code)
def test_every_problem_says_what_to_do(entry):
    assert re.fullmatch(r"OUT-[ABDFINPRST]\d{3}", entry.code)
    assert re.fullmatch(r"[a-z_]+", entry.slug)
    assert entry.title
    assert not entry.title.endswith(".")
    assert entry.help
    assert entry.exit in {1, 2, 3, 4, 5, 6, 7, 8, 9}
    assert 400 <= entry.status < 600


def test_slugs_are_distinct():
    assert len({entry.slug for entry in CATALOGUE.values()}) == len(CATALOGUE)


@pytest.mark.parametrize("slug, code", SLUGS_OF_REASONS.items())
def test_reasons_of_the_state_machine_have_their_codes(slug, code):
    assert problem(slug).code == code


def test_a_code_is_found_with_and_without_its_prefix():
    assert problem("D310") == problem("OUT-D310") == problem("health")
    with pytest.raises(KeyError):
        problem("D999")


def test_an_error_says_why_here_and_what_to_do():
    error = Unavailable("OUT-D201", "needs 48.0 MB", do="free 17 MB")
    assert (error.code, error.why, error.do) == ("OUT-D201", "needs 48.0 MB", "free 17 MB")
    assert Unavailable("OUT-D201").do == problem("OUT-D201").help

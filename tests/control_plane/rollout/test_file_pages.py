"""The pages about rollout files say what the code reads, and their examples can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from control_plane.rollout.conditions import UNITS, Gates
from control_plane.rollout.sizes import WAVE_FIELDS
from control_plane.rollout.spec import FIELDS, ShadowSpec, read_spec

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = (DOCS / "reference/rollout-file.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to/write-a-rollout-file.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    part = re.split(r"^#+ ", REFERENCE, flags=re.MULTILINE)
    section = next(each for each in part if each.startswith(f"{heading}\n"))
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(heading: str) -> list[str]:
    return [row[0].strip("`") for row in rows(heading)]


@pytest.mark.parametrize(
    "heading, fields",
    [
        ("Fields", FIELDS),
        ("Waves", WAVE_FIELDS),
        ("Conditions", ("bad", "healthy", "denominator", "min_completed", "phases")),
        ("Gates", tuple(UNITS)),
        ("Shadow", ("rows", "agreement")),
    ],
)
def test_the_page_lists_exactly_the_fields_that_are_read(heading, fields):
    assert names(heading) == list(fields)


def test_the_fields_of_a_condition_are_those_of_the_page():
    every = dict.fromkeys(names("Conditions"))
    for condition, subject in (("error_condition", "bad"), ("success_condition", "healthy")):
        other = {"bad", "healthy"} - {subject}
        body = {
            name: {"denominator": "activated", "min_completed": 1}.get(name, "> 5 %")
            for name in every.keys() - other - {"phases"}
        }
        spec = read_spec({"version": "digits/v2", condition: body})
        assert getattr(spec, condition) is not None


@pytest.mark.parametrize("row", rows("Fields"), ids=lambda row: row[0])
def test_every_example_of_the_page_can_be_read(row):
    name, example = row[0].strip("`"), yaml.safe_load(row[3].strip("`"))
    spec = read_spec({"version": "v2" if name == "model" else "digits/v2", name: example})
    if name not in ("kind", "model", "version"):
        assert spec != read_spec({"version": "digits/v2"})


@pytest.mark.parametrize("row", rows("Gates"), ids=lambda row: row[0])
def test_every_default_margin_of_the_page_is_that_of_the_code(row):
    name, default = row[0].strip("`"), yaml.safe_load(row[2].strip("`"))
    unit = UNITS[name][0]
    margin = default[unit] if default else None  # YAML reads "off" as no
    assert margin == getattr(Gates(), name)
    assert row[1].startswith(f"`{unit}`, above {UNITS[name][1]:g}")


def test_the_defaults_of_the_page_are_those_of_the_code():
    defaults = {row[0].strip("`"): row[2].strip("`") for row in rows("Fields")}
    spec = read_spec({"version": "digits/v2"})
    for name, field in (
        ("silent_after", "silent_after_s"),
        ("plan_max_age", "plan_max_age_s"),
        ("insufficient_after", "insufficient_after_s"),
        ("season", "season_s"),
    ):
        said = read_spec({"version": "digits/v2", name: defaults[name]})
        assert getattr(said, field) == getattr(spec, field)
    for name in ("to", "on_failure", "on_insufficient", "unproven"):
        assert defaults[name] == getattr(spec, name)
    exposures = yaml.safe_load(defaults["exposures"])
    assert read_spec({"version": "digits/v2", "exposures": exposures}) == spec
    assert read_spec({"version": "digits/v2", "failure_limit": defaults["failure_limit"]}) == spec
    for name, default in defaults.items():
        if default == "none" and name != "kind":
            field = name if hasattr(spec, name) else f"{name}_s"
            assert getattr(spec, field) in (None, ())
    shadow = {row[0].strip("`"): yaml.safe_load(row[2].strip("`")) for row in rows("Shadow")}
    assert read_spec({"version": "digits/v2", "shadow": shadow}).shadow == ShadowSpec()


@pytest.mark.parametrize("text", EXAMPLES, ids=[str(n) for n in range(1, len(EXAMPLES) + 1)])
def test_every_example_of_the_how_to_is_a_rollout(text):
    spec = read_spec(yaml.safe_load(text))
    assert spec.model == "digits"


def test_the_how_to_has_examples_of_most_fields():
    used = {name for text in EXAMPLES for name in yaml.safe_load(text)}
    assert set(FIELDS) - used == {"model", "silent_after", "plan_max_age"}

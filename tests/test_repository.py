"""The repository's own promises: exceptions have reasons, and every dependency is pinned."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

# Lists whose every entry is an exception to a rule.
LISTS_OF_EXCEPTIONS = ("ignore =", '"tests/**" =', "filterwarnings =", "ignore_imports =")
# Headings under which everything is an exception: one comment at the top speaks for all.
HEADINGS_OF_EXCEPTIONS = ("[[tool.mypy.overrides]]",)


def unexplained_exceptions(text: str) -> list[str]:
    unexplained = []
    inside = False
    above = ""
    for line in map(str.strip, text.splitlines()):
        opens = line.startswith(LISTS_OF_EXCEPTIONS)
        on_one_line = opens and not line.endswith("[")
        explained = "#" in line or above.startswith("#")
        if line == "]":
            inside = False
        elif (inside or on_one_line) and not explained:
            unexplained.append(line)
        elif above in HEADINGS_OF_EXCEPTIONS and not explained:
            unexplained.append(f"{above} {line}")
        inside = inside or (opens and not on_one_line)
        above = line
    return unexplained


def test_every_exception_to_a_rule_has_a_reason():
    assert unexplained_exceptions(PYPROJECT) == []


def test_an_exception_without_a_reason_is_found():
    text = """
        ignore = [
            "A1", # so
            # and so
            "A2",
            "A3",
        ]
        ignore_imports = ["a -> b"]
        [[tool.mypy.overrides]]
        module = ["x"]
    """
    assert unexplained_exceptions(text) == [
        '"A3",',
        'ignore_imports = ["a -> b"]',
        '[[tool.mypy.overrides]] module = ["x"]',
    ]


def declared_requirements() -> list[Requirement]:
    project = tomllib.loads(PYPROJECT)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    every = [Requirement(text) for group in groups for text in group]
    return [each for each in every if each.name != project["name"]]


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in pins}


def test_every_dependency_is_pinned_to_a_version_it_allows():
    pins = pinned_versions()
    wrong = [
        str(requirement)
        for requirement in declared_requirements()
        if (version := pins.get(canonicalize_name(requirement.name))) is None
        or version not in requirement.specifier
    ]
    assert wrong == []

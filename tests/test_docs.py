"""The pages: links lead somewhere, and the reference is what the code says."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import control_plane.settings
import edge_agent.settings
from protocol.problems import CATALOGUE
from protocol.topics import Topics
from scripts import reference
from tests import walkthrough

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial/first-fleet.md"
THREATS = DOCS / "explanation/threat-model.md"
EXECUTED = (TUTORIAL, *sorted((DOCS / "how-to").glob("*.md")))
# It is about running tests: carried out by a test, it would run itself.
ABOUT_TESTS = DOCS / "how-to/run-tests-and-benchmarks.md"

# Not followed by a name in brackets: images and footnotes are links too.
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    return _FENCED.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = _HEADING.findall(prose(path))
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


def broken_links(path: Path) -> Iterator[str]:
    for link in _LINK.findall(prose(path)):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield f"{shown(path)}: {link}"


def test_every_link_leads_somewhere():
    assert [link for path in PAGES for link in broken_links(path)] == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](page.md#one-two) [b](nowhere.md) [c](#three)\n")
    assert list(broken_links(page)) == ["page.md: nowhere.md", "page.md: #three"]


@pytest.mark.parametrize("name", list(reference.pages()))
def test_a_generated_page_is_what_the_code_says(name):
    committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert committed == reference.pages()[name], "the code has changed: run `make docs`"


def test_every_command_and_option_is_in_the_reference():
    page = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    missing = [
        f"{name} {spelling}"
        for name, command in reference.commands().items()
        for option in reference.options(command)
        for spelling in (f"## {name}\n", *option.opts, *option.secondary_opts)
        if spelling not in page and spelling.upper() not in page
    ]
    assert missing == []
    unknown = set(reference.OWN_EXITS) - set(reference.commands())
    assert not unknown, "exit codes of commands that do not exist"


def test_the_exit_codes_are_those_of_the_problems():
    used = {problem.exit for problem in CATALOGUE.values()}
    assert used <= set(reference.EXITS)


def test_every_endpoint_is_in_the_reference():
    page = (DOCS / "reference/api.md").read_text(encoding="utf-8")
    every = [f"### {method} {path}\n" for method, path, _ in reference.endpoints()]
    assert len(every) > 20
    assert [each for each in every if each not in page] == []


def test_every_problem_is_in_the_reference():
    page = (DOCS / "reference/problems.md").read_text(encoding="utf-8")
    assert [code for code in CATALOGUE if f"`{code}`" not in page] == []


def test_every_topic_is_in_the_reference():
    # Every public way to build one; the rest are the prefix, filters and readers.
    builders = {name for name in vars(Topics) if not name.startswith("_")}
    assert builders - set(reference.TOPICS) == {"fleet", "prefix", "up_filter", "parse_up"}


def test_every_setting_is_in_the_reference():
    page = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    names = [
        field.name
        for each in (
            control_plane.settings.Settings,
            control_plane.settings.Intervals,
            edge_agent.settings.Settings,
            edge_agent.settings.Intervals,
        )
        for field in dataclasses.fields(each)
        if field.name not in ("home", "paths", "intervals")
    ]
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_every_setting_says_what_it_means():
    page = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (`\w+`) .*\|  \|$", page, re.MULTILINE) == []


def test_the_decision_table_is_that_of_the_code():
    source = ROOT / "edge_agent/reconcile.py"
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    table = "\n".join(line for line in docstring.splitlines() if line.startswith("|"))
    page = (DOCS / "explanation/updates.md").read_text(encoding="utf-8")
    assert table in page, "copy it from edge_agent/reconcile.py"


def test_the_quick_tour_is_part_of_the_tutorial():
    tour = [command.line for command in walkthrough.read(ROOT / "README.md").commands]
    tutorial = [command.line for command in walkthrough.read(TUTORIAL).commands]
    assert tour
    rest = iter(tutorial)
    assert [line for line in tour if line not in rest] == [], "not in the tutorial, in this order"


def test_every_page_with_commands_is_carried_out():
    from tests.e2e import test_ceremony_pages, test_tutorial
    from tests.edge_agent.sdk import test_page

    with_commands = {path.stem for path in EXECUTED if walkthrough.read(path).commands}
    carried_out = {*test_tutorial.PAGES, *test_ceremony_pages.PAGES, test_page.PAGE.stem}
    assert with_commands == {TUTORIAL.stem, *carried_out}
    assert not walkthrough.read(ABOUT_TESTS).commands


def test_what_the_page_about_tests_names_is_there():
    text = ABOUT_TESTS.read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z-]+)\b", text)) - {"it"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [each for each in sorted(targets) if f"\n{each}:" not in makefile] == []
    folders = re.findall(r"`(tests/[\w./]+)`", text)
    assert [each for each in folders if not (ROOT / each).exists()] == []


# --- the threat model -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Threat:
    arrow: str
    letter: str
    answer: str
    """What stops it, and who tried."""


def threats(text: str) -> list[Threat]:
    part = text.partition("## Arrow by arrow")[2].partition("\n## ")[0]
    found = []
    for section in part.split("\n### ")[1:]:
        arrow, _, rows = section.partition("\n")
        for letter, answer in re.findall(r"^\| ([STRIDE]) \| .*? \| (.*) \|$", rows, re.MULTILINE):
            found.append(Threat(arrow, letter, answer))
    return found


def test_every_arrow_of_the_threat_model_answers_all_letters():
    answered: dict[str, set[str]] = {}
    for threat in threats(THREATS.read_text(encoding="utf-8")):
        answered.setdefault(threat.arrow, set()).add(threat.letter)
    assert len(answered) == 14
    assert {
        arrow: "".join(sorted(letters)) for arrow, letters in answered.items()
    } == dict.fromkeys(answered, "DEIRST")


def test_every_threat_was_tried_or_is_said_to_be_open():
    rows = threats(THREATS.read_text(encoding="utf-8"))
    unanswered = [each for each in rows if "](../../tests/" not in each.answer]
    assert [each for each in unanswered if not re.search(r"[Oo]pen: \[R\d+\]", each.answer)] == []


def test_every_test_that_the_threat_model_names_exists_and_tests_something():
    text = THREATS.read_text(encoding="utf-8")
    named = re.findall(r"\[(\w+)\]\(\.\./\.\./(tests/[\w/]+\.py)\)", text)
    assert len(named) > 50
    assert [path for _, path in named if not (ROOT / path).exists()] == []
    assert [(name, path) for name, path in named if Path(path).stem != name] == []
    assert [path for _, path in named if "\ndef test_" not in (ROOT / path).read_text()] == []


def test_every_open_threat_of_the_threat_model_is_among_what_remains():
    arrows, _, rest = THREATS.read_text(encoding="utf-8").partition("## What remains")
    remains = re.findall(r"^\| (R\d+) \|", rest, re.MULTILINE)
    assert remains == [f"R{number}" for number in range(1, len(remains) + 1)]
    assert set(re.findall(r"\[(R\d+)\]", arrows)) <= set(remains)


# --- how pages are read ---------------------------------------------------------------------------


def test_a_page_is_read_as_commands_with_what_they_show(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```yaml\n# a.yaml\nx: 1\n```\n"
        "```console\n$ one   # why\n$ two &\nready\n$ three # exit 8\n\nnot yet\nSure? [y/N] y\n"
        "$ for x in y\n> do z\n```\n<!-- at the end -->\n```sh\n$ last\n```\n"
    )
    read = walkthrough.read(page)
    assert read.steps == (
        walkthrough.File("a.yaml", "# a.yaml\nx: 1\n"),
        walkthrough.Command("one"),
        walkthrough.Command("two", ("ready",), 0, background=True),
        walkthrough.Command("three", ("not yet", "Sure? [y/N] y"), 8),
        walkthrough.Command("for x in y\ndo z"),
    )
    assert read.last == (walkthrough.Command("last"),)
    assert read.commands[2].answers == "y\n"


@pytest.mark.parametrize(
    "shown, seen, same",
    [
        ("state  3 of 4", "state  12 of 400\n", True),
        ("state  3 of 4", "state  12 from 400\n", False),
        ("a ... c", "a b b c\n", True),
        ("a\n...\nc", "a\nb\nb\nc\n", True),
        ("a\n...\nc", "a\nc\n", True),
        ("a\n...", "a\nb\n", True),
        ("a", "a\nb\n", False),
        ("sha256-9f2c41d0", "sha256-0a1b2c3d\n", True),
        ("", "", True),
    ],
)
def test_figures_and_dots_stand_for_others(shown, seen, same):
    lines = tuple(line for line in shown.splitlines() if line)
    assert walkthrough.agrees(lines, seen) is same

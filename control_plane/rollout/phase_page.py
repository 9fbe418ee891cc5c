"""The reference page of phases, made from the table."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from typing import Final

from control_plane.rollout.phase import OVERDUE
from control_plane.rollout.phase_table import (
    AHEAD,
    GIVEN_UP,
    HEARD,
    IN_PROGRESS,
    MEANING,
    PHASES,
    SAID,
    TABLE,
    Phase,
    Said,
)
from protocol.problems import CATALOGUE

WIDTH: Final = 100
_HEAD: Final = """\
# Phases of a device in a rollout

<!-- Made by scripts/reference.py: change the code, then run `make docs`. -->

Each device of a rollout is in exactly one phase. Only two things move it: its newest report, and
time. Reports are complete, and the one with the highest `order` is the newest: an older one that
arrives later changes nothing, and neither does the same one twice.
"""
_SAYS: Final = """
## What a report says

An end counts before a beginning: kept, gone back, given up; then serves; then too old; then how far
it is on its way.
"""
_TABLE: Final = """
## Before, what the newest report says, and after

Rows are phases before, columns what the report says; `·` stays as it is.
"""
_NOTES: Final = """
- **A device that gave the candidate up** stays counted as that through all its further tries, until
  it keeps the candidate. `outrider rollout retry` begins a new attempt: those devices are targeted
  again, and what they said of earlier attempts counts no more.
- **A device that was reset** (its disk was wiped) reports nothing of the candidate. It is targeted
  again, whatever it had been, except after `failed` and `rolled_back`: a reset undoes no failure.
- **Reasons without fault** (the candidate was superseded or revoked before it was judged) are no
  failure: the device is where its report says that it is.
- **A pin** takes a device out as long as it has not activated the candidate. After that it stays in
  the counts as what it was.
- **Labels** that change before activation take a device out of the rollout, into it, or to another
  wave; a device whose labels changed after the start comes with 100 % only. After activation it
  stays until the end.
- **A retired device** is in no rollout from then on. Its replacement is a new device.
"""


def phases_page() -> str:
    """The whole of docs/reference/rollout-phases.md."""
    parts = [_HEAD, _meanings(), "## The way", _diagram(), _SAYS, _saids()]
    parts += [_TABLE, _grid(), _listing(_NOTES), "## What time does", _listing(_time())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _listing(text: str) -> str:
    """A list, one item from each line that begins with a dash, wrapped."""
    items = text.strip().split("\n- ")
    return "\n".join(
        textwrap.fill(
            "- " + " ".join(item.removeprefix("- ").split()),
            WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )


def _meanings() -> str:
    lines = ["| Phase | Meaning |", "|---|---|"]
    lines += [f"| `{phase}` | {MEANING[phase]} |" for phase in PHASES]
    return "\n".join(lines)


def _saids() -> str:
    lines = ["| Report | Meaning |", "|---|---|"]
    lines += [f"| {said} | {meaning} |" for said, meaning in SAID.items()]
    return "\n".join(lines)


def _grid() -> str:
    lines = ["| | " + " | ".join(SAID) + " |", "|---" * (len(SAID) + 1) + "|"]
    for phase, row in TABLE.items():
        cells = ["·" if row[said] == phase else row[said] for said in SAID]
        lines.append(f"| **{phase}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_FORWARD: Final[tuple[Said, ...]] = ("heads for it", "fetches", "on disk", "serves", "kept")


def _diagram() -> str:
    """Steps of a device that reports each of them; the grid has those that skip some."""
    arrows: dict[tuple[Phase, Phase], list[str]] = defaultdict(list)
    phase: Phase = "targeted"
    for said in _FORWARD:
        after = TABLE[phase][said]
        arrows[phase, after].append(said)
        phase = after
    beside: tuple[tuple[Phase, Said], ...] = (
        ("staged", "given up"),
        ("activated", "kept idle"),
        ("activated", "gone back"),
        ("healthy", "gone back"),
        ("failed", "kept"),
        ("rolled_back", "kept"),
        ("targeted", "too old"),
        ("targeted", "pinned"),
        ("excluded", "heads for it"),
        ("healthy", "elsewhere"),
    )
    for phase, said in beside:
        arrows[phase, TABLE[phase][said]].append(said)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> targeted"]
    lines += [f"    {a} --> {b}: {', '.join(said)}" for (a, b), said in arrows.items()]
    lines += [f"    {phase} --> silent: no contact" for phase in HEARD]
    return "\n".join([*lines, "```"])


def _time() -> str:
    heard, ahead = _listed(HEARD), _listed(AHEAD)
    title = CATALOGUE[OVERDUE].title
    return f"""
- **Silent.** A device that is {heard} and has had no contact for longer than its allowance
  counts as `silent`. Any contact ends that: it counts as what it last reported. One that is
  {ahead} is *not linked* instead: it stays in its phase, and nobody waits for it.
- **Allowance.** The longest of `silent_after` and twice the device's own longest time without
  contact in the last one to two weeks, of which at most 72 h count. Allowances begin again when the
  control plane has been away: nobody is silent for time in which nobody listened.
- **Overdue.** With `in_progress_timeout`, a device that is {_listed(IN_PROGRESS)} for longer
  than that, all these phases together, counts as `failed` with reason {OVERDUE} ({title}), until
  it comes to an end. Its time begins again when it is heard after it was quiet.
- **One count.** A device that is {_listed(GIVEN_UP)} is not silent as well.
- **The end of a rollout.** Phases stay as they are then.
"""


def _listed(phases: tuple[Phase, ...]) -> str:
    *others, last = (f"`{phase}`" for phase in phases)
    return f"{', '.join(others)} or {last}"

"""One look at a rollout, as lines. Pure: the API's body in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from control_plane.cli import showing
from control_plane.cli.screen import WIDTH
from protocol.wording import date, share

RIGHT: Final = 75
"""Column at which the time ends."""
_FIRST: Final = ("targeted", "reached", "staged", "activated", "healthy")
_ENDS: Final = ("failed", "rolled_back", "silent", "refused")
_RARE: Final = ("unexercised", "unlinked")
_WORDS: Final = {"rolled_back": "rolled back", "unlinked": "not linked"}
_LABEL: Final = 11

Shown = Mapping[str, Any]


def frame(shown: Shown, now_ms: int) -> Iterator[str]:
    """A line, the verdict, and a tree of waves; at the end, what became of it."""
    match shown["status"]:
        case "completed":
            yield from _completed(shown, now_ms)
        case "aborted":
            yield from _aborted(shown, now_ms)
        case _:
            yield from _going(shown, now_ms)


def _going(shown: Shown, now_ms: int) -> Iterator[str]:
    waves = shown["waves"]
    where = f"wave {shown['wave']} of {len(waves)}" if shown["wave"] else f"{len(waves)} waves"
    yield _timed(f"{_head(shown)}   {where}, {shown['status']}", now_ms, now_ms)
    if shown["status"] == "paused" and shown["why"]:
        yield _row("why", shown["why"])
    if shown["sentence"]:
        yield _row("verdict", _verdict(shown))
    before = 0
    for number, wave in enumerate(waves, start=1):
        last = number == len(waves)
        branch, below = ("└─", "  ") if last else ("├─", "│ ")
        if wave["state"] == "waiting":
            more = wave["devices"] - before
            waits = "waits" if more == 1 else "wait"
            behind = f"wave {number - 1}" if number > 1 else "its plan"
            yield f"{branch} wave {number}  {more:,} {waits} for {behind}"
        else:
            counts = wave["counts"]
            yield f"{branch} wave {number}  {_counted(counts, _FIRST)}"
            yield f"{below}         {_counted(counts, _ENDS)}"
            rare = tuple(name for name in _RARE if counts.get(name))
            if rare:
                yield f"{below}         {_counted(counts, rare)}"
        before = wave["devices"]
    if shown["reasons"]:
        yield _row("reasons", _reasons(shown["reasons"]))


def _completed(shown: Shown, now_ms: int) -> Iterator[str]:
    counts, pending = shown["counts"], shown["pending"] or 0
    candidate = f"{shown['model']}/{shown['version']}"
    if not pending:
        healthy = share(counts["healthy"], shown["targeted"])
        yield f"{shown['id']}  {candidate}  completed  {healthy} healthy"
        return
    head = f"{shown['id']}   completed for reachable devices, {pending:,} pending"
    yield _timed(head, _ended(shown, now_ms), now_ms)
    yield f"└─ wave {shown['wave']}  {_counted(counts, _FIRST)}"
    get = "gets it when it returns" if pending == 1 else "get it when they return"
    yield _row("stable", f"{candidate} (plan {shown['plan']}); the {pending:,} {get}")


def _aborted(shown: Shown, now_ms: int) -> Iterator[str]:
    itself = shown["verdict"] == "fail" and shown["why"] == shown["sentence"]
    head = f"{_head(shown)}   aborted{' by itself' if itself else ''}"
    yield _timed(head, _ended(shown, now_ms), now_ms)
    if shown["why"]:
        yield _row("why", shown["why"])
    if shown["reasons"]:
        yield _row("" if shown["why"] else "why", _reasons(shown["reasons"]))
    returning = shown.get("returning")
    if returning and returning["of"]:
        waiting = returning["of"] - returning["confirmed"]
        confirmed = share(returning["confirmed"], returning["of"])
        may = ", the others may run it until they read the plan" if waiting else ""
        yield _row("returning", f"from their own disk: {confirmed} confirmed{may}")
    yield _row("next", "outrider device list")


def _verdict(shown: Shown) -> str:
    sentence: str = shown["sentence"]
    return sentence if sentence.startswith("pass") else f"{shown['verdict']}: {sentence}"


def _head(shown: Shown) -> str:
    over = f" over {shown['model']}/{shown['over']}" if shown["over"] else ""
    return f"{shown['id']}   {shown['model']}/{shown['version']}{over}"


def _timed(text: str, at_ms: int, now_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    today = at.date() == datetime.fromtimestamp(now_ms / 1000, UTC).date()
    time = f"{at:%H:%M:%S} UTC" if today else date(at_ms, now_ms)
    return f"{text}  {time:>{max(0, RIGHT - len(text) - 2)}}"


def _ended(shown: Shown, now_ms: int) -> int:
    return showing.moment_ms(shown["ended"]) or now_ms


def _counted(counts: Mapping[str, int], names: tuple[str, ...]) -> str:
    return "  ".join(f"{_WORDS.get(name, name)} {counts[name]:,}" for name in names)


def _reasons(reasons: Mapping[str, int]) -> str:
    if len(reasons) == 1:
        return f"each for {next(iter(reasons))}"
    return ", ".join(f"{count:,} for {code}" for code, count in sorted(reasons.items()))


def _row(label: str, text: str) -> str:
    """One line, or several of 80 columns."""
    return textwrap.fill(
        text, WIDTH, initial_indent=f"{label:<{_LABEL}}", subsequent_indent=" " * _LABEL
    )

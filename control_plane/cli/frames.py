"""One look at a rollout, as lines. Pure: the API's body in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from control_plane.cli import scores, showing
from control_plane.cli.screen import WIDTH
from protocol.wording import date, duration, share

RIGHT: Final = 75
"""Column at which the time ends."""
APPROVAL: Final = "OUT-R205"
"""What a rollout asks whose next wave a person lets begin."""
MOST_NAMED: Final = 3
"""So many devices that were not reached are named."""
AWAY_S: Final = 600.0
"""A device that was heard since will read its plan in a moment: it is only counted."""
_FIRST: Final = ("targeted", "reached", "staged", "activated", "healthy")
_ENDS: Final = ("failed", "rolled_back", "silent", "refused")
_RARE: Final = ("unexercised", "unlinked", "excluded")
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


# --- under way ------------------------------------------------------------------------------------


def _going(shown: Shown, now_ms: int) -> Iterator[str]:
    waves = shown["waves"]
    where = f"wave {shown['wave']} of {len(waves)}" if shown["wave"] else f"{len(waves)} waves"
    yield _timed(f"{_head(shown)}   {where}, {shown['status']}", now_ms, now_ms)
    if shown["status"] == "paused" and shown["why"] and shown["why"] != shown["sentence"]:
        yield _row("why", shown["why"])
    if shown["sentence"]:
        yield _row("verdict", _verdict(shown))
    if shown["attempt"] > 1:
        yield _row("attempt", f"{shown['attempt']}: devices that gave it up before try again")
    yield from _tree(shown)
    yield from _beside(shown)
    yield from _soak(shown)
    yield from _control(shown)
    if shown["reasons"]:
        yield _row("reasons", _reasons(shown["reasons"]))
    yield from _asks(shown)


def _tree(shown: Shown) -> Iterator[str]:
    """Every wave; below the newest that has begun, what is known of it beside its counts."""
    waves, before = shown["waves"], 0
    for number, wave in enumerate(waves, start=1):
        branch, below = ("└─", "  ") if number == len(waves) else ("├─", "│ ")
        margin = f"{below}{' ' * (_LABEL - 2)}"
        if wave["state"] == "waiting":
            yield f"{branch} wave {number}  {_waits(wave, number, before)}"
        else:
            counts = wave["counts"]
            yield f"{branch} wave {number}  {_counted(counts, _FIRST)}"
            loads = ("downloading",) if counts.get("downloading") else ()
            yield margin + _counted(counts, (*loads, *_ENDS))
            rare = tuple(name for name in _RARE if counts.get(name))
            if rare:
                yield margin + _counted(counts, rare)
            if number == shown["wave"]:
                yield from _wrapped(margin, scores.lines(shown["gates"]))
                yield from _wrapped(margin, _not_reached(shown["not_reached"]))
        before = wave["devices"]


def _waits(wave: Shown, number: int, before: int) -> str:
    more = wave["devices"] - before
    behind = f"wave {number - 1}" if number > 1 else "its plan"
    approval = ", then for approval" if wave["approve"] else ""
    return f"{more:,} {'waits' if more == 1 else 'wait'} for {behind}{approval}"


def _wrapped(margin: str, lines: Iterable[str]) -> Iterator[str]:
    """Within the tree; the columns of a table fit as they are."""
    for line in lines:
        if len(margin + line) <= WIDTH:
            yield margin + line
        else:
            yield textwrap.fill(line, WIDTH, initial_indent=margin, subsequent_indent=margin)


def _not_reached(away: Shown) -> Iterator[str]:
    """Why a device is silent nobody here knows; when it was heard is known."""
    named = [
        f"{each['device']}, {_heard(each['silent_seconds'])}"
        for each in away["newest"]
        if each["silent_seconds"] is None or each["silent_seconds"] >= AWAY_S
    ][:MOST_NAMED]
    more = away["devices"] - len(named)
    if named:
        yield f"not reached: {'; '.join(named)}" + (f"; and {more:,} more" if more else "")


def _heard(silent_s: float | None) -> str:
    return "never heard" if silent_s is None else f"heard {duration(silent_s)} ago"


def _beside(shown: Shown) -> Iterator[str]:
    """How far the devices of the wave are that run the version beside the one before."""
    shadow = shown["shadow"]
    if shadow is None or not shown["wave"]:
        return
    compared = (
        f"{share(shadow['with_rows'], shadow['devices'])} devices compared "
        f"{shadow['rows_wanted']:,} rows"
    )
    if shadow["rows"]:
        part = f"{100 * shadow['agreed'] / shadow['rows']:.3g} %"
        compared += f"; {share(shadow['agreed'], shadow['rows'])} agree ({part})"
    wanted = f"wanted {100 * shadow['agreement_wanted']:g} %"
    until = "nothing activates before" if shadow["active"] else "they may activate"
    yield _row("shadow", f"{compared}, {wanted}; {until}")


def _soak(shown: Shown) -> Iterator[str]:
    soak = shown["soak"]
    if soak is None or shown["status"] != "running":
        return
    whole = duration(soak["seconds"])
    if soak["left_seconds"] is None:
        yield _row("soak", f"{whole}, from when enough devices have activated")
    elif soak["left_seconds"] > 0:
        yield _row("soak", f"{duration(soak['left_seconds'])} left of {whole}")
    else:
        yield _row("soak", f"{whole}, over")


def _control(shown: Shown) -> Iterator[str]:
    control = shown["control"]
    if not shown["wave"]:
        return
    if not control["devices"]:
        yield _row("control", "no device is left to compare with")
        return
    on = f"on {shown['model']}/{control['version']}" if control["version"] else "without a version"
    yield _row("control", f"{control['devices']:,} {on}, {control['reporting']:,} reporting")


def _asks(shown: Shown) -> Iterator[str]:
    """What a person decides now, and how."""
    asked, name = shown["waits_for"], shown["id"]
    if asked is None:
        return
    if asked["code"] == APPROVAL:
        yield _row("next", f"outrider rollout approve {name}")
        return
    what = f"wave {asked['wave']}" if asked["wave"] else "its completion"
    yield _row("next", f"outrider rollout explain {name}")
    yield _row("", f"then: outrider rollout approve {name}   for {what}")
    yield _row("", f"or:   outrider rollout abort {name}")


# --- ended ----------------------------------------------------------------------------------------


def _completed(shown: Shown, now_ms: int) -> Iterator[str]:
    counts, pending = shown["counts"], shown["pending"] or 0
    candidate = f"{shown['model']}/{shown['version']}"
    if not pending:
        said = f"{share(counts['healthy'], shown['targeted'])} healthy"
        others = [name for name in ("unexercised", *_ENDS) if counts.get(name)]
        yield f"{shown['id']}  {candidate}  completed  {said}"
        if others:
            yield _row("others", _counted(counts, tuple(others)))
        return
    head = f"{shown['id']}   completed for reachable devices, {pending:,} pending"
    yield _timed(head, _ended(shown, now_ms), now_ms)
    yield f"└─ wave {shown['wave']}  {_counted(counts, _FIRST)}"
    get = "gets it when it returns" if pending == 1 else "get it when they return"
    plan = f" (plan {shown['plan']})" if shown["plan"] else ""
    yield _row("stable", f"{candidate}{plan}; the {pending:,} {get}")


def _aborted(shown: Shown, now_ms: int) -> Iterator[str]:
    itself = shown["verdict"] == "fail" and shown["why"] == shown["sentence"]
    head = f"{_head(shown)}   aborted{' by itself' if itself else ''}"
    yield _timed(head, _ended(shown, now_ms), now_ms)
    if shown["why"]:
        yield _row("why", shown["why"])
    if shown["reasons"]:
        yield _row("" if shown["why"] else "why", _reasons(shown["reasons"]))
    if shown.get("kept"):
        candidate = f"{shown['model']}/{shown['version']}"
        yield _row("kept", f"devices that run {candidate} keep it until a later rollout completes")
    yield from _returning(shown)
    if shown["superseded_by"]:
        yield _row("next", f"outrider rollout status {shown['superseded_by']}")
    elif shown["evidence"]:
        yield _row("next", f"outrider rollout explain {shown['id']}")
    else:
        yield _row("next", "outrider device list")


def _returning(shown: Shown) -> Iterator[str]:
    returning = shown.get("returning")
    if not returning or not returning["of"]:
        return
    said = f"from their own disk: {share(returning['confirmed'], returning['of'])} confirmed"
    away = returning["not_linked"]
    if away:
        plan = f"plan {shown['plan']}" if shown["plan"] else "the plan"
        they = "it reads" if away == 1 else "they read"
        said += f", {away:,} not heard since: may run it until {they} {plan}"
    yield _row("returning", said)


# --- parts ----------------------------------------------------------------------------------------


def _verdict(shown: Shown) -> str:
    return f"{shown['verdict']}: {shown['sentence']}"


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

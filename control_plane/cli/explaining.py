"""`outrider explain CODE`: more about a problem, offline."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson
from protocol.errors import InvalidRequest
from protocol.problems import CATALOGUE, Problem, problem

_AREAS = {
    "A": "access",
    "B": "bundle",
    "D": "device",
    "F": "fetch",
    "I": "inference",
    "N": "network and messages",
    "P": "policy",
    "R": "rollout",
    "S": "syntax and look-ups",
    "T": "trust",
}
_EXITS = {
    1: "ended badly",
    2: "the input is wrong",
    3: "not found",
    4: "not allowed",
    5: "conflict: look again",
    6: "trust refused it",
    7: "not reachable: trying again is safe",
    8: "works, but needs a look",
    9: "no room",
}


def explain(
    code: Annotated[str, typer.Argument(help="For instance OUT-D310, D310 or health.")],
    as_json: AsJson = False,
) -> None:
    """What a code means and what to do about it. Works without a control plane."""
    entry = _find(code)
    if as_json:
        showing.document(
            {
                "type": entry.uri,
                "code": entry.code,
                "slug": entry.slug,
                "title": entry.title,
                "help": entry.help,
                "exit": entry.exit,
                "status": entry.status,
            }
        )
        return
    screen.result(f"{entry.code}  {entry.title}")
    showing.line("area", f"{_AREAS[entry.code[4]]}; also called {entry.slug}")
    showing.line("do", entry.help)
    showing.line("exit", f"{entry.exit}: {_EXITS[entry.exit]}")
    showing.line("http", f"{entry.status}, type {entry.uri}")


def _find(code: str) -> Problem:
    """By code, with or without OUT-, or by slug, in any case. Raises `InvalidRequest` OUT-S110."""
    for name in (code.lower(), code.upper()):
        try:
            return problem(name)
        except KeyError:
            continue
    slugs = {entry.slug: entry.code for entry in CATALOGUE.values()}
    near = get_close_matches(code.upper(), CATALOGUE, 1) or [
        slugs[slug] for slug in get_close_matches(code.lower(), slugs, 1)
    ]
    do = f"a similar code: {near[0]}" if near else "the letter says the area: A B D F I N P R S T"
    raise InvalidRequest("OUT-S110", f"no problem has the code {code}", do=do)

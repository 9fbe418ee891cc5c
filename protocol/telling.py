"""How an error is told to people: coded, with its reason, and with what to do next."""

from __future__ import annotations

import textwrap
from typing import Any

from protocol.errors import OutriderError

WIDTH = 80
_MARGIN = " " * 7


def document(error: OutriderError) -> dict[str, Any]:
    """The same for programs: problem details (RFC 9457)."""
    problem = error.problem
    said = {
        "type": problem.uri,
        "status": problem.status,
        "code": problem.code,
        "title": problem.title[:1].upper() + problem.title[1:],
        "help": error.do,
    }
    detail = ": ".join(part for part in (error.place, error.why) if part)
    return {**said, "detail": detail} if detail else said


def told(error: OutriderError) -> tuple[str, ...]:
    """Lines: headline, the place in what was given, `why` unless the headline says it, `do`."""
    lines = _wrapped("", f"error[{error.code}]: {error.headline}", "  ")
    lines += [f"  {line}" for line in error.excerpt]
    if error.why and error.why not in error.headline:
        lines += _wrapped("  why: ", error.why)
    if error.do:
        lines += _wrapped("  do:  ", error.do)
    return tuple(lines)


def _wrapped(label: str, text: str, margin: str = _MARGIN) -> list[str]:
    """Within 80 columns as far as words allow it: addresses and paths stay whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )

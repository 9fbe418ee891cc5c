"""What to say when a name is not known: the nearest one that is."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from protocol.errors import InvalidRequest


def unknown(what: str, name: str, known: Iterable[str]) -> InvalidRequest:
    """OUT-S110, with a similar name as the thing to do."""
    similar = get_close_matches(name, sorted(set(known)), n=1, cutoff=0.5)
    do = f"a similar name: {similar[0]}" if similar else ""
    return InvalidRequest("OUT-S110", f"no {what} named {name:.80}", do=do)

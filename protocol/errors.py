"""Error families by whose fault it is; each error carries one problem of the catalogue.

Only `Unavailable` is worth a retry. Everything else is final until somebody changes something.
"""

from __future__ import annotations

from typing import Final

from protocol.problems import Problem, problem

_SAY_ALL: Final = frozenset(
    {"OUT-A204", "OUT-S101", "OUT-S110", "OUT-S111", "OUT-S120", "OUT-S121"}
)
"""Problems whose `why` names the thing that is wrong: their title would add nothing."""


class OutriderError(Exception):
    """Base of all errors that people are meant to read.

    `why` says what happened in this case, `do` what to do next (the catalogue's help if empty),
    `place` where: an address, a file and line.
    """

    excerpt: tuple[str, ...] = ()
    """Lines of what was given, with the place marked."""

    def __init__(self, code: str, why: str = "", *, do: str = "", place: str = "") -> None:
        self.problem: Problem = problem(code)
        self.why = why
        self.do = do or self.problem.help
        self.place = place
        said = (f"{self.problem.code} {self.problem.title}", place, why)
        super().__init__(": ".join(part for part in said if part))

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def headline(self) -> str:
        """The first line for people: what happened, and where."""
        if self.why and self.code in _SAY_ALL:
            return f"{self.place}: {self.why}" if self.place else self.why
        title = self.problem.title
        return f"{title}: {self.place}" if self.place else title


class InvalidRequest(OutriderError):
    """Whoever asks must ask differently: wrong input, not found, not allowed, in conflict."""


class PeerError(OutriderError):
    """The other side broke the protocol: refused and counted, never retried as it is."""


class TrustError(OutriderError):
    """The artefact is not what a trusted signer said: discarded."""


class Unavailable(OutriderError):
    """A resource is missing for now: retried with full-jitter backoff."""


class Failed(OutriderError):
    """The work was done as asked and its outcome is bad."""


class NotUnderstood(PeerError):
    """A signed document needs something that this software does not know (`agent_too_old`)."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        super().__init__("OUT-D330", "it needs " + ", ".join(names))

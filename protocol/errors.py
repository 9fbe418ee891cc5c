"""Error families by whose fault it is; each error carries one problem of the catalogue.

Only `Unavailable` is worth a retry. Everything else is final until somebody changes something.
"""

from __future__ import annotations

from protocol.problems import Problem, problem


class OutriderError(Exception):
    """Base of all errors that people are meant to read.

    `why` says what happened in this case, `do` what to do next (the catalogue's help if empty).
    """

    def __init__(self, code: str, why: str = "", *, do: str = "") -> None:
        self.problem: Problem = problem(code)
        self.why = why
        self.do = do or self.problem.help
        super().__init__(f"{self.problem.code} {self.problem.title}" + (f": {why}" if why else ""))

    @property
    def code(self) -> str:
        return self.problem.code


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

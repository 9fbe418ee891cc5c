"""Commands in this process, with streams like a terminal's, and transcripts of them.

    $ outrider model list digit
    2| error[OUT-S110]: no model named digit
    2|   do:  a similar name: digits
    [3]

`2|` marks stderr, `[3]` an exit code other than 0. ` <<< text` behind a command is what a person
at a terminal answers; without it nobody is there.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

Command = Callable[[Sequence[str]], int]


class Stream(io.TextIOWrapper):
    """A text stream in memory that may pretend to be a terminal."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False, text: str = "") -> None:
        super().__init__(io.BytesIO(text.encode()), encoding=encoding, write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]  # typed so there too
        """What is typed on a terminal is seen there."""
        line = super().readline(size)
        if self._terminal:
            sys.stderr.write(line)
        return line

    @property
    def said(self) -> str:
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode(self.encoding)


@dataclass(frozen=True, slots=True)
class Ran:
    exit: int
    out: str
    err: str


def ran(
    command: Command,
    arguments: Sequence[str],
    *,
    answers: str | None = None,
    piped: str = "",
    encoding: str = "utf-8",
    terminal: bool = False,
) -> Ran:
    """What became of a command. `answers`: a person is there and types this; `piped`: a file is."""
    out, err = Stream(encoding, terminal=terminal), Stream(encoding, terminal=terminal)
    typed = Stream(terminal=answers is not None, text=answers or piped)
    with _streams(out, err, typed):
        exit = command(arguments)
    return Ran(exit, out.said, err.said)


@contextmanager
def _streams(out: Stream, err: Stream, typed: Stream) -> Iterator[None]:
    before = sys.stdout, sys.stderr, sys.stdin
    sys.stdout, sys.stderr, sys.stdin = out, err, typed
    try:
        yield
    finally:
        sys.stdout, sys.stderr, sys.stdin = before


def transcript(commands: dict[str, Command], lines: Sequence[str]) -> str:
    """The transcript of the commands in `lines`, as they end now."""
    said: list[str] = []
    for line in lines:
        if not line.startswith("$ "):
            continue
        said.append(line)
        text, _, answers = line.removeprefix("$ ").partition(" <<< ")
        name, *arguments = shlex.split(text)
        result = ran(commands[name], arguments, answers=f"{answers}\n" if answers else None)
        said += [f"2| {each}".rstrip() for each in result.err.splitlines()]
        said += result.out.splitlines()
        if result.exit:
            said.append(f"[{result.exit}]")
    return "\n".join(said) + "\n"


def masked(text: str) -> str:
    """Figures are examples: digits, digests, cursors and request ids become the same."""
    text = re.sub(r"--cursor \S+", "--cursor CURSOR", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "00000000", text)
    text = re.sub(r"req-\w+", "req-1", text)
    return re.sub(r"[0-9]", "0", text)

"""Reads the console blocks of our pages, and carries them out in one shell, as a reader would.

A page is written for people and can be executed all the same:

- in a fenced `console` block, `$ ` begins a command and `> ` goes on with it; what follows is
  what the reader sees;
- digits stand for any digits, `...` for any text, a line of only `...` for any lines;
- a command that ends with `&` runs on; the next one begins once its last shown line was printed;
- ` # exit 8` behind a command is the exit code that it must have, else 0;
- an answer behind `[y/N] ` is what is typed;
- a command that only looks is tried again until it shows what the page shows;
- a block of another language whose first line is a comment with a file name is that file;
- what comes after `<!-- at the end -->` is done when everything else has been.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

AT_THE_END: Final = "<!-- at the end -->"
LIMIT_S: Final = 30.0
LOOK_S: Final = 0.05
ONLY_LOOKS: Final = (
    "curl -s ",
    "outrider rollout status",
    "outrider rollout explain",
    "outrider device list",
    "outrider device show",
    "outrider drift show",
    "outrider model list",
    "outrider model show",
    "outrider-agent status",
    "outrider-agent doctor",
    "outrider-agent logs",
)

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^ *```", re.MULTILINE | re.DOTALL
)
_FILE: Final = re.compile(r"(?:#|<!--) (?P<name>[\w.-]+\.(?:yaml|py|json))\b")
_EXIT: Final = re.compile(r"\s+#\s*exit (\d+)\s*$")
_COMMENT: Final = re.compile(r"\s+#\s.*$")
_ANSWER: Final = re.compile(r"\[y/N\] (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Command:
    """One command with what a page shows of it."""

    line: str
    shown: tuple[str, ...] = ()
    exit: int = 0
    background: bool = False

    @property
    def answers(self) -> str:
        return "".join(f"{word}\n" for word in _ANSWER.findall("\n".join(self.shown)))

    @property
    def only_looks(self) -> bool:
        return self.line.startswith(ONLY_LOOKS)


@dataclass(frozen=True, slots=True)
class File:
    """A file that the page tells its reader to write."""

    name: str
    text: str


Step = Command | File


@dataclass(frozen=True, slots=True)
class Page:
    steps: tuple[Step, ...]
    last: tuple[Step, ...]

    @property
    def commands(self) -> tuple[Command, ...]:
        return tuple(each for each in (*self.steps, *self.last) if isinstance(each, Command))


def read(path: Path) -> Page:
    before, _, after = path.read_text(encoding="utf-8").partition(AT_THE_END)
    return Page(tuple(_steps(before)), tuple(_steps(after)))


def _steps(text: str) -> Iterator[Step]:
    for block in _FENCE.finditer(text):
        body = re.sub(f"^{block['indent']}", "", block["body"], flags=re.MULTILINE)
        if block["language"] in ("console", "sh"):
            yield from _commands(body)
        elif named := _FILE.match(body):
            yield File(named["name"], body)


def _commands(body: str) -> Iterator[Command]:
    line, shown = "", list[str]()
    for text in (*body.splitlines(), "$ "):
        if text.startswith("$ "):
            if line:
                yield _command(line, shown)
            line, shown = text[2:], []
        elif text.startswith("> ") and not shown:
            line += "\n" + text[2:]
        else:
            shown.append(text)


def _command(line: str, shown: list[str]) -> Command:
    code = _EXIT.search(line)
    bare = _COMMENT.sub("", line).rstrip()
    return Command(
        bare.removesuffix("&").rstrip(),
        tuple(each.rstrip() for each in shown if each.strip()),
        int(code[1]) if code else 0,
        bare.endswith("&"),
    )


# --- what was shown and what was seen -------------------------------------------------------------


def masked(text: str) -> str:
    """Without figures, widths and the ends of lines that are too long."""
    text = re.sub(r"\b[0-9a-f]{8,}\b", "0", text)
    return " ".join(re.sub(r"\d+(?:[.,]\d+)*", "0", text).split())


def agrees(shown: tuple[str, ...], seen: str) -> bool:
    """Whether lines that a page shows are what was printed."""
    pattern = ""
    for line in shown:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
            continue
        parts = [re.escape(masked(part)) for part in line.split("...")]
        pattern += r"\s*.*?\s*".join(parts) + "\n"
    lines = [masked(line) for line in seen.splitlines() if line.strip()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


# --- one shell ----------------------------------------------------------------------------------


class Shell:
    """One bash that carries out commands in `folder`; `replaced` are texts of commands, as `8500`
    for a port that is free here. Everything it started ends with it."""

    def __init__(
        self, folder: Path, log: Path, environment: Mapping[str, str], replaced: Mapping[str, str]
    ) -> None:
        self._log = log
        self._replaced = replaced
        self._numbers = itertools.count(1)
        log.mkdir()
        # Job control gives every command in the background a process group of its own.
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=dict(environment),
            text=True,
        )
        self._say("set -m")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._say("for each in $(jobs -p); do kill -TERM -- -$each; done; wait; exit")
        try:
            self._bash.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self._bash.kill()

    def run(self, step: Step) -> None:
        """Carry out one step. Raises `AssertionError` when it goes otherwise than the page says."""
        if isinstance(step, File):
            self._run(Command(f"cat > {step.name} <<'END OF FILE'\n{step.text}END OF FILE"))
        else:
            self._run(step)

    def _run(self, command: Command) -> None:
        until = time.monotonic() + LIMIT_S
        while True:
            seen, code = self._once(command)
            if code == command.exit and (not command.shown or agrees(command.shown, seen)):
                return
            if not command.only_looks or time.monotonic() > until:
                shown = "\n".join(command.shown)
                raise AssertionError(
                    f"$ {command.line}\nexit {code}, the page says {command.exit}\n"
                    f"--- the page shows\n{shown}\n--- seen\n{seen}"
                )
            time.sleep(LOOK_S * 10)

    def _once(self, command: Command) -> tuple[str, int | None]:
        until = time.monotonic() + LIMIT_S
        line = command.line
        for text, other in self._replaced.items():
            line = re.sub(rf"\b{re.escape(text)}\b", other, line)
        number = next(self._numbers)
        out, done = self._log / f"{number}.out", self._log / f"{number}.exit"
        typed = self._log / f"{number}.in"
        typed.write_text(command.answers)
        if command.background:
            self._say(f"{{ {line}\n}} < {typed} > {out} 2>&1 &")
            return self._until_shown(command, out, until), 0
        self._say(
            f"{{ {line}\n}} < {typed} > {out} 2>&1; echo $? > {done}.new; mv {done}.new {done}"
        )
        while not done.exists():
            assert self._bash.poll() is None, f"the shell ended at: {line}"
            assert time.monotonic() < until, f"$ {line}\nis still running:\n{out.read_text()}"
            time.sleep(LOOK_S)
        return out.read_text(), int(done.read_text())

    def _until_shown(self, command: Command, out: Path, until: float) -> str:
        """What it printed, once that is all that the page shows, or time is up."""
        while time.monotonic() < until:
            seen = out.read_text() if out.exists() else ""
            if agrees(command.shown, seen) or not command.shown:
                return seen
            time.sleep(LOOK_S)
        return out.read_text()

    def _say(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(line + "\n")
        self._bash.stdin.flush()

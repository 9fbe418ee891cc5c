"""Selectors as people write them, and back.

    site = leeds and fact.ram_mb >= 512         bare names are labels, fact.x and runs.m too
    site in (leeds, york) or cam-*              a bare pattern means the device's name
    line                                        has the label line; `not line`: has not
    name = 'two words' and zone = west*         quotes where needed; a prefix of a label

`and` binds closer than `or`, `not` closest. `all` is every device. `= != in` compare text,
`< <= > >=` decimal numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from protocol.errors import InvalidRequest
from protocol.identifiers import label_key, label_value
from protocol.selector import MAX_NODES, Selector

EVERYONE: Final = "all"
MAX_TEXT: Final = 4096
MAX_DEPTH: Final = 40

_KEYWORDS: Final = frozenset({"and", "or", "not", "in", EVERYONE})
_ORDER: Final = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_SIGNS: Final = {op: sign for sign, op in _ORDER.items()}
_DOTTED: Final = ("fact", "runs")
_BARE = r"[A-Za-z0-9_][A-Za-z0-9_./:+-]*|[-+.][A-Za-z0-9_./:+-]+"
_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<sign> <= | >= | != | = | < | > | \( | \) | , ) |
        (?P<word> (?:{_BARE}) \*? | \* ) |
        (?P<quoted> '(?:[^'\\]|\\.)*' \*? | "(?:[^"\\]|\\.)*" \*? )
    )""",
    re.VERBOSE,
)


class SelectorUnreadable(InvalidRequest):
    """OUT-S101. `offset` counts characters of `text` from 0."""

    def __init__(self, why: str, text: str, offset: int, *, do: str = "") -> None:
        super().__init__("OUT-S101", why, do=do)
        self.text = text
        self.offset = offset

    @property
    def caret(self) -> str:
        """Two lines: the text, and a caret under the place."""
        return f"{self.text}\n{' ' * self.offset}^"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["sign", "word", "text", "end"]
    value: str
    offset: int
    end: int
    prefix: bool = False
    """A star follows."""


def parse(text: str) -> Selector | None:
    """None for `all`. Raises `SelectorUnreadable`."""
    if len(text) > MAX_TEXT:
        raise SelectorUnreadable(f"longer than {MAX_TEXT:,} characters", text[:72], 72)
    parser = _Parser(text)
    selector = parser.either(0)
    parser.done()
    if selector == _ALL:
        return None
    return selector


_ALL: Final = Selector("and")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0

    def done(self) -> None:
        left = self._next
        if left.kind != "end":
            raise self._wrong("and or or is missing before", left)

    def either(self, depth: int) -> Selector:
        return self._joined("or", depth)

    def _joined(self, op: str, depth: int) -> Selector:
        if depth > MAX_DEPTH:
            raise self._wrong("nested too deeply", self._next)
        parts = [self._joined("and", depth) if op == "or" else self._single(depth)]
        while self._word(op):
            parts.append(self._joined("and", depth) if op == "or" else self._single(depth))
        return parts[0] if len(parts) == 1 else self._made(op, of=tuple(parts))

    def _single(self, depth: int) -> Selector:
        if depth > MAX_DEPTH:
            raise self._wrong("nested too deeply", self._next)
        if self._word("not"):
            return self._made("not", of=(self._single(depth + 1),))
        if self._sign("("):
            inner = self.either(depth + 1)
            if not self._sign(")"):
                raise self._wrong(") is missing", self._next)
            return inner
        if self._word(EVERYONE):
            return _ALL
        return self._test()

    def _test(self) -> Selector:
        name = self._next
        if name.kind not in ("word", "text") or _keyword(name):
            wanted = "a label is missing" + (f" before {name.value}" if name.value else "")
            raise self._wrong(wanted, name)
        self._at += 1
        if name.prefix:
            return self._made("prefix", "id", (name.value,))
        label = self._label(name)
        sign = self._next
        if self._sign("="):
            value = self._value(sign, label)
            return self._equal(label, value)
        if self._sign("!="):
            value = self._value(sign, label)
            return self._made("not", of=(self._equal(label, value),))
        if sign.kind == "sign" and sign.value in _ORDER:
            self._at += 1
            value = self._value(sign, label)
            if value.prefix or not _number(value.value):
                raise self._wrong(f"a number is wanted after {sign.value}", value)
            return self._made(_ORDER[sign.value], label, (value.value,))
        if self._word("in"):
            return self._made("in", label, self._list(label))
        return self._made("exists", label)

    def _equal(self, label: str, value: _Token) -> Selector:
        op = "prefix" if value.prefix else "eq"
        return self._made(op, label, (value.value,))

    def _list(self, label: str) -> tuple[str, ...]:
        if not self._sign("("):
            raise self._wrong("( is missing after in", self._next)
        values: list[str] = []
        before = self._tokens[self._at - 1]
        while True:
            value = self._value(before, label)
            if value.prefix:
                raise self._wrong("no patterns inside in", value)
            values.append(value.value)
            before = self._next
            if self._sign(")"):
                return tuple(values)
            if not self._sign(","):
                raise self._wrong(") is missing", self._next)

    def _value(self, before: _Token, label: str) -> _Token:
        value = self._next
        if value.kind not in ("word", "text") or _keyword(value):
            do = f"for devices without the label: not {_shown_label(label)}"
            raise self._wrong(f"a value is missing after {before.value}", value, do=do)
        self._at += 1
        try:
            label_value(value.value)
        except ValueError as error:
            raise self._wrong(str(error), value) from error
        return value

    def _label(self, name: _Token) -> str:
        head, dot, rest = name.value.partition(".")
        label = f"{head}/{rest}" if dot and head in _DOTTED and name.kind == "word" else name.value
        try:
            return label_key(label)
        except ValueError as error:
            raise self._wrong(f"{name.value} is no label", name) from error

    def _made(
        self, op: str, label: str | None = None, values: tuple[str, ...] = (), *,
        of: tuple[Selector, ...] = (),
    ) -> Selector:  # fmt: skip
        try:
            return Selector(op, label, values, of)
        except ValueError as error:
            raise self._wrong(f"more than {MAX_NODES} parts", self._next) from error

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _word(self, word: str) -> bool:
        found = self._next.kind == "word" and not self._next.prefix and self._next.value == word
        self._at += found
        return found

    def _sign(self, sign: str) -> bool:
        found = self._next.kind == "sign" and self._next.value == sign
        self._at += found
        return found

    def _wrong(self, why: str, at: _Token, *, do: str = "") -> SelectorUnreadable:
        # What is missing at the end is missing right behind the last word, not behind spaces.
        offset = at.offset
        if at.kind == "end" and self._at:
            offset = self._tokens[self._at - 1].end
        shown = f" {at.value}" if why.endswith("before") else ""
        return SelectorUnreadable(why + shown, self._text, offset, do=do)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            what = (
                "a quote is not closed" if text[at] in "'\"" else f"{text[at]} means nothing here"
            )
            raise SelectorUnreadable(what, text, at)
        kind = found.lastgroup or ""
        raw = found[kind]
        start, at = found.start(kind), found.end()
        prefix = kind != "sign" and raw.endswith("*")
        raw = raw[:-1] if prefix else raw
        if kind == "quoted":
            value = re.sub(r"\\(.)", r"\1", raw[1:-1], flags=re.DOTALL)
            tokens.append(_Token("text", value, start, at, prefix))
        else:
            tokens.append(_Token("sign" if kind == "sign" else "word", raw, start, at, prefix))
    tokens.append(_Token("end", "", len(text), len(text)))
    return tokens


def _keyword(token: _Token) -> bool:
    return token.kind == "word" and not token.prefix and token.value in _KEYWORDS


def _number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


# --- and back -----------------------------------------------------------------------------------


def format(selector: Selector | None) -> str:
    """Text that `parse` reads as the same selector, with as few brackets as possible."""
    return EVERYONE if selector is None else _format(selector)


def _format(selector: Selector) -> str:
    match selector.op:
        case "and" | "or":
            if not selector.of:
                return EVERYONE if selector.op == "and" else f"not {EVERYONE}"
            return f" {selector.op} ".join(_inside(selector.op, child) for child in selector.of)
        case "not":
            (child,) = selector.of
            if child.op == "eq" or (child.op == "prefix" and child.label != "id"):
                return f"{_shown_label(child.label)} != {_operand(child)}"
            return f"not {_inside('not', child)}"
    label = _shown_label(selector.label)
    match selector.op:
        case "exists":
            return label
        case "eq":
            return f"{label} = {_operand(selector)}"
        case "prefix":
            named = selector.label == "id"
            return _operand(selector) if named else f"{label} = {_operand(selector)}"
        case "in":
            return f"{label} in ({', '.join(_shown(value) for value in selector.values)})"
    return f"{label} {_SIGNS[selector.op]} {_shown(selector.values[0])}"


def _inside(op: str, child: Selector) -> str:
    text = _format(child)
    needs = len(child.of) > 1 and (child.op == op or op in ("and", "not") or child.op == "or")
    return f"({text})" if needs and not (op == "or" and child.op == "and") else text


def _operand(test: Selector) -> str:
    return _shown(test.values[0]) + ("*" if test.op == "prefix" else "")


def _shown(value: str) -> str:
    if re.fullmatch(_BARE, value) and value not in _KEYWORDS:
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def _shown_label(label: str | None) -> str:
    head, slash, rest = (label or "").partition("/")
    if slash and head in _DOTTED and re.fullmatch(r"[A-Za-z0-9_./:+-]+", rest):
        return f"{head}.{rest}"
    return _shown(label or "")

"""Signed rules that answer in a model's place: constants, chosen by comparing input columns.

Data, not a language: an ordered list, the first rule whose every condition holds gives the answer
of a row, and `otherwise` gives it where none does. Everything is bounded, so that what a rule costs
is known before it is signed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from msgspec import Meta

from protocol.errors import NotUnderstood

if TYPE_CHECKING:
    from protocol.members import Contract, TensorSpec

MAX_RULES: Final = 64
MAX_CONDITIONS: Final = 64
"""Of all rules together."""
MAX_VALUES: Final = 4_096
"""Of all answers together."""
MAX_TEXT: Final = 256

OPERATORS: Final = ("lt", "le", "gt", "ge", "eq")

Value: TypeAlias = bool | int | float | str
Answer: TypeAlias = dict[str, tuple[Value, ...]]
"""Per output of the contract the values of one row, in C order."""

_INTEGERS: Final = {
    "UINT8": (0, 2**8 - 1),
    "UINT16": (0, 2**16 - 1),
    "UINT32": (0, 2**32 - 1),
    "UINT64": (0, 2**53),
    "INT8": (-(2**7), 2**7 - 1),
    "INT16": (-(2**15), 2**15 - 1),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**53), 2**53),
}
_FLOATS: Final = {"FP16": 65_504.0, "FP32": 3.4028234663852886e38, "FP64": math.inf}


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of one column of the first input (flattened in C order per row) with a number.

    The number is first rounded to the datatype of the input. NaN compares false.
    """

    column: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    op: str
    value: float
    name: str = ""
    """The profile's name of that column, for people. If it is given it must be right."""

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise NotUnderstood((f"op:{self.op[:32]}",))
        if not math.isfinite(self.value) or len(self.name) > MAX_TEXT:
            raise ValueError("a condition compares with a finite number")


@dataclass(frozen=True, slots=True)
class Rule:
    """What to answer for a row for which every condition holds."""

    when: tuple[Condition, ...]
    answer: Answer

    def __post_init__(self) -> None:
        if not self.when:
            raise ValueError("a rule has a condition; what has none is `otherwise`")


@dataclass(frozen=True, slots=True)
class Rules:
    """What answers when the model does not. Only `otherwise`: a constant."""

    otherwise: Answer
    rules: tuple[Rule, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.rules) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} rules")
        if sum(len(rule.when) for rule in self.rules) > MAX_CONDITIONS:
            raise ValueError(f"at most {MAX_CONDITIONS} conditions in all rules together")
        values = [each for answer in self.answers for given in answer.values() for each in given]
        if len(values) > MAX_VALUES:
            raise ValueError(f"at most {MAX_VALUES:,} values in all answers together")
        if any(isinstance(each, str) and len(each) > MAX_TEXT for each in values):
            raise ValueError(f"a text has at most {MAX_TEXT} characters")

    @property
    def answers(self) -> tuple[Answer, ...]:
        return (*(rule.answer for rule in self.rules), self.otherwise)


def check_rules(rules: Rules, contract: Contract, names: Sequence[str] = ()) -> None:
    """Raise `ValueError`, with what to change, unless the rules can answer for this contract.

    `names`: the profile's names of the columns of the first input, empty if it monitors none.
    """
    columns = columns_of(contract)
    for number, rule in enumerate(rules.rules, start=1):
        for condition in rule.when:
            _check_condition(f"rule {number}", condition, contract, columns, names)
        _check_answer(f"rule {number}", rule.answer, contract)
    _check_answer("otherwise", rules.otherwise, contract)


def columns_of(contract: Contract) -> int:
    """Columns of one row of the first input; 0 where conditions cannot be decided: no numbers, or
    rows of no fixed length."""
    first = contract.inputs[0]
    shape = first.shape[1:] if first.shape else ()
    return 0 if first.datatype == "BYTES" or -1 in shape else prod(shape)


def row_shape(spec: TensorSpec, contract: Contract) -> tuple[int, ...] | None:
    """Shape of one row of an output; None where rules cannot give one: the output is not one row
    for each row of the first input, or of no fixed size."""
    first = contract.inputs[0]
    batch = first.shape[0] if first.shape else None
    if batch is None or not spec.shape or spec.shape[0] != batch or -1 in spec.shape[1:]:
        return None
    return spec.shape[1:]


def _check_condition(
    where: str, condition: Condition, contract: Contract, columns: int, names: Sequence[str]
) -> None:
    first = contract.inputs[0]
    if not columns:
        raise ValueError(
            f"{where}: {first.name} has no numbered columns of a fixed count; only a constant"
            " (otherwise) can answer for this model"
        )
    if condition.column >= columns:
        raise ValueError(
            f"{where}: {first.name} has columns 0 to {columns - 1}, not {condition.column}"
        )
    if condition.name and condition.name not in names[condition.column : condition.column + 1]:
        real = names[condition.column] if condition.column < len(names) else "without a name"
        raise ValueError(
            f"{where}: column {condition.column} is {real}, not {condition.name[:64]!r}"
        )
    limit = _FLOATS.get(first.datatype, math.inf)
    if abs(condition.value) > limit:
        raise ValueError(f"{where}: {condition.value:g} is no {first.datatype}")


def _check_answer(where: str, answer: Answer, contract: Contract) -> None:
    wanted = {spec.name for spec in contract.outputs}
    for name in sorted(answer.keys() - wanted):
        raise ValueError(f"{where}: no output is called {name[:64]!r}")
    for spec in contract.outputs:
        given = answer.get(spec.name)
        if given is None:
            raise ValueError(f"{where}: says nothing for output {spec.name}")
        shape = row_shape(spec, contract)
        if shape is None:
            raise ValueError(
                f"{where}: rules cannot answer for output {spec.name} of shape"
                f" {list(spec.shape)}: it is not one row of a fixed size per row of the input"
            )
        if len(given) != prod(shape):
            raise ValueError(
                f"{where}: output {spec.name} takes {prod(shape):,} values, {len(given):,} given"
            )
        for value in given:
            if not _fits(value, spec.datatype):
                raise ValueError(f"{where}: {value!r:.40} is no {spec.datatype} ({spec.name})")


def _fits(value: Value, datatype: str) -> bool:
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL":
        return isinstance(value, bool)
    if isinstance(value, bool | str):
        return False
    if datatype in _FLOATS:
        return math.isfinite(value) and abs(value) <= _FLOATS[datatype]
    low, high = _INTEGERS[datatype]
    return value == int(value) and low <= value <= high

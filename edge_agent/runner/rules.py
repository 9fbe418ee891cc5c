"""Signed rules in the place of a model: the same inputs and outputs, no onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.binary import NUMPY_TYPES
from protocol.members import Contract
from protocol.rules import Answer, Condition, Rules, check_rules, row_shape

Array = NDArray[Any]

_COMPARE: Final[dict[str, np.ufunc]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
}


class RulesSession:
    """Answers row by row: the first rule whose every condition holds, or else `otherwise`."""

    def __init__(self, rules: Rules, contract: Contract, names: tuple[str, ...] = ()) -> None:
        """Raises `ValueError` for rules that cannot answer for this contract."""
        check_rules(rules, contract, names)
        self._first = contract.inputs[0].name
        self._rules = rules.rules
        # One row of every answer, `otherwise` last, as an array per output: chosen by index.
        self._answers = {
            spec.name: _table(spec.name, spec.datatype, row_shape(spec, contract) or (), rules)
            for spec in contract.outputs
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs of the contract by name, for inputs that fit it."""
        first = inputs[self._first]
        chosen = np.full(len(first), len(self._rules), np.int64)
        if self._rules:
            table = first.reshape(len(first), -1)
            # Backwards, so that the first rule that holds has the last word.
            for number in reversed(range(len(self._rules))):
                holds = np.ones(len(first), np.bool_)
                for condition in self._rules[number].when:
                    holds &= _compare(table, condition)
                chosen[holds] = number
        return {name: table[chosen] for name, table in self._answers.items()}


def _table(output: str, datatype: str, shape: tuple[int, ...], rules: Rules) -> Array:
    rows: list[Answer] = [*rules.answers]
    values = [row[output] for row in rows]
    return np.array(values, NUMPY_TYPES.get(datatype, np.object_)).reshape((len(rows), *shape))


def _compare(table: Array, condition: Condition) -> NDArray[np.bool_]:
    column = table[:, condition.column]
    if column.dtype.kind == "f":
        # As the input writes it: 0.1 as float32 is not 0.1 as float64.
        value: np.generic = column.dtype.type(condition.value)
    else:
        column, value = column.astype(np.float64), np.float64(condition.value)
    compared: NDArray[np.bool_] = _COMPARE[condition.op](column, value)
    return compared

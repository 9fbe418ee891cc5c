"""Which devices: a closed expression tree over the signed labels of a device document.

A closed tree, not a language: every agent that was ever shipped evaluates it in the same way,
and an operator that it does not know makes it refuse the document (`NotUnderstood`) instead of
guessing. Ordering operators compare finite decimals; anything else is false, never an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from protocol.errors import NotUnderstood
from protocol.identifiers import label_key, label_value

MAX_NODES: Final = 256

_TREES: Final = frozenset({"and", "or", "not"})
_ORDER: Final = frozenset({"lt", "le", "gt", "ge"})
_TESTS: Final = frozenset({"eq", "in", "prefix", "exists"}) | _ORDER


@dataclass(frozen=True, slots=True)
class Selector:
    """One node. `of` holds children (and, or, not), `values` the operands of a label test."""

    op: str
    label: str | None = None
    values: tuple[str, ...] = ()
    of: tuple[Selector, ...] = ()

    def __post_init__(self) -> None:
        if self.op in _TREES:
            if self.label is not None or self.values:
                raise ValueError(f"{self.op} takes selectors only")
            if self.op == "not" and len(self.of) != 1:
                raise ValueError("not takes one selector")
        elif self.op in _TESTS:
            if self.label is None or self.of:
                raise ValueError(f"{self.op} tests one label")
            label_key(self.label)
            wanted = {"exists": self.values == (), "in": True}.get(self.op, len(self.values) == 1)
            if not wanted:
                raise ValueError(f"wrong number of values for {self.op}")
            for value in self.values:
                label_value(value)
        else:
            raise NotUnderstood((f"selector:{self.op[:32]}",))
        if self.size > MAX_NODES:
            raise ValueError(f"a selector has at most {MAX_NODES} nodes")

    @property
    def size(self) -> int:
        return 1 + sum(child.size for child in self.of)


def matches(selector: Selector | None, labels: Mapping[str, str]) -> bool:
    """Whether a device with these labels is selected. None selects every device."""
    if selector is None:
        return True
    match selector.op:
        case "and":
            return all(matches(child, labels) for child in selector.of)
        case "or":
            return any(matches(child, labels) for child in selector.of)
        case "not":
            return not matches(selector.of[0], labels)
    value = labels.get(selector.label or "")
    if value is None:
        return False
    match selector.op:
        case "exists":
            return True
        case "eq" | "in":
            return value in selector.values
        case "prefix":
            return value.startswith(selector.values[0])
    return _ordered(selector.op, value, selector.values[0])


def union(selectors: list[Selector | None]) -> Selector | None:
    """Every device that any of them selects; None (every device) when that is too large to say."""
    kept = [selector for selector in selectors if selector is not None]
    if len(kept) < len(selectors) or 1 + sum(selector.size for selector in kept) > MAX_NODES:
        return None
    return kept[0] if len(kept) == 1 else Selector("or", of=tuple(kept))


def _ordered(op: str, left: str, right: str) -> bool:
    try:
        a, b = Decimal(left), Decimal(right)
    except InvalidOperation:
        return False
    if not (a.is_finite() and b.is_finite()):
        return False
    return {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[op]

"""What a rollout is judged by: an operator's conditions, and margins of the gates.

A condition is a plain rule over devices and their phases, beside the gates and not instead of
them. A margin is how much worse a score may be before that counts as worse; its unit is typed,
since "5 %" of latency and "5 %" of confidence have nothing in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Final, Literal, cast

from control_plane.rollout.phase import Phase
from control_plane.rollout.reading import (
    Operator,
    comparison,
    is_off,
    is_on,
    known,
    meant,
    number,
    whole,
    wrong,
)

Denominator = Literal["activated", "reached", "targeted"]

BAD: Final[tuple[Phase, ...]] = ("failed", "rolled_back", "silent")
GOOD: Final[tuple[Phase, ...]] = ("healthy",)
_MAY_BE_BAD: Final = (*BAD, "refused")
_MAY_BE_GOOD: Final = (*GOOD, "unexercised")
_DENOMINATORS: Final[tuple[Denominator, ...]] = ("activated", "reached", "targeted")


@dataclass(frozen=True, slots=True)
class Condition:
    """`phases` together compare with `percent` of the denominator.

    It is judged once `min_completed` devices have tried the candidate, or all of a smaller wave.
    """

    phases: tuple[Phase, ...]
    operator: Operator
    percent: float
    denominator: Denominator = "activated"
    min_completed: int = 10

    def holds(self, part: int, whole: int) -> bool:
        """Exact, without rounding: 1 of 10 is not more than 10 %."""
        left, right = part * 100, Fraction(str(self.percent)) * whole
        match self.operator:
            case ">":
                return left > right
            case ">=":
                return left >= right
            case "<":
                return left < right
            case "<=":
                return left <= right

    @property
    def text(self) -> str:
        return f"{self.operator} {self.percent:g} %"


@dataclass(frozen=True, slots=True)
class Gates:
    """Margins of the scores, each in its own unit; None: the score is not looked at.

    Ratios are new over old of a share or of a latency; `confidence` is in standard deviations
    of the confidence of single answers, `accuracy` in points of a hundred, `drift` in PSI. Drift is
    not looked at unless somebody asks: it is about the reference more often than about the model.
    """

    error_rate: float | None = 1.2
    out_of_contract: float | None = 1.2
    latency: float | None = 1.15
    class_mix: float | None = 1.2
    confidence: float | None = 0.05
    accuracy: float | None = 1.0
    drift: float | None = None

    @property
    def off(self) -> bool:
        """Whether no score is looked at. Failures and silence are judged all the same."""
        return all(getattr(self, each.name) is None for each in fields(self))


NO_SCORES: Final = Gates(None, None, None, None, None, None, None)

DRIFT_MARGIN: Final = 0.1
"""PSI, of whoever asks for drift without a number."""

UNITS: Final[dict[str, tuple[str, float, float]]] = {
    "error_rate": ("ratio", 1, 100),
    "out_of_contract": ("ratio", 1, 100),
    "latency": ("ratio", 1, 100),
    "class_mix": ("ratio", 1, 100),
    "confidence": ("sd", 0, 10),
    "accuracy": ("points", 0, 100),
    "drift": ("psi", 0, 10),
}
"""Per score the word for its unit; a margin is above the first number, at most the second."""


def error_condition(value: object) -> Condition:
    return _condition(value, "error_condition", "bad", BAD, _MAY_BE_BAD, "> 10 %")


def success_condition(value: object) -> Condition:
    return _condition(value, "success_condition", "healthy", GOOD, _MAY_BE_GOOD, ">= 95 %")


def _condition(
    value: object,
    where: str,
    subject: str,
    usual: tuple[Phase, ...],
    allowed: tuple[str, ...],
    example: str,
) -> Condition:
    """`{<subject>: "> 10 %", denominator, min_completed}`, and `phases` if they are others."""
    complete = f'{where}: {{{subject}: "{example}", denominator: activated, min_completed: 10}}'
    if not isinstance(value, Mapping):
        raise wrong(where, "is an object", f"write {complete}", "OUT-S121")
    known(value, (subject, "denominator", "min_completed", "phases"), f"{where}.")
    missing = [
        name for name in (subject, "denominator", "min_completed") if value.get(name) is None
    ]
    if subject in missing:
        raise wrong(where, f"does not say {subject}", f"write {complete}", "OUT-S121")
    # A success is proven from below, a failure from above; the other way round holds of nothing.
    operator, percent = comparison(value[subject], f"{where}.{subject}", example[0], example)
    if missing:
        lacks = " and ".join(missing)
        raise wrong(where, f"does not say {lacks}", f"write {complete}", "OUT-S121")
    return Condition(
        _phases(value.get("phases"), f"{where}.phases", usual, allowed),
        operator,
        percent,
        _denominator(value["denominator"], f"{where}.denominator"),
        whole(value["min_completed"], f"{where}.min_completed"),
    )


def _denominator(value: object, where: str) -> Denominator:
    for each in _DENOMINATORS:
        if value == each:
            return each
    do = meant(str(value), _DENOMINATORS, "write:")
    raise wrong(where, "is one of: " + ", ".join(_DENOMINATORS), do, "OUT-S121")


def _phases(
    value: object, where: str, usual: tuple[Phase, ...], allowed: tuple[str, ...]
) -> tuple[Phase, ...]:
    if value is None:
        return usual
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple) or not value:
        raise wrong(where, "is a list of: " + ", ".join(allowed))
    chosen = tuple(str(each).replace(" ", "_") for each in value)
    if set(chosen) - set(allowed) or len(set(chosen)) < len(chosen):
        raise wrong(where, "is a list of: " + ", ".join(allowed))
    return cast(tuple[Phase, ...], chosen)


def gates(value: object) -> Gates:
    """`{error_rate: {ratio: 1.2}, latency: off}`, or `off`. What is not named is as usual."""
    if is_off(value):
        return NO_SCORES
    if is_on(value):
        return Gates()
    if not isinstance(value, Mapping):
        raise wrong("gates", "is off, or an object", "write gates: {latency: {ratio: 1.15}}")
    known(value, UNITS, "gates.")
    usual = Gates()
    margins: dict[str, Any] = {name: getattr(usual, name) for name in UNITS}
    for name, given in value.items():
        margins[name] = _margin(given, name, margins[name])
    return Gates(**margins)


def _margin(given: object, name: str, usual: float | None) -> float | None:
    unit, above, most = UNITS[name]
    usual = DRIFT_MARGIN if usual is None else usual
    where = f"gates.{name}"
    if is_off(given):
        return None
    if is_on(given):
        return usual
    if not isinstance(given, Mapping):
        raise wrong(where, "is off, or says its unit", f"write {name}: {{{unit}: {usual:g}}}")
    known(given, (unit,), f"{where}.")
    return number(given.get(unit), f"{where}.{unit}", above, most)

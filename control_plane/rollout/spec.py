"""What an operator asks for: version, devices, waves, conditions; read strictly.

    {"version": "digits/v2", "to": "site = leeds", "waves": ["1", "3", "100%"], "soak": "24h",
     "error_condition": {"bad": "> 10 %", "denominator": "activated", "min_completed": 10},
     "success_condition": {"healthy": ">= 95 %", "denominator": "activated"}}

A wave is "12" (exactly that many devices), "25 %", or {devices | percent | share, soak, per}.
Sizes are cumulative: each wave contains those before it. Every error is an `InvalidRequest`
OUT-S120 (field), OUT-S121 (condition) or OUT-S101 (selector) that names the field.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Final, Literal, cast

from control_plane.rollout.phase import Phase
from protocol.errors import InvalidRequest
from protocol.identifiers import ModelName, Version, label_key, model_version

Status = Literal["preparing", "running", "paused", "completed", "aborted"]

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    "preparing": frozenset({"running", "paused", "aborted"}),
    "running": frozenset({"paused", "completed", "aborted"}),
    "paused": frozenset({"running", "preparing", "aborted"}),
    "completed": frozenset(),
    "aborted": frozenset(),
}
ENDED: Final[frozenset[Status]] = frozenset({"completed", "aborted"})

Denominator = Literal["activated", "reached", "targeted"]
Operator = Literal[">", ">=", "<", "<="]

BAD: Final[tuple[Phase, ...]] = ("failed", "rolled_back", "silent")
GOOD: Final[tuple[Phase, ...]] = ("healthy",)
_MAY_BE_BAD: Final = (*BAD, "refused")
_MAY_BE_GOOD: Final = (*GOOD, "unexercised")
_DENOMINATORS: Final = ("activated", "reached", "targeted")
MAX_WAVES: Final = 32
MAX_DURATION_S: Final = 366 * 86_400

_CONDITION = re.compile(r"\s*(>=|<=|>|<)\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*")
_SHARE = re.compile(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*")
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(s|m|min|h|d)?\s*")
_UNIT_S: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class WaveSpec:
    """Size of one wave: `devices` exactly, or `percent` of the targets; one of them is set."""

    devices: int | None = None
    percent: float | None = None
    soak_s: float | None = None
    """None: the rollout's."""
    per: str | None = None
    """Label: the percentage holds for each of its values by itself."""

    @property
    def everyone(self) -> bool:
        return self.percent == 100


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


DEFAULT_ERROR: Final = Condition(BAD, ">", 10)
DEFAULT_SUCCESS: Final = Condition(GOOD, ">=", 95)
EVERYONE_AT_ONCE: Final = (WaveSpec(percent=100),)


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    model: ModelName
    version: Version
    to: str = "all"
    """Selector text, as it was written."""
    waves: tuple[WaveSpec, ...] = EVERYONE_AT_ONCE
    soak_s: float = 0.0
    error_condition: Condition = DEFAULT_ERROR
    success_condition: Condition = DEFAULT_SUCCESS
    on_failure: Literal["abort rollback", "pause"] = "abort rollback"
    silent_after_s: float = 3 * 3600.0
    """No contact for so long after activation is a failure."""
    deadline_s: float | None = None
    """Paused when it is not completed so long after its start."""
    plan_max_age_s: int = 86_400

    def soak_of(self, wave: int) -> float:
        """Soak of a wave, counted from 1, in seconds."""
        own = self.waves[wave - 1].soak_s
        return self.soak_s if own is None else own


def read_spec(body: Mapping[str, Any]) -> RolloutSpec:
    """A spec from JSON, YAML or command-line values. Raises `InvalidRequest`."""
    _known(body, _FIELDS, "")
    model, version = _version(body)
    spec = RolloutSpec(
        model,
        version,
        to=_text(body, "to", "all"),
        waves=_waves(body.get("waves")),
        soak_s=_duration(body.get("soak", 0), "soak"),
        error_condition=_condition(
            body.get("error_condition"), DEFAULT_ERROR, "error_condition", "bad", _MAY_BE_BAD
        ),
        success_condition=_condition(
            body.get("success_condition"),
            DEFAULT_SUCCESS,
            "success_condition",
            "healthy",
            _MAY_BE_GOOD,
        ),
        on_failure=cast(
            Literal["abort rollback", "pause"],
            _choice(body, "on_failure", ("abort rollback", "pause"), "abort rollback"),
        ),
        silent_after_s=_duration(body.get("silent_after", 3 * 3600), "silent_after"),
        deadline_s=_duration(body["deadline"], "deadline") if body.get("deadline") else None,
        plan_max_age_s=int(_duration(body.get("plan_max_age", 86_400), "plan_max_age")),
    )
    if spec.silent_after_s <= 0:
        raise _wrong("silent_after", "is longer than 0")
    return spec


_FIELDS: Final = frozenset(
    {"kind", "model", "version", "to", "waves", "soak", "error_condition", "success_condition"}
    | {"on_failure", "silent_after", "deadline", "plan_max_age"}
)


def _known(body: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for name in body:
        if name not in known:
            similar = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
            raise InvalidRequest(
                "OUT-S120",
                f"unknown field {where}{name}",
                do=f"the field is called {similar[0]}" if similar else "",
            )


def _wrong(field: str, wanted: str, code: str = "OUT-S120") -> InvalidRequest:
    return InvalidRequest(code, f"{field} {wanted}")


def _text(body: Mapping[str, Any], field: str, default: str) -> str:
    value = body.get(field, default)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(field, "is text")
    return value


def _choice(body: Mapping[str, Any], field: str, known: tuple[str, ...], default: str) -> str:
    value = body.get(field, default)
    if value not in known:
        raise _wrong(field, "is one of: " + ", ".join(known))
    return str(value)


def _version(body: Mapping[str, Any]) -> tuple[ModelName, Version]:
    text = body.get("version")
    model = body.get("model")
    if not isinstance(text, str):
        raise _wrong("version", "is text like digits/v2")
    if model is not None and not isinstance(model, str):
        raise _wrong("model", "is text")
    reference = text if "/" in text or model is None else f"{model}/{text}"
    try:
        found = model_version(reference)
    except ValueError as error:
        raise _wrong("version", f"is model/version, got {reference!r:.80}") from error
    if model is not None and found[0] != model:
        raise _wrong("model", f"is {model}, but version says {found[0]}")
    return found


def _waves(value: object) -> tuple[WaveSpec, ...]:
    if value is None:
        return EVERYONE_AT_ONCE
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_WAVES:
        raise _wrong("waves", f"is a list of 1 to {MAX_WAVES} waves")
    waves = tuple(_wave(each, f"waves[{n}]") for n, each in enumerate(value, start=1))
    if len({wave.per for wave in waves} - {None}) > 1:
        raise _wrong("waves", "use one label for per")
    for n, (earlier, later) in enumerate(itertools.pairwise(waves), start=2):
        for size in ("devices", "percent"):
            before, now = getattr(earlier, size), getattr(later, size)
            if before is not None and now is not None and now <= before:
                raise _wrong(f"waves[{n}]", "must be larger than the one before: cumulative")
        if earlier.everyone:
            raise _wrong(f"waves[{n}]", "comes after everyone")
    return waves


def _wave(value: object, where: str) -> WaveSpec:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return WaveSpec(**_size(value, where))
    if not isinstance(value, Mapping):
        raise _wrong(where, 'is a number of devices, "25 %", or an object')
    _known(value, frozenset({"devices", "percent", "share", "soak", "per"}), f"{where}.")
    sizes = [name for name in ("devices", "percent", "share") if value.get(name) is not None]
    if len(sizes) != 1:
        raise _wrong(where, "has one of: devices, percent, share")
    given = value[sizes[0]]
    if sizes[0] != "devices" and isinstance(given, int | float) and not isinstance(given, bool):
        given = f"{given} %"
    size = _size(given, f"{where}.{sizes[0]}")
    if (sizes[0] == "devices") != ("devices" in size):
        raise _wrong(f"{where}.{sizes[0]}", "has the wrong unit")
    per = value.get("per")
    if per is not None:
        if not isinstance(per, str) or "devices" in size:
            raise _wrong(f"{where}.per", "is a label, and goes with percent")
        try:
            label_key(per)
        except ValueError as error:
            raise _wrong(f"{where}.per", "is a label") from error
    soak = value.get("soak")
    return WaveSpec(
        **size, soak_s=None if soak is None else _duration(soak, f"{where}.soak"), per=per
    )


def _size(value: object, where: str) -> dict[str, Any]:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9:
        return {"devices": value}
    if isinstance(value, str):
        if value.strip() == "all":
            return {"percent": 100.0}
        if value.strip().isdecimal() and 0 < int(value) < 10**9:
            return {"devices": int(value)}
        share = _SHARE.fullmatch(value)
        if share and 0 < float(share[1]) <= 100:
            return {"percent": float(share[1])}
    raise _wrong(where, 'is a number of devices from 1, or a share like "25 %"')


def _duration(value: object, where: str) -> float:
    """Seconds: a number, or "90", "30 s", "15 min", "6h", "14d"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:f}" if isinstance(value, float) else str(value)
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _wrong(where, 'is a duration like "90 s", "15 min", "24h" or "14d"')
    seconds = float(found[1]) * _UNIT_S[found[2] or "s"]
    if seconds > MAX_DURATION_S:
        raise _wrong(where, "is at most 366 days")
    return seconds


def _condition(
    value: object, default: Condition, where: str, subject: str, allowed: tuple[str, ...]
) -> Condition:
    """`{<subject>: "> 10 %", denominator, min_completed, phases}`, or only the comparison."""
    if value is None:
        return default
    if isinstance(value, str):
        value = {subject: value}
    if not isinstance(value, Mapping):
        raise _wrong(where, "is an object", "OUT-S121")
    names = {each.name for each in fields(Condition)} - {"operator", "percent"}
    _known(value, frozenset({subject, *names}), f"{where}.")
    operator, percent = _comparison(value.get(subject, default.text), f"{where}.{subject}")
    # A success is proven from below, a failure from above; the other way round holds of nothing.
    wanted = default.operator[0]
    if operator[0] != wanted:
        raise _wrong(f"{where}.{subject}", f"compares with {wanted}", "OUT-S121")
    phases = value.get("phases", default.phases)
    if isinstance(phases, str):
        phases = [part.strip() for part in phases.split(",")]
    if not isinstance(phases, list | tuple) or not phases:
        raise _wrong(f"{where}.phases", "is a list of: " + ", ".join(allowed))
    chosen = tuple(str(each).replace(" ", "_") for each in phases)
    if set(chosen) - set(allowed):
        raise _wrong(f"{where}.phases", "is a list of: " + ", ".join(allowed))
    least = value.get("min_completed", default.min_completed)
    if not isinstance(least, int) or isinstance(least, bool) or least < 1:
        raise _wrong(f"{where}.min_completed", "is a number from 1")
    return Condition(
        cast(tuple[Phase, ...], chosen),
        operator,
        percent,
        cast(Denominator, _denominator(value, where, default)),
        least,
    )


def _denominator(value: Mapping[str, Any], where: str, default: Condition) -> str:
    chosen = value.get("denominator", default.denominator)
    if chosen not in _DENOMINATORS:
        raise _wrong(f"{where}.denominator", "is one of: " + ", ".join(_DENOMINATORS), "OUT-S121")
    return str(chosen)


def _comparison(value: object, where: str) -> tuple[Operator, float]:
    found = _CONDITION.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found[2]) > 100:
        raise _wrong(where, 'is a comparison with a share, like "> 10 %"', "OUT-S121")
    return cast(Operator, found[1]), float(found[2])

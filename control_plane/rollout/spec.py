"""What an operator asks for: version, devices, waves, conditions, gates; read strictly.

    {"version": "digits/v2", "to": "site = leeds", "waves": ["1", "3", "100%"], "soak": "24h",
     "error_condition": {"bad": "> 10 %", "denominator": "activated", "min_completed": 10},
     "gates": {"latency": {"ratio": 1.15}, "class_mix": "off"}, "holdback": "5 %"}

A wave is "12" (exactly that many devices), "25 %", or {devices | percent | share, ...}; `devices`
may also be a list of names. Sizes are cumulative: each wave contains those before it. Every error
is an `InvalidRequest` OUT-S120 (field), OUT-S121 (condition) or OUT-S101 (selector) that names
the field.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from control_plane.rollout import conditions, reading
from control_plane.rollout.conditions import BAD, GOOD, NO_SCORES, Condition, Gates
from control_plane.rollout.reading import wrong
from control_plane.rollout.sizes import Holdback, WaveSpec, read_holdback, read_waves
from protocol.device import TransferWindow
from protocol.identifiers import ModelName, Version, model_version

__all__ = [
    "BAD", "ENDED", "GOOD", "NO_SCORES", "TRANSITIONS", "Condition", "Gates", "Holdback",
    "OnFailure", "RolloutSpec", "ShadowSpec", "Status", "WaveSpec", "read_spec",
]  # fmt: skip

Status = Literal["preparing", "running", "paused", "completed", "aborted"]

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    "preparing": frozenset({"running", "paused", "aborted"}),
    "running": frozenset({"paused", "completed", "aborted"}),
    "paused": frozenset({"running", "preparing", "completed", "aborted"}),
    "completed": frozenset(),
    "aborted": frozenset(),
}
ENDED: Final[frozenset[Status]] = frozenset({"completed", "aborted"})

OnFailure = Literal["abort rollback", "abort keep", "pause"]

MAX_EXPOSURES: Final = 4
MAX_FAILURE_LIMIT: Final = 0.5
HOUR_S: Final = 3_600.0
DAY_S: Final = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class ShadowSpec:
    """Beside the current model first: `rows` compared, of which a share of `agreement` agree."""

    rows: int = 200
    agreement: float = 0.95


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """Stored as JSON without fields that equal their default, so defaults never change."""

    model: ModelName
    version: Version
    to: str = "all"
    """Selector text, as it was written."""
    waves: tuple[WaveSpec, ...] = ()
    """None: those that suit the size of the fleet, decided when it starts (waves.settled)."""
    soak_s: float | None = None
    """None: a day or more between default waves, otherwise nothing."""
    in_progress_timeout_s: float | None = None
    """A device that has begun and comes to no end in this time counts as failed."""
    silent_after_s: float = 3 * HOUR_S
    """No contact for so long after activation is a failure."""
    maintenance_windows: tuple[TransferWindow, ...] = ()
    """Times of a device's own day in which it may activate; none: always."""
    plan_max_age_s: int = 86_400
    error_condition: Condition | None = None
    """Where it holds the rollout fails at once, whatever the gates say."""
    success_condition: Condition | None = None
    """Has to hold as well as the gates have to pass."""
    gates: Gates = Gates()
    failure_limit: float = 0.02
    """Share of devices that may fail or fall silent."""
    holdback: Holdback | None = None
    shadow: ShadowSpec | None = None
    on_failure: OnFailure = "abort rollback"
    on_insufficient: Literal["wait", "pause"] = "wait"
    insufficient_after_s: float = 7 * DAY_S
    """How long too little evidence is waited for before a person is asked."""
    unproven: Literal["ask", "proceed"] = "ask"
    """What follows when neither harm nor safety is shown."""
    deadline_s: float | None = None
    """Paused when it is not completed so long after its start."""
    exposures_s: tuple[float, ...] = (6 * HOUR_S, 24 * HOUR_S)
    """A device's scores are judged once for each of these times with the candidate."""
    season_s: float = DAY_S
    """The period of the load: a score is compared with the same times one and two earlier."""
    supersedes: str | None = None
    """A rollout of the model that ends as this one starts."""

    def soak_of(self, wave: int) -> float:
        """Soak of a wave, counted from 1, in seconds."""
        own = self.waves[wave - 1].soak_s if wave <= len(self.waves) else None
        return (self.soak_s or 0.0) if own is None else own


FIELDS: Final = (
    "kind", "model", "version", "to", "waves", "soak", "in_progress_timeout", "silent_after",
    "maintenance_windows", "plan_max_age", "error_condition", "success_condition", "gates",
    "failure_limit", "holdback", "shadow", "on_failure", "on_insufficient", "insufficient_after",
    "unproven", "deadline", "exposures", "season", "supersedes",
)  # fmt: skip


def read_spec(body: Mapping[str, Any]) -> RolloutSpec:
    """A spec from JSON, YAML or command-line values. Raises `InvalidRequest`."""
    reading.known(body, FIELDS)
    given = {name: value for name, value in body.items() if value is not None}
    if given.get("kind", "rollout") != "rollout":
        raise wrong("kind", "is rollout")
    model, version = _version(given)
    read: dict[str, Any] = {}
    for field, reader in _READERS.items():
        word = field.removesuffix("_s")
        if word in given:
            read[field] = reader(given[word], word)
    spec = RolloutSpec(
        model,
        version,
        to=reading.text(given, "to", "all"),
        on_failure=cast(
            OnFailure,
            reading.choice(
                given, "on_failure", ("abort rollback", "abort keep", "pause"), "abort rollback"
            ),
        ),
        on_insufficient=cast(
            Literal["wait", "pause"],
            reading.choice(given, "on_insufficient", ("wait", "pause"), "wait"),
        ),
        unproven=cast(
            Literal["ask", "proceed"],
            reading.choice(given, "unproven", ("ask", "proceed"), "ask"),
        ),
        **read,
    )
    _check_together(spec)
    return spec


def _check_together(spec: RolloutSpec) -> None:
    longest = spec.exposures_s[-1]
    if longest > spec.season_s:
        raise wrong(
            "exposures",
            "are at most one season long: a longer one would be compared with itself",
            "shorten the last exposure, or write a longer season",
        )
    if spec.supersedes is not None and not re.fullmatch(
        re.escape(spec.model) + r"-[1-9][0-9]{0,9}", spec.supersedes
    ):
        raise wrong("supersedes", f"is a rollout of {spec.model}, like {spec.model}-7")


def _version(body: Mapping[str, Any]) -> tuple[ModelName, Version]:
    text = body.get("version")
    model = body.get("model")
    if not isinstance(text, str):
        raise wrong("version", "is text like digits/v2")
    if model is not None and not isinstance(model, str):
        raise wrong("model", "is text")
    reference = text if "/" in text or model is None else f"{model}/{text}"
    try:
        found = model_version(reference)
    except ValueError as error:
        raise wrong("version", f"is model/version, got {reference!r:.80}") from error
    if model is not None and found[0] != model:
        raise wrong("model", f"is {model}, but version says {found[0]}")
    return found


def _shadow(value: object, where: str) -> ShadowSpec | None:
    if reading.is_off(value):
        return None
    if reading.is_on(value):
        return ShadowSpec()
    if not isinstance(value, Mapping):
        raise wrong(where, "is an object", 'write shadow: {rows: 200, agreement: ">= 95 %"}')
    reading.known(value, ("rows", "agreement"), f"{where}.")
    usual = ShadowSpec()
    rows = reading.whole(value.get("rows", usual.rows), f"{where}.rows", 1, 1_000_000)
    if "agreement" not in value:
        return ShadowSpec(rows)
    operator, percent = reading.comparison(value["agreement"], f"{where}.agreement", ">", ">= 95 %")
    if operator != ">=":
        raise wrong(f"{where}.agreement", "compares with >=", 'write ">= 95 %"', "OUT-S121")
    return ShadowSpec(rows, percent / 100)


def _exposures(value: object, where: str) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        value = [value]
    if not 0 < len(value) <= MAX_EXPOSURES:
        raise wrong(where, f"is a list of 1 to {MAX_EXPOSURES} durations")
    read = tuple(reading.positive(v, f"{where}[{n}]") for n, v in enumerate(value, start=1))
    if any(later <= earlier for earlier, later in itertools.pairwise(read)):
        raise wrong(where, "grow: each is longer than the one before")
    return read


def _supersedes(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise wrong(where, "is the name of a rollout, like digits-7")
    return value


_READERS: Final[dict[str, Any]] = {
    "waves": read_waves,
    "soak_s": reading.duration,
    "in_progress_timeout_s": reading.positive,
    "silent_after_s": reading.positive,
    "maintenance_windows": reading.windows,
    "plan_max_age_s": lambda value, where: max(1, int(reading.positive(value, where))),
    "error_condition": lambda value, _: conditions.error_condition(value),
    "success_condition": lambda value, _: conditions.success_condition(value),
    "gates": lambda value, _: conditions.gates(value),
    "failure_limit": lambda value, where: reading.share(value, where, MAX_FAILURE_LIMIT),
    "holdback": read_holdback,
    "shadow": _shadow,
    "insufficient_after_s": reading.positive,
    "deadline_s": reading.positive,
    "exposures_s": _exposures,
    "season_s": reading.positive,
    "supersedes": _supersedes,
}
"""Fields of the spec that are read one by one; a file says them without `_s`."""

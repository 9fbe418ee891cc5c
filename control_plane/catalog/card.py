"""The model card: what the builder knows, and what only people know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.identifiers import ModelName, Version
from protocol.members import Card, Source


@dataclass(frozen=True, slots=True)
class CardFields:
    """What only people know. `created` is RFC 3339, given by the caller: builds read no clock."""

    created: str = ""
    description: str = ""
    license: str = ""
    intended_use: str = ""
    limitations: str = ""
    risk_class: str = ""
    data: tuple[Source, ...] = ()
    code: tuple[Source, ...] = ()
    framework: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


def make_card(
    model: ModelName, version: Version, rows: int, fields: CardFields, framework: str = ""
) -> Card:
    return Card(
        model=model,
        version=version,
        created=fields.created,
        description=fields.description,
        license=fields.license,
        intended_use=fields.intended_use,
        limitations=fields.limitations,
        risk_class=fields.risk_class,
        data=fields.data,
        code=fields.code,
        framework=fields.framework or framework,
        rows=rows,
        metrics={name: float(value) for name, value in fields.metrics.items()},
    )

"""Payloads to begin with: made by hand, one of each method, the golden ones, what was found."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from protocol.payload import Header
from tests.coding.bodies import ALL, Made
from tests.fuzz.methods import of_methods, of_models

HERE: Final = Path(__file__).parent
SEEDS: Final = HERE / "seeds"
GOLDEN: Final = HERE.parent / "golden/payload_v1"


@dataclass(frozen=True)
class Case:
    """`body` stands behind the header."""

    header: Header
    body: bytes
    base: bytes | None


def by_hand() -> list[Case]:
    return [_case(build()) for build in ALL.values()]


def by_the_encoder() -> list[Case]:
    """One of each method, models, and the golden ones."""
    return [*map(_case, of_methods()), *map(_case, of_models()), *kept(GOLDEN)]


def kept(folder: Path) -> list[Case]:
    return [read(path) for path in sorted(folder.glob("*.payload"))]


def read(path: Path) -> Case:
    data = path.read_bytes()
    header, start = Header.unpack(data)
    base = path.with_suffix(".base").read_bytes() if header.base else None
    return Case(header, data[start:], base)


def _case(each: Made) -> Case:
    return Case(each.header, each.body, each.base.data if each.base else None)


def keep(case: Case, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = case.header.pack() + case.body
    path = folder / f"{sha256(data).hexdigest()[:12]}.payload"
    path.write_bytes(data)
    if case.base is not None:
        path.with_suffix(".base").write_bytes(case.base)
    return path

"""Payloads to begin with: those made by hand, the golden ones, and what was found before."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from protocol.payload import Header
from tests.coding.bodies import ALL

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
    cases = [build() for build in ALL.values()]
    return [Case(each.header, each.body, each.base.data if each.base else None) for each in cases]


def kept(folder: Path) -> list[Case]:
    return [read(path) for path in sorted(folder.glob("*.payload"))]


def read(path: Path) -> Case:
    data = path.read_bytes()
    header, start = Header.unpack(data)
    base = path.with_suffix(".base").read_bytes() if header.base else None
    return Case(header, data[start:], base)


def keep(case: Case, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = case.header.pack() + case.body
    path = folder / f"{sha256(data).hexdigest()[:12]}.payload"
    path.write_bytes(data)
    if case.base is not None:
        path.with_suffix(".base").write_bytes(case.base)
    return path

"""Equal files of two bundles are one file: what another bundle has is linked, not fetched.

A file that a delta starts from is linked too while the delta travels, so that it survives its
bundle.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge_agent.decode import file_digest
from protocol.bundle import Member, decode_manifest
from protocol.errors import PeerError
from protocol.identifiers import Digest, digest

BASE_PREFIX: Final = ".b-"


def still_missing(bundles: Path, directory: Path, members: Iterable[Member]) -> tuple[Member, ...]:
    """Members that are neither in `directory` nor, by signed digest, in a complete bundle.

    Links the latter into `directory`. Every file is hashed before it counts. Raises `OSError`.
    """
    offers = _offers(bundles)
    missing = []
    for member in members:
        place = directory / member.path
        if _is(place, member):
            continue
        place.unlink(missing_ok=True)
        if not any(_link(offer, place, member) for offer in offers.get(member.digest, ())):
            missing.append(member)
    return tuple(missing)


def link_equals(directory: Path, member: Member, others: Iterable[Member]) -> tuple[Member, ...]:
    """Link a verified member to those of the others with equal bytes; returns the rest."""
    rest = []
    for other in others:
        if other.digest != member.digest:
            rest.append(other)
            continue
        (directory / other.path).unlink(missing_ok=True)
        (directory / other.path).hardlink_to(directory / member.path)
    return tuple(rest)


def bases(bundles: Path, directory: Path) -> dict[Digest, Path]:
    """Files that a delta into `directory` may start from, as far as names tell: members of
    complete bundles, and what was held for an earlier try. Raises `OSError`."""
    found = {name: paths[0] for name, paths in _offers(bundles).items()}
    for held in directory.glob(f"{BASE_PREFIX}*"):
        try:
            found[digest(held.name.removeprefix(BASE_PREFIX))] = held
        except ValueError:
            continue  # nobody wrote that here
    return found


def hold_base(directory: Path, base: Digest, path: Path) -> Path:
    """Link a base into `directory`, where it stays whatever becomes of its bundle. Raises
    `OSError`."""
    held = directory / f"{BASE_PREFIX}{base}"
    if held != path and not held.exists():
        held.hardlink_to(path)
    return held


def _offers(bundles: Path) -> dict[str, list[Path]]:
    """Where complete bundles claim to have which digest."""
    offers: dict[str, list[Path]] = {}
    for bundle in sorted(bundles.glob("sha256-*")):
        try:
            variant = decode_manifest((bundle / "manifest.json").read_bytes())
        except (OSError, PeerError):
            continue  # no bundle of ours; others deal with it
        for member in variant.members:
            offers.setdefault(member.digest, []).append(bundle / member.path)
    return offers


def _link(offer: Path, place: Path, member: Member) -> bool:
    if not _is(offer, member):
        return False
    place.hardlink_to(offer)
    return True


def _is(path: Path, member: Member) -> bool:
    try:
        return path.stat().st_size == member.size and file_digest(path) == member.digest
    except FileNotFoundError:
        return False

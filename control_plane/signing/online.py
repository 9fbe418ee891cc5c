"""What the online keys sign: rollouts, snapshot, timestamp; and when each is due again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, T, TargetFile, Targets, Timestamp

from control_plane.signing.create import serialise
from protocol import codec
from protocol.plan import PlanTerms

ROLLOUTS_EXPIRES: Final = timedelta(days=14)
SNAPSHOT_EXPIRES: Final = timedelta(days=14)
TIMESTAMP_EXPIRES: Final = timedelta(days=3)
DAILY: Final = timedelta(days=1)
TIMESTAMP_EVERY: Final = timedelta(hours=12)


def rollouts(
    targets: Mapping[str, TargetFile], above: int, now: datetime, signer: CryptoSigner
) -> bytes:
    signed = Targets(
        version=_next(above, now), expires=now + ROLLOUTS_EXPIRES, targets=dict(targets)
    )
    return _signed(signed, signer)


def snapshot(
    meta: Mapping[str, MetaFile], above: int, now: datetime, signer: CryptoSigner
) -> bytes:
    signed = Snapshot(version=_next(above, now), expires=now + SNAPSHOT_EXPIRES, meta=dict(meta))
    return _signed(signed, signer)


def timestamp(meta: MetaFile, above: int, now: datetime, signer: CryptoSigner) -> bytes:
    signed = Timestamp(
        version=_next(above, now),
        expires=now + TIMESTAMP_EXPIRES,
        snapshot_meta=meta,
        unrecognized_fields={"x-issued": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
    )
    return _signed(signed, signer)


def target(path: str, data: bytes, terms: PlanTerms) -> TargetFile:
    listed = TargetFile.from_data(path, data, ["sha256"])
    listed.unrecognized_fields = {"custom": codec.to_wire(terms)}
    return listed


def due(role: Targets | Snapshot | Timestamp, now: datetime) -> bool:
    """Whether it was signed longer ago than its interval. A clock set back counts as due too,
    else what was signed in the future would not be signed again until then."""
    lifetime, every = {
        Targets: (ROLLOUTS_EXPIRES, DAILY),
        Snapshot: (SNAPSHOT_EXPIRES, DAILY),
        Timestamp: (TIMESTAMP_EXPIRES, TIMESTAMP_EVERY),
    }[type(role)]
    age = lifetime - (role.expires - now)
    return age >= every or age < -every


def moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms // 1000, UTC)


def _next(above: int, now: datetime) -> int:
    """Unix minutes carry on above what any lost store can have issued."""
    return max(above + 1, int(now.timestamp()) // 60)


def _signed(role: T, signer: CryptoSigner) -> bytes:
    metadata = Metadata(role)
    metadata.sign(signer)
    return serialise(metadata)

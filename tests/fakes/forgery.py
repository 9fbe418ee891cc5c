"""What attackers do: old sets, stolen keys, damaged files; and honest rotations of keys."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, TargetFile, Targets
from tuf.api.serialization.json import JSONSerializer

from control_plane.signing import create
from protocol.approval import Approved
from protocol.errors import OutriderError
from tests.fakes.fleet_trust import TOPICS

ROLES = ("timestamp", "snapshot", "targets", "models", "rollouts")
EVIL = b"evil index"
"""Of a bundle that nobody approved."""


def next_publication(fleet):
    """A later, legitimate state: v1 revoked, v2 approved, another plan."""
    fleet.later(hours=1)
    fleet.approve("digits/v1", Approved(state="revoked"))
    fleet.plan("digits", fleet.approve("digits/v2"))
    fleet.publish()


def serialise(metadata):
    return metadata.to_bytes(JSONSerializer(compact=True))


def seal(key, broker, *, version=None, drop=(), now_ms=None):
    """Snapshot and timestamp over whatever the broker has: what stolen online keys can sign."""
    snapshot = Metadata[Any].from_bytes(broker[TOPICS.tuf("snapshot")])
    for role in ("targets", "models", "rollouts"):
        data = broker[TOPICS.tuf(role)]
        number = json.loads(data)["signed"]["version"]
        snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(number, data, ["sha256"])
    for role in drop:
        del snapshot.signed.meta[f"{role}.json"]
    snapshot.signed.version = version or snapshot.signed.version + 1
    if now_ms is not None:
        moment = datetime.fromtimestamp(now_ms // 1000, UTC)
        snapshot.signed.expires = moment + timedelta(days=14)
    snapshot.sign(key)
    broker[TOPICS.tuf("snapshot")] = data = serialise(snapshot)
    timestamp = Metadata[Any].from_bytes(broker[TOPICS.tuf("timestamp")])
    timestamp.signed.version = version or timestamp.signed.version + 1
    timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
    if now_ms is not None:
        moment = datetime.fromtimestamp(now_ms // 1000, UTC)
        timestamp.signed.expires = moment + timedelta(days=3)
        timestamp.signed.unrecognized_fields["x-issued"] = moment.isoformat()
    timestamp.sign(key)
    broker[TOPICS.tuf("timestamp")] = serialise(timestamp)


def refused(device, broker, error=OutriderError):
    before = device.trust.state(), device.trust.approvals, device.trust.plans
    with pytest.raises(error):
        device.read(broker)
    assert (device.trust.state(), device.trust.approvals, device.trust.plans) == before
    device.restart()
    assert (device.trust.state(), device.trust.approvals, device.trust.plans) == before


def list_bundle(targets):
    target = TargetFile.from_data("models/digits/evil", EVIL, ["sha256"])
    target.unrecognized_fields = {"custom": {"state": "approved"}}
    targets.targets[target.path] = target
    targets.version += 1


def damage(file, content):
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


def rotate(fleet, *, sign_old=True, sign_new=True):
    """A new root with new root keys, put on the broker; targets re-signed."""
    number = max(fleet.repository.roots()) + 1
    old_key = fleet.root_key = getattr(fleet, "root_key", fleet.signer(create.ROOT_KEY))
    new_key = CryptoSigner.generate_ed25519()
    metadata = Metadata[Root].from_bytes(fleet.repository.roots()[number - 1])
    root = metadata.signed
    root.version = number
    for role in ("root", "targets"):
        root.revoke_key(old_key.public_key.keyid, role)
        root.add_key(new_key.public_key, role)
    metadata.signatures.clear()
    for key, signs in ((old_key, sign_old), (new_key, sign_new)):
        if signs:
            metadata.sign(key, append=True)
    data = serialise(metadata)
    if sign_old and sign_new:
        targets = Metadata[Targets].from_bytes((fleet.tuf / "targets.json").read_bytes())
        targets.signed.version += 1
        targets.sign(new_key)
        (fleet.tuf / "targets.json").write_bytes(serialise(targets))
        (fleet.tuf / "root" / f"{number}.json").write_bytes(data)
        fleet.root_key = new_key
        fleet.reopen()
        fleet.publish()
    return data

"""What attackers tell a device; each returns what is retained on its broker then.

All but the last group are names in the table of `tests.attacks.matrix`, which says how they end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile

from control_plane.signing import create
from edge_agent.metadata import LIMITS
from protocol.device import Pin
from protocol.errors import TrustError
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import DAY_MS, START_MS, TOPICS, Fleet
from tests.fakes.forgery import EVIL, damage, list_bundle, seal, serialise
from tests.fakes.quorum import new_keys, next_root, replace_keys
from tests.fakes.siege import MODEL, Retained, Siege

# --- a broker without keys ------------------------------------------------------------------------


def behind(siege: Siege, *roles: str) -> Retained:
    """The device knows the newer of two publications; these roles are of the older."""
    old = siege.told
    siege.next_publication()
    siege.hear(siege.told)
    return siege.told | {TOPICS.tuf(role): old[TOPICS.tuf(role)] for role in roles}


def whole_old_publication(siege: Siege) -> Retained:
    old = siege.told
    siege.next_publication()
    siege.sign_document()
    siege.hear(siege.told)
    return old


def mixed(role: str) -> Callable[[Siege], Retained]:
    """A newer publication that the device has not seen, with one role of the older."""

    def forge(siege: Siege) -> Retained:
        old = siege.told
        siege.next_publication()
        return siege.told | {TOPICS.tuf(role): old[TOPICS.tuf(role)]}

    return forge


def frozen(siege: Siege) -> Retained:
    siege.later(days=4)
    return siege.told


def frozen_for_a_newcomer(siege: Siege) -> Retained:
    siege.later(days=4)
    siege.newcomer()
    return siege.told


def tampered(role: str) -> Callable[[Siege], Retained]:
    def forge(siege: Siege) -> Retained:
        siege.next_publication()
        data = siege.told[TOPICS.tuf(role)]
        return siege.told | {TOPICS.tuf(role): data.replace(b'"version":', b'"version":9')}

    return forge


def oversized(role: str) -> Callable[[Siege], Retained]:
    def forge(siege: Siege) -> Retained:
        siege.next_publication()
        data = siege.told[TOPICS.tuf(role)]
        return siege.told | {TOPICS.tuf(role): data + b" " * (LIMITS[role] + 1 - len(data))}

    return forge


def another_fleet(siege: Siege) -> Retained:
    other = Fleet(siege.folder / "other")
    other.now_ms = siege.fleet.now_ms
    other.plan(MODEL, other.approve(f"{MODEL}/evil"))
    other.publish()
    return siege.told | {topic: data for topic, data in other.broker.items() if "root" not in topic}


# --- stolen online keys ---------------------------------------------------------------------------


def _sealed(siege: Siege, *, drop: tuple[str, ...] = (), **roles: bytes) -> Retained:
    """With snapshot and timestamp made anew around these roles."""
    broker = siege.told | {TOPICS.tuf(role): data for role, data in roles.items()}
    seal(siege.fleet.signer(create.SNAPSHOT_KEY), broker, drop=drop)
    return broker


def unapproved_model(siege: Siege) -> Retained:
    key = siege.fleet.signer(create.ROLLOUTS_KEY)
    return _sealed(siege, models=siege.fleet.forge("models", list_bundle, key))


def one_of_three(siege: Siege) -> Retained:
    models = siege.fleet.forge("models", list_bundle, siege.fleet.approvers[0])
    return _sealed(siege, models=models)


def the_same_signature_twice(siege: Siege) -> Retained:
    raw = json.loads(siege.fleet.forge("models", list_bundle, siege.fleet.approvers[0]))
    raw["signatures"] *= 2
    return _sealed(siege, models=json.dumps(raw).encode())


def older_approvals(siege: Siege) -> Retained:
    old = siege.told[TOPICS.tuf("models")]
    siege.next_publication()
    siege.hear(siege.told)
    return _sealed(siege, models=old)


def approvals_left_out(siege: Siege) -> Retained:
    return _sealed(siege, drop=("models",))


def a_version_that_is_not_there(siege: Siege) -> Retained:
    broker = dict(_sealed(siege))
    key = siege.fleet.signer(create.SNAPSHOT_KEY)
    snapshot = Metadata[Any].from_bytes(broker[TOPICS.tuf("snapshot")])
    snapshot.signed.meta["models.json"].version = 10**6
    snapshot.sign(key)
    data = broker[TOPICS.tuf("snapshot")] = serialise(snapshot)
    timestamp = Metadata[Any].from_bytes(broker[TOPICS.tuf("timestamp")])
    timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
    timestamp.sign(key)
    broker[TOPICS.tuf("timestamp")] = serialise(timestamp)
    return broker


def rollouts_lists_models(siege: Siege) -> Retained:
    key = siege.fleet.signer(create.ROLLOUTS_KEY)
    return _sealed(siege, rollouts=siege.fleet.forge("rollouts", list_bundle, key))


def own_delegation(siege: Siege) -> Retained:
    key = siege.fleet.signer(create.ROLLOUTS_KEY)

    def delegate(targets: Any) -> None:
        targets.delegations.roles["models"].keyids = [key.public_key.keyid]
        targets.delegations.roles["models"].threshold = 1
        targets.version += 1

    return _sealed(
        siege,
        targets=siege.fleet.forge("targets", delegate, key),
        models=siege.fleet.forge("models", list_bundle, key),
    )


def expired_rollouts(siege: Siege) -> Retained:
    """The key of rollouts is not stolen: only its freshness is claimed."""
    siege.later(days=15)
    broker = siege.told
    key = siege.fleet.signer(create.SNAPSHOT_KEY)
    seal(key, broker, now_ms=siege.fleet.now_ms)
    return broker


def kept_fresh(siege: Siege, days: int) -> Retained:
    """The publication as it was, with everything that online keys sign signed again so late."""
    old = siege.told
    siege.next_publication()
    siege.later(days=days)
    broker = dict(old)
    moment = timedelta(days=days)

    def again(rollouts: Any) -> None:
        rollouts.version += 1
        rollouts.expires += moment

    siege.fleet.broker, honest = broker, siege.fleet.broker
    key = siege.fleet.signer(create.ROLLOUTS_KEY)
    broker[TOPICS.tuf("rollouts")] = siege.fleet.forge("rollouts", again, key)
    siege.fleet.broker = honest
    snapshot = siege.fleet.signer(create.SNAPSHOT_KEY)
    seal(snapshot, broker, now_ms=siege.fleet.now_ms)
    return broker


def older_list_for_a_newcomer(siege: Siege) -> Retained:
    told = kept_fresh(siege, days=60)
    siege.newcomer()
    return told


def old_plan_listed_again(siege: Siege) -> Retained:
    old, terms = siege.fleet.plans[MODEL]
    siege.next_publication()
    siege.hear(siege.told)
    siege.later(hours=1)
    fleet, (new, _) = siege.fleet, siege.fleet.plans[MODEL]
    fleet.plans[MODEL] = old, terms
    fleet.publish()
    told = siege.told
    fleet.plans[MODEL] = new, terms
    return told


def year_2040(siege: Siege) -> Retained:
    siege.newcomer(knows_the_time=False)
    siege.hear(siege.told)
    broker = siege.told
    future = START_MS + 5000 * DAY_MS
    seal(siege.fleet.signer(create.SNAPSHOT_KEY), broker, now_ms=future)
    return broker


def new_online_keys(siege: Siege) -> None:
    siege.later(hours=1)
    replace_keys(siege.fleet, online=True)


def fast_forward(siege: Siege) -> Retained:
    broker = siege.told
    key = siege.fleet.signer(create.SNAPSHOT_KEY)
    seal(key, broker, version=2**52)
    siege.hear(broker)
    assert siege.device.trust.state().timestamp == 2**52
    new_online_keys(siege)
    siege.sign_document()
    return siege.told


# --- approvers and root holders -------------------------------------------------------------------


def revoked_approver(siege: Siege) -> Retained:
    gone, stolen, kept = siege.fleet.approvers
    siege.later(hours=1)
    replace_keys(siege.fleet, approvers=[stolen, kept, *new_keys(1)])
    siege.hear(siege.told)
    models = Metadata[Any].from_bytes(siege.told[TOPICS.tuf("models")])
    list_bundle(models.signed)
    models.signatures.clear()
    for key in (gone, stolen):
        models.sign(key, append=True)
    return _sealed(siege, models=serialise(models))


def forgotten_list(siege: Siege) -> Retained:
    unsigned = siege.told[TOPICS.tuf("models")]
    siege.later(hours=1)
    replace_keys(siege.fleet, approvers=new_keys(3))
    # A root that its holders signed counts at once, whatever becomes of the rest.
    siege.hear({topic: data for topic, data in siege.told.items() if "/root/" in topic})
    return _sealed(siege, models=unsigned)


def own_root(siege: Siege) -> Retained:
    mine = new_keys(3)
    root = next_root(siege.fleet, mine)
    for key in (siege.fleet.holders[0], *mine):
        root.sign(key, append=True)
    return siege.told | {TOPICS.root(root.signed.version): serialise(root)}


def gap(siege: Siege) -> Retained:
    for _ in range(2):
        siege.later(hours=1)
        replace_keys(siege.fleet, holders=new_keys(3))
    return {topic: data for topic, data in siege.told.items() if topic != TOPICS.root(2)}


def out_of_turn(siege: Siege) -> Retained:
    for _ in range(2):
        siege.later(hours=1)
        replace_keys(siege.fleet, holders=new_keys(3))
    return siege.told | {TOPICS.root(2): siege.told[TOPICS.root(3)]}


# --- the device itself ----------------------------------------------------------------------------


def emptied_cache(siege: Siege) -> Retained:
    old = siege.told
    siege.next_publication()
    siege.hear(siege.told)
    damage(siege.device.directory / "tuf" / "trusted.json", b"")
    siege.restart()
    return {topic: data for topic, data in old.items() if "/tuf/" in topic}


def nothing_lost(siege: Siege) -> bool:
    """An older set is not trusted, and orders from before the power cut stay in force."""
    return not siege.device.trust.known and siege.orders.plans[MODEL].number == 2


# --- what must work -------------------------------------------------------------------------------


def unknown_time(siege: Siege) -> Retained:
    siege.newcomer(knows_the_time=False)
    return siege.told


def new_approvers(siege: Siege) -> Retained:
    siege.later(hours=1)
    replace_keys(siege.fleet, approvers=new_keys(3))
    siege.next_publication()
    return siege.told


def five_rotations(siege: Siege) -> Retained:
    for _ in range(5):
        siege.later(days=1)
        replace_keys(siege.fleet, holders=new_keys(3), approvers=new_keys(3), online=True)
    siege.sign_document()
    siege.next_publication()
    return siege.told


def pinned_back(siege: Siege) -> Retained:
    siege.later(hours=1)
    v2 = siege.fleet.approve(f"{MODEL}/v2")
    siege.fleet.plan(MODEL, v2)
    siege.fleet.publish()
    siege.hear(siege.told)
    assert siege.heads_for() == (v2, "")
    siege.sign_document(pins={MODEL: Pin(siege.v1)})
    return siege.told


def month_old_stick(siege: Siege) -> Retained:
    before = siege.told
    siege.next_publication()
    stick = siege.told
    siege.later(days=30)
    siege.carry(stick)
    with pytest.raises(TrustError, match="T110"):
        siege.carry(before)
    return {}


# --- helpers of outcomes --------------------------------------------------------------------------


def _old_plan_is_refused(siege: Siege) -> bool:
    with pytest.raises(TrustError, match="T106"):
        siege.device.trust.verify_plan(MODEL, siege.fleet.plans[MODEL][0])
    return siege.orders.plans[MODEL].number == 2


def not_approved(siege: Siege) -> bool:
    return digest_of(EVIL) not in siege.device.trust.approvals


def revoked_v1(siege: Siege) -> bool:
    return siege.device.trust.approvals[siege.v1].revoked

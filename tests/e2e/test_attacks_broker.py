"""Attacks on a real agent over a real broker, with what an attacker may have stolen.

The rows are in `tests.attacks.wider`. Every case ends in a state that the API shows, with its
code; what runs answers every request; memory stays bounded; and as soon as the truth is told the
device converges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from control_plane.signing import ceremony, create, keys, rotation
from control_plane.signing.drafts import Change
from control_plane.signing.installing import Install
from control_plane.signing.online_keys import OnlineKeys
from control_plane.wiring import now_ms
from edge_agent.identity import load
from protocol import codec
from protocol.bundle import encode_index, encode_manifest
from protocol.device import Pin
from protocol.identifiers import digest_of
from protocol.members import DevPolicy, Policy
from protocol.payload import FEATURE_ZSTD, MAX_BLOCK, Header
from protocol.topics import shard_of
from tests.fakes.bundles import make_bundle
from tests.fakes.certificates import Authority
from tests.fakes.forgery import list_bundle
from tests.fakes.peak import peak_of
from tests.fakes.site import Site
from tests.fakes.thief import Intruder, Thief, bomb, offer
from tests.fakes.waiting import until
from tests.fakes.whole_fleet import MODEL, FleetHere, short_folder

pytestmark = pytest.mark.e2e

VICTIM, OWN = "a-1", "a-2"
"""The device that answers requests, and the one whose certificate was stolen."""
ENOUGH = 64 * 1024 * 1024
"""Bytes that a process may grow by while it deals with something that claims far more."""
YEAR_2040_MS = int(datetime(2040, 1, 1, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        fleet.enrol({"x": (VICTIM, OWN)})
        site = Site(fleet, VICTIM)
        site.begin()
        yield site
        fleet.stop()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    with running.besieged():
        yield running


@pytest.fixture
def thief(site: Site) -> Iterator[Thief]:
    thief = Thief(site)
    yield thief
    if thief.documents:
        outdo(site)


@pytest.fixture
def intruder(site: Site) -> Iterator[Intruder]:
    identity = load(site.fleet.devices[OWN].home)
    with Intruder(identity.broker, identity.device) as intruder:
        yield intruder


# --- stolen online keys ---------------------------------------------------------------------------


def test_a_bundle_that_only_online_keys_list_is_not_approved(site, thief):
    before = site.reported(site.device)["trust"]["models"]
    thief.tell(models=thief.changed("models", list_bundle))
    site.until_refused("metadata", "OUT-T101")
    assert site.reported(site.device)["trust"]["models"] == before


def test_an_order_to_run_what_nobody_approved_changes_nothing_and_is_reported(site, thief):
    version = next(site.versions)
    bundle = site.push(version, scale=2)
    thief.document(pins={MODEL: Pin(bundle.digest)})
    site.until_refused(f"pin of {MODEL}", "OUT-T104")
    assert site.model(site.device)["runs"] == f"{MODEL}/{site.stable}"


def test_older_approvals_under_a_new_snapshot_are_refused(site, thief):
    old = thief.role("models")
    version = site.ship_next()
    site.pin(site.device, version)
    site.until_runs(site.device, version)
    thief.tell(models=old)
    site.until_refused("metadata", "OUT-T101")
    site.unpin(site.device)


def test_an_old_plan_is_not_followed(site):
    old = site.retained(site.topics.plan(MODEL))
    version = site.ship_next()
    number = site.reported(site.device)["models"][MODEL]["plan_number"]
    site.lies[f"plans/{MODEL}"] = lambda _: old
    rollout = site.roll_out(version)
    site.until_refused(f"plan-{MODEL}", "OUT-T106")
    assert site.reported(site.device)["models"][MODEL]["plan_number"] == number
    site.tell_the_truth()
    site.until_runs(site.device, version)
    site.until_ended(rollout)


def test_a_plan_of_a_million_rules_is_refused_by_its_size(site):
    version = site.ship_next()
    rule = b'{"selector":null,"stable":"sha256-' + b"0" * 64 + b'"},'
    # As much as the broker takes; it is refused before it is looked at, so it never grows here.
    huge = b'{"rules":[' + rule * (2_000_000 // len(rule)) + b"]}"
    agent = site.device.process.pid
    with peak_of(agent) as peak:
        site.lies[f"plans/{MODEL}"] = lambda _: huge
        rollout = site.roll_out(version)
        site.until_refused(f"plan-{MODEL}", "OUT-N211")
        assert peak() < ENOUGH
    site.tell_the_truth()
    site.until_runs(site.device, version)
    site.until_ended(rollout)


DOCUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "of another device": ({"of": OWN}, "OUT-T102"),
    "with a setting out of range": ({"settings": {"buffer_bytes": 1}}, "OUT-N210"),
    "with a setting of another kind": ({"settings": {"capture_off": "no"}}, "OUT-N210"),
    "from the future": ({"must_understand": ["capture/1"]}, "OUT-D330"),
}


@pytest.mark.parametrize("fault", DOCUMENTS)
def test_a_document_is_refused_although_it_is_signed(site, thief, fault):
    values, code = DOCUMENTS[fault]
    version = site.reported(site.device)["document_version"]
    thief.document(**values)
    site.until_refused("document", code)
    assert site.reported(site.device)["document_version"] == version


def test_an_old_document_is_refused(site):
    topic = site.topics.document(f"{site.topics.fleet}-{VICTIM}")
    old = site.retained(topic)
    outdo(site)
    site.say(topic, old)
    site.until_refused("document", "OUT-T102")


def test_orders_back_and_forth_between_approved_bundles_are_held_back(site, thief):
    policy = Policy(min_requests=20, dev=DevPolicy(health_window_s=1, guard=True))
    # Another bundle was tried less than 15 minutes ago: that is what every test here begins with.
    bundle = site.ship_good(policy=policy)
    thief.document(pins={MODEL: Pin(bundle.digest)})

    def held_back() -> bool:
        return bool(site.reported(site.device)["models"][MODEL].get("waiting") == "OUT-D340")

    site.until(site.device, held_back, "held back")
    assert site.model(site.device)["runs"] == f"{MODEL}/{site.stable}"


# --- a stolen broker ------------------------------------------------------------------------------


def test_garbage_on_the_next_root_topic_fails_closed_and_holds_up_nothing_else(site):
    number = site.reported(site.device)["trust"]["root"] + 1
    root = site.topics.root(number)
    refusal = f"metadata refused: OUT-T101 signed metadata is refused: {number}.root"
    site.say(root, b"garbage")
    # Not what it reports: that may be over, once it has asked again, before anybody hears of it.
    site.until(site.device, lambda: refusal in site.device.log.read_text(), "refusing garbage")
    version = site.ship_next()
    site.pin(site.device, version)
    site.until_runs(site.device, version)
    site.say(root, b"")
    site.unpin(site.device)


def test_a_payload_that_unpacks_to_a_gigabyte_is_given_up_in_bounded_memory(site):
    bundle = site.ship_good()
    member = bundle.variant.member("model")
    header = Header(FEATURE_ZSTD, None, member.digest, member.size, MAX_BLOCK)
    offer(site, member.digest, header.pack() + bomb())
    before = site.counters().get("OUT-F110", 0)
    with peak_of(site.device.process.pid) as peak:
        site.pin(site.device, bundle.version)
        site.until_counted("OUT-F110", before)
        assert peak() < ENOUGH
    site.tell_the_truth()
    site.until_runs(site.device, bundle.version)
    site.unpin(site.device)


# --- approvers were deceived ----------------------------------------------------------------------

MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    "claims 2^63 bytes": lambda data: data.replace(b'"size":', b'"size":9223372036854775808'),
    "leaves its folder": lambda data: data.replace(b"model.onnx", b"../../../escaped"),
    "names a file of the system": lambda data: data.replace(b"model.onnx", b"/tmp/or-escaped"),
}


@pytest.mark.parametrize("fault", MANIFESTS)
def test_a_manifest_is_refused_although_approvers_signed_it(site, thief, fault):
    site.until_heads_for(site.stable)
    version = next(site.versions)
    bundle = make_bundle(site.fleet.folder / "made", MODEL, version, scale=4)
    manifest = MANIFESTS[fault](encode_manifest(bundle.variant))
    reference = replace(bundle.index.variants[0], digest=digest_of(manifest), size=len(manifest))
    index = encode_index(replace(bundle.index, variants=(reference,)))
    for data in (index, manifest):
        site.say(site.topics.manifest(MODEL, digest_of(data)), data)
    approve(site, version, index)
    before = site.counters().get("OUT-B120", 0)
    thief.document(pins={MODEL: Pin(digest_of(index))})
    site.until_counted("OUT-B120", before)
    assert not list(site.fleet.folder.rglob("*escaped*"))
    assert not Path("/tmp/or-escaped").exists()
    assert site.model(site.device)["runs"] == f"{MODEL}/{site.stable}"


# --- a stolen certificate of a device -------------------------------------------------------------


def test_a_device_publishes_nothing_for_others(site, intruder):
    victim, topics = f"{site.topics.fleet}-{VICTIM}", site.topics
    digest = digest_of(b"")
    retained = [
        topics.tuf("timestamp"),
        topics.root(2),
        topics.plan(MODEL),
        topics.deny,
        topics.manifest(MODEL, digest),
        topics.hint(MODEL, digest),
        topics.frame(MODEL, digest, 0),
        topics.document(victim),
        topics.document(intruder.name),
        topics.ack(victim),
        topics.ingest(shard_of(victim)),
        topics.presence(victim),
    ]
    before = site.control.retained.read(retained)
    for topic in (*retained, topics.up(victim, "records"), topics.up(victim, "want")):
        intruder.publish(topic, b"forged", retain=True)
    # On its own topic it is heard, so the rest has been dealt with before.
    refused = site.control.ingest.refused.total()
    intruder.publish(topics.up(intruder.name, "records"), b"forged")
    until(lambda: site.control.ingest.refused.total() > refused)
    assert site.control.ingest.refused.total() == refused + 1
    assert site.control.retained.read(retained) == before


def test_a_device_hears_nothing_of_others(site, intruder):
    victim, topics = f"{site.topics.fleet}-{VICTIM}", site.topics
    intruder.subscribe("#", f"{topics.prefix}#", topics.document(victim), topics.ack(victim))
    intruder.subscribe(f"{topics.prefix}up/#", topics.presence(victim))
    intruder.subscribe(topics.document(intruder.name))
    outdo(site)
    until(lambda: topics.document(intruder.name) in intruder.heard)
    assert not [topic for topic in intruder.heard if victim in topic]


def test_another_s_client_id_is_of_no_use(site):
    identity = load(site.fleet.devices[OWN].home)
    before = site.fleet.status(site.device)["link"]
    with Intruder(identity.broker, f"{site.topics.fleet}-{VICTIM}") as intruder:
        intruder.publish(site.topics.up(identity.device, "records"), b"x")
    assert site.fleet.status(site.device)["link"] == before


def test_the_right_name_of_a_wrong_authority_does_not_get_in(site, tmp_path):
    address = load(site.fleet.devices[OWN].home).broker
    name = f"{site.topics.fleet}-{VICTIM}"
    assert address.tls is not None
    certificate, key = Authority.create(tmp_path, "rogue").issue(name)
    tls = replace(address.tls, certificate=certificate, key=key)
    assert not Intruder(replace(address, tls=tls), name).knock()


def test_another_fleet_s_topics_are_out_of_reach(site, intruder):
    other = site.topics.prefix.replace(site.topics.fleet, "other")
    intruder.subscribe(f"{other}#")
    for topic in (f"{other}deny", f"{other}up/0/{intruder.name}/records"):
        intruder.publish(topic, b"forged", retain=True)
    intruder.subscribe(f"{other}deny", site.topics.deny)
    until(lambda: site.topics.deny in intruder.heard)
    assert not [topic for topic in intruder.heard if topic.startswith(other)]


def test_a_message_that_unpacks_to_a_gigabyte_is_refused_in_bounded_memory(site, intruder):
    refused = site.control.ingest.refused["OUT-N211"]
    message = bytes([codec.CODEC_ZSTD_JSON]) + bomb()
    assert len(message) < codec.MAX_UP_PACKED
    with peak_of(os.getpid()) as peak:
        for _ in range(10):
            intruder.publish(site.topics.up(intruder.name, "records"), message)
        until(lambda: site.control.ingest.refused["OUT-N211"] == refused + 10)
        assert peak() < ENOUGH


# --- recovery -------------------------------------------------------------------------------------


def test_a_timestamp_of_2040_holds_up_what_is_new_until_the_online_keys_are_replaced(site, thief):
    bundle = site.ship_good()
    site.until(site.device, lambda: knows(site), "at the newest approvals")
    thief.tell(now_ms=YEAR_2040_MS)
    site.pin(site.device, bundle.version)

    def held_back() -> bool:
        return bool(site.reported(site.device)["models"][MODEL].get("waiting") == "OUT-T121")

    site.until(site.device, held_back, "held back")
    assert site.model(site.device)["runs"] == f"{MODEL}/{site.stable}"
    replace_online_keys(site)
    site.until_runs(site.device, bundle.version)
    site.unpin(site.device)
    site.until_heads_for(site.stable)


def knows(site: Site) -> bool:
    """Not of the broker: what was signed a moment ago may not be there yet."""
    signed = Metadata[Any].from_bytes(site.control.repository.in_force().models)
    trusted = site.reported(site.device)["trust"]["models"]
    return bool(trusted == signed.signed.version)


def replace_online_keys(site: Site) -> None:
    """What `outrider trust rotate` does when they were stolen."""
    folder, repository = site.control.settings.keys, site.control.repository
    moment = datetime.now(UTC)
    online = OnlineKeys(folder)
    proposal = rotation.rotate(
        site.topics.fleet,
        repository.in_force(),
        moment,
        rollouts=online.generate("rollouts", following=True),
        snapshot=online.generate("snapshot", following=True),
    )
    signed = ceremony.sign(proposal, keys.load(folder / create.ROOT_KEY))
    assert repository.install(Install.of(signed), now_ms())
    site.control.loop.wake()


# --- what the attackers above do ------------------------------------------------------------------


def outdo(site: Site) -> None:
    """Two honest documents more: the thief has used up the version of the first."""
    for name in ("one", "two"):
        site.fleet.client.patch(f"devices/{VICTIM}", {"labels": {"changed": name}})
    row = site.control.store.devices.get(VICTIM)
    assert row is not None

    def there() -> bool:
        newest = site.control.store.devices.get(VICTIM)
        assert newest is not None
        return bool(site.reported(site.device)["document_version"] == newest.version)

    site.until(site.device, there, "at the newest document")


def approve(site: Site, version: str, index: bytes) -> None:
    """What approvers sign who look at nothing but a name."""
    repository, key = site.control.repository, site.control.settings.keys / create.APPROVER_KEY
    draft = repository.draft((Change(MODEL, version, digest_of(index), len(index)),), now_ms())
    signature = draft.metadata().sign(keys.load(key))
    repository.add_signature(draft.id, draft.version, signature.keyid, signature.signature)
    site.control.loop.wake()

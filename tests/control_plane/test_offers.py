"""Everything that a device needs of a bundle is handed over, in an order that promises nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from control_plane.blobs import Blobs
from control_plane.encode import Encoded, encode, reopen
from control_plane.encode.making import Ability, File, make
from control_plane.encode.offering import is_plain
from control_plane.judging import Judge
from control_plane.offers import Offers
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.store.payloads import EncodedPayload
from control_plane.ticker import Ticker
from protocol.identifiers import digest_of
from protocol.payload import KNOWN_FEATURES
from protocol.topics import TUF_ROLES, Topics
from tests.fakes.origin import plain_bundle

TOPICS = Topics("local")


class Kept:
    """A publisher that is always done."""

    settled = True

    def __init__(self) -> None:
        self.order: list[str] = []
        self.retained: dict[str, bytes] = {}
        self.payloads: dict[str, Sequence[Encoded]] = {}

    def keep(self, topic: str, data: bytes) -> None:
        self.order.append(topic)
        self.retained[topic] = data

    def withdraw(self, topic):
        self.retained.pop(topic, None)

    def keep_metadata(self, roots, roles):
        for number, data in roots.items():
            self.keep(TOPICS.root(number), data)
        for role, data in roles.items():
            self.keep(TOPICS.tuf(role), data)

    def offer(self, model, file, payloads):
        self.order.append(file)
        self.payloads[file] = payloads


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def bundle(tmp_path, blobs):
    made = plain_bundle(tmp_path / "bundles")
    for data in made.files.values():
        blobs.put(data, limit=10**9)
    return made


def offers(tmp_path, store, blobs, encode=encode, abilities=tuple):
    return Offers(
        TOPICS, blobs, store.payloads, tmp_path, tmp_path / "payloads",
        encode=encode, reopen=reopen, abilities=abilities,
    )  # fmt: skip


def test_files_come_before_manifests_and_those_before_the_index(tmp_path, store, blobs, bundle):
    kept = Kept()
    assert offers(tmp_path, store, blobs).offer(bundle.digest, kept, 1)
    assert kept.payloads.keys() == {member.digest for member in bundle.variant.members}
    assert kept.order[-2:] == [
        TOPICS.manifest("toy", bundle.manifest),
        TOPICS.manifest("toy", bundle.digest),
    ]
    assert kept.retained[kept.order[-1]] == bundle.files["index.json"]


def test_a_file_is_encoded_once_also_over_restarts(tmp_path, store, blobs, bundle):
    encoded = []

    def counting(file, digest, directory):
        encoded.append(digest)
        return encode(file, digest, directory)

    first = Kept()
    for kept in (first, Kept()):
        assert offers(tmp_path, store, blobs, counting).offer(bundle.digest, kept, 1)
        assert kept.payloads == first.payloads
    assert len(encoded) == len(bundle.variant.members)


def test_a_payload_that_was_lost_is_encoded_again(tmp_path, store, blobs, bundle):
    offers(tmp_path, store, blobs).offer(bundle.digest, Kept(), 1)
    for path in (tmp_path / "payloads").iterdir():
        path.unlink()
    kept = Kept()
    assert offers(tmp_path, store, blobs).offer(bundle.digest, kept, 2)
    assert all(each.path.exists() for payloads in kept.payloads.values() for each in payloads)


def test_a_bundle_that_cannot_be_read_is_tried_again(tmp_path, store, blobs, bundle):
    it = offers(tmp_path, store, blobs)
    blobs.remove(bundle.manifest)
    assert not it.offer(bundle.digest, Kept(), 1)
    blobs.put(bundle.files["manifest.json"], limit=10**9)
    assert it.offer(bundle.digest, Kept(), 2)
    assert not it.offer(digest_of(b"nothing"), Kept(), 3)


def test_what_everybody_can_decode_is_encoded_again_although_others_are_there(
    tmp_path, store, blobs, bundle
):
    member = bundle.variant.member("model")
    file = File(blobs.path(member.digest), member.digest, "model")
    everything = Ability(KNOWN_FEATURES)
    directory = tmp_path / "payloads"
    for made in make(file, None, frozenset({everything}), directory):
        path = str(made.path.relative_to(tmp_path))
        store.payloads.put(EncodedPayload("toy", member.digest, made.entry, path, 1))
    others = [each.entry for each in store.payloads.of_file("toy", member.digest)]
    it = offers(tmp_path, store, blobs, abilities=lambda: [everything])
    kept = Kept()
    assert it.offer(bundle.digest, kept, 1)
    found = [each.entry for each in kept.payloads[member.digest]]
    assert any(map(is_plain, found))
    assert set(others) <= set(found)
    assert [each.size for each in found] == sorted(each.size for each in found)


def test_a_payload_that_asks_for_more_than_agents_grant_is_made_again_once(
    tmp_path, store, blobs, bundle
):
    member = bundle.variant.member("model")
    it = offers(tmp_path, store, blobs)
    assert it.offer(bundle.digest, Kept(), 1)
    (right,) = store.payloads.of_file("toy", member.digest)
    wrong = replace(right.entry, payload=digest_of(b"of an earlier version"))
    store.payloads.put(EncodedPayload("toy", member.digest, wrong, right.path, 1))
    store.payloads.remove("toy", member.digest, right.entry.payload)
    encoded = []

    def counting(file, digest, directory):
        encoded.append(digest)
        return encode(file, digest, directory)

    again = offers(tmp_path, store, blobs, counting)
    for now_ms in (2, 3, 4):
        assert again.offer(bundle.digest, Kept(), now_ms)
    assert encoded == [member.digest]
    assert store.payloads.of_file("toy", member.digest)[0].entry == right.entry


def test_what_devices_can_decode_is_asked_once_per_tick(tmp_path, store, blobs, bundle):
    asked: list[None] = []

    def abilities():
        asked.append(None)
        return ()

    it = offers(tmp_path, store, blobs, abilities=abilities)
    for now_ms in (1, 1, 1, 2, 2):
        assert it.offer(bundle.digest, Kept(), now_ms)
    assert len(asked) == 2


def test_an_offered_bundle_stays_offered_when_its_files_are_lost(tmp_path, store, blobs, bundle):
    it = offers(tmp_path, store, blobs)
    assert it.offer(bundle.digest, Kept(), 1)
    assert it.offer(bundle.digest, Kept(), 2)
    for member in bundle.variant.members:
        blobs.remove(member.digest)
        store.payloads.remove(
            "toy", member.digest, store.payloads.of_file("toy", member.digest)[0].entry.payload
        )
    assert it.offer(bundle.digest, Kept(), 3)


def test_with_the_real_repository_a_consistent_set_is_retained_timestamp_last(
    tmp_path, store, blobs
):
    now_ms = 1_800_000_000_000
    repository = Repository.create_dev(tmp_path / "tuf", tmp_path / "keys", "local", now_ms)
    store.devices.enrol("local-dev-1", {"site": "home"}, None, now_ms)
    kept = Kept()
    ticker = Ticker(
        "local",
        store,
        repository,
        kept,
        offers(tmp_path, store, blobs),
        Judge(store),
        listening_since_ms=lambda: None,
    )
    ticker.tick(now_ms)
    assert {TOPICS.tuf(role) for role in TUF_ROLES} <= kept.retained.keys()
    assert TOPICS.document("local-dev-1") in kept.retained
    metadata = [topic for topic in kept.order if topic.startswith(f"{TOPICS.prefix}tuf/")]
    assert metadata[-1] == TOPICS.tuf("timestamp")
    before = dict(kept.retained)
    ticker.tick(now_ms + 1000)
    assert kept.retained == before

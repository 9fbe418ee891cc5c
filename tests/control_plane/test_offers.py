"""Everything that a device needs of a bundle is handed over, in an order that promises nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from control_plane.blobs import Blobs
from control_plane.encode import Encoded, encode, reopen
from control_plane.judging import Judge
from control_plane.offers import Offers
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.ticker import Ticker
from protocol.identifiers import digest_of
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


def offers(tmp_path, store, blobs, encode=encode):
    return Offers(
        TOPICS, blobs, store.payloads, tmp_path, tmp_path / "payloads",
        encode=encode, reopen=reopen,
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

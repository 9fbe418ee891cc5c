"""From a push to the device: encoder, catalogue, hint, frames, fetcher and decoder are the real
ones; broker and links are in memory."""

from __future__ import annotations

import pytest

from control_plane import encode
from control_plane.deltas import abilities_of
from control_plane.offers import Offers
from control_plane.publisher import Publisher
from control_plane.retained import Retained
from control_plane.settings import Settings
from edge_agent.abilities import find_abilities
from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.payload import PLAIN_FEATURES, Hint
from tests.fakes.broker import Broker, FakeLink
from tests.fakes.fetching import TOPICS, Device
from tests.fakes.published import MODEL, NOW_MS, Origin

MIRROR = "https://mirror.example/payloads/"


class Site:
    """One control plane, one broker, one device that runs v1."""

    def __init__(self, origin: Origin, broker: Broker) -> None:
        self.origin = origin
        self.broker = broker
        self.link = FakeLink(
            broker,
            "outrider-control-local",
            on_message=self._hear,
            on_state=lambda up, why: self.publisher.connected() if up else None,
        )
        self.retained = Retained(self.link, TOPICS)
        self.publisher = Publisher(
            self.link, TOPICS, self.retained, urls=origin.settings.payload_urls
        )
        self.offers = Offers(
            TOPICS,
            origin.blobs,
            origin.store.payloads,
            origin.settings.home,
            origin.settings.payloads,
            encode=encode.encode,
            reopen=encode.reopen,
            abilities=lambda: abilities_of(origin.store),
        )

    def _hear(self, topic, data):
        self.retained.on_message(topic, data)

    def publish(self, *bundles, now_ms=NOW_MS):
        """A tick."""
        with self.broker.running():
            self.link.start()
            for each in bundles:
                assert self.offers.offer(each.digest, self.publisher, now_ms)
            while not self.publisher.work(0.0):
                pass
            self.link.stop()

    def hint(self, bundle, role="model"):
        file = bundle.variant.member(role).digest
        return codec.decode(
            self.broker.retained[TOPICS.hint(MODEL, file)], Hint, limit=codec.MAX_HINT
        )


@pytest.fixture
def origin(tmp_path):
    origin = Origin(Settings(tmp_path / "home", mirrors=(MIRROR,)))
    yield origin
    origin.store.close()


@pytest.fixture
def site(origin):
    return Site(origin, Broker())


def device_with(site, before, after, folder, known):
    """The device, once it has everything of `after`."""
    (folder / before.digest).mkdir(parents=True)
    for file in before.path.iterdir():
        (folder / before.digest / file.name).write_bytes(file.read_bytes())
    approvals = {after.digest: ApprovedBundle(MODEL, after.version, after.digest)}
    device = Device(folder, site.broker, approvals, known=known)
    device.fetcher.ensure(MODEL, after.digest)
    device.until(lambda: device.done)
    here = folder / f".{after.digest}"
    found = {path.name: path.read_bytes() for path in here.iterdir()}
    assert found == {path.name: path.read_bytes() for path in after.path.iterdir()}
    device.stop()
    return device


def test_a_push_publishes_a_delta_that_the_device_fetches_and_decodes(origin, site, tmp_path):
    before, after = origin.bundle("v1", ballast=96), origin.bundle("v2", 1.00001, ballast=96)
    origin.push(before)
    origin.hear("cam", before.digest, features=find_abilities())
    origin.push(after)
    site.publish(before, after)
    first = site.hint(after).entries[0]
    assert first.base == before.variant.member("model").digest
    device = device_with(site, before, after, tmp_path / "device", find_abilities())
    fetched = device.fetcher.fetched
    assert fetched["fetched delta bytes"] >= first.size
    assert device.fetcher.counters == {}


def test_a_device_that_decodes_nothing_special_gets_the_same_files(origin, site, tmp_path):
    before, after = origin.bundle("v1"), origin.bundle("v2", 1.00001)
    origin.push(before)
    origin.hear("cam", before.digest, features=find_abilities())
    origin.push(after)
    site.publish(after)
    device = device_with(site, before, after, tmp_path / "device", PLAIN_FEATURES)
    assert device.fetcher.fetched["fetched delta bytes"] == 0


def test_a_new_payload_of_an_offered_bundle_reaches_the_hint_without_a_restart(
    origin, site, tmp_path
):
    before, after = origin.bundle("v1"), origin.bundle("v2", 1.00001)
    origin.push(before)
    origin.push(after)
    site.publish(after)
    assert [each.base for each in site.hint(after).entries] == [None]
    origin.hear("cam", before.digest)
    origin.deltas.make(origin.deltas.of(after.digest), lambda *_: None)
    site.publish(after, now_ms=NOW_MS + 1)
    assert site.hint(after).entries[0].base == before.variant.member("model").digest
    device_with(site, before, after, tmp_path / "device", find_abilities())


def test_the_hint_names_the_mirrors_and_the_control_plane_itself(origin, site):
    bundle = origin.bundle("v1")
    origin.push(bundle)
    site.publish(bundle)
    assert [each.urls for each in site.hint(bundle).entries] == [(MIRROR, "/")]


def test_what_has_not_changed_is_published_once(origin, site):
    before, after = origin.bundle("v1"), origin.bundle("v2", 1.00001)
    origin.push(before)
    origin.hear("cam", before.digest)
    origin.push(after)
    for turn in range(3):
        site.publish(before, after, now_ms=NOW_MS + turn)
    published = [topic for topic, _ in site.broker.published if "/echo/" not in topic]
    assert len(published) == len(set(published))

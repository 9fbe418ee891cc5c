"""Frames are frames: over HTTP, over the broker, or some of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.asking import Server
from edge_agent.bringing import Bringing
from edge_agent.http_source import HttpSource
from edge_agent.ways import TRANSPORTS, Transport, Ways
from protocol import codec
from protocol.identifiers import Digest
from protocol.payload import FRAME_SIZE, Hint
from tests.fakes.fetching import TIMEOUT_S, Purse, World, make_world
from tests.fakes.origin import Offer, offer, plain_bundle
from tests.fakes.range_server import Act, RangeServer

PROOF = "Outrider-Device local-cam:c2ln"
PLANE = "/v1/payloads/"


@dataclass
class Access:
    url: str = ""

    def server(self) -> Server | None:
        return Server(self.url, "127.0.0.1", 0, "") if self.url else None

    def proof(self, _: Digest) -> str:
        return PROOF


@dataclass
class Air:
    """One world, a mirror of its payloads, and how the device may fetch."""

    world: World
    mirror: RangeServer
    order: tuple[Transport, ...] = TRANSPORTS
    access: Access = field(default_factory=Access)
    source: HttpSource | None = None

    def bringing(self) -> Bringing:
        self.source = HttpSource(self.access, lambda: 0, dev=True, timeout_s=5)
        ways = Ways(self.order, rest_s=TIMEOUT_S)
        rng = random.Random(3)
        return Bringing(
            ways, self.source, self.access, rng, dev=True, timeout_s=TIMEOUT_S, network=str
        )

    def begin(self, order: tuple[Transport, ...], *urls: str) -> None:
        """Start the device anew, with a hint that names these addresses for the model."""
        self.order = order
        entry = replace(self.world.model.entry, urls=urls or (f"{self.mirror.url}/p/",))
        hint = self.world.offer.hint("model.onnx")
        self.world.broker.retained[hint] = codec.encode(Hint((entry,)))
        self.restart()
        self.world.ensure()

    def restart(self) -> None:
        self.world.device.stop()
        self.world.device.bringing = self.bringing
        self.world.device.start()

    def until(self, condition: Callable[[], object], step: float = 0.01, turns: int = 3000) -> None:
        """Turns that let the other thread come to its work."""
        for _ in range(turns):
            if condition():
                return
            self.world.device.turn(step)
            self.listen()
        raise AssertionError(f"never; {self.world.device.fetcher.status()}, {self.counters}")

    def listen(self) -> None:
        session = self.source._session if self.source is not None else None
        if session is not None:
            with session._changed:
                session._changed.wait_for(lambda: session._ready, 0.05)

    def finish(self) -> None:
        self.until(self.world.whole)

    def silence_the_broker(self) -> None:
        for topic in self.world.topics_of_frames:
            self.world.broker.retained.pop(topic, None)

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.world.device.fetcher.counters)

    @property
    def here(self) -> int:
        progress = self.world.device.fetcher.status().progress
        return progress.frames if progress is not None and progress.of > 1 else 0

    @property
    def frames_by_link(self) -> int:
        asked = self.world.device.link.asked.items()
        payload = self.world.model.entry.payload
        return sum(times for topic, times in asked if f"/frames/toy/{payload}" in topic)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last frame of each request for frames."""
        found = []
        for asked in self.mirror.asked:
            if asked.range:
                first, last = (int(n) for n in asked.range.removeprefix("bytes=").split("-"))
                found.append((first // FRAME_SIZE, last // FRAME_SIZE))
        return found


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offer:
    origin = tmp_path_factory.mktemp("origin")
    return offer(plain_bundle(origin / "bundles"), origin / "payloads")


def files(offered: Offer, folder: str = "/p/") -> dict[str, bytes]:
    """A mirror is a copy of the folder of payloads."""
    found = {}
    for encoded in offered.payloads.values():
        for path in (encoded.path, encoded.path.with_name(f"{encoded.path.name}.lists")):
            found[f"{folder}{path.name}"] = path.read_bytes()
    return found


@pytest.fixture
def air(offered: Offer, tmp_path: Path) -> Iterator[Air]:
    with RangeServer(files(offered)) as mirror:
        world = make_world(offered, tmp_path / "bundles")
        yield Air(world, mirror)
        world.device.stop()


HTTP_FIRST: tuple[Transport, ...] = ("http", "mqtt")


def test_a_payload_comes_over_http_in_one_request_beside_that_for_its_lists(air):
    air.begin(HTTP_FIRST)
    air.finish()
    payload = air.world.model.entry.payload
    assert [asked.path for asked in air.mirror.asked] == [f"/p/{payload}.lists", f"/p/{payload}"]
    assert air.mirror.connections == 1
    assert air.ranges == [(0, air.world.model.entry.frames - 1)]
    assert air.frames_by_link == 0
    assert air.world.device.fetcher.fetched["fetched over http"] >= air.world.model.entry.size
    assert all(asked.headers["accept-encoding"] == "identity" for asked in air.mirror.asked)
    assert air.counters == {}


def test_the_broker_comes_first_unless_it_is_said(air):
    air.begin(TRANSPORTS)
    air.finish()
    assert air.mirror.asked == []


def test_frames_that_came_over_mqtt_are_not_fetched_over_http(air):
    frames = air.world.topics_of_frames
    for topic in frames[3:]:
        del air.world.broker.retained[topic]
    air.begin(TRANSPORTS)
    air.until(lambda: air.here == 3, step=0)
    air.until(air.world.whole, step=5)
    assert air.ranges == [(3, len(frames) - 1)]
    assert f"/p/{air.world.model.entry.payload}.lists" not in [a.path for a in air.mirror.asked]
    assert air.counters == {"OUT-F101": 1}


def test_frames_that_came_over_http_are_not_fetched_over_mqtt(air):
    frames = air.world.model.entry.frames
    air.mirror.acts = [Act(), Act(body=4 * FRAME_SIZE)]
    air.mirror.always = Act(status=503, body=0)
    air.begin(HTTP_FIRST)
    air.finish()
    assert air.frames_by_link == frames - 4


@pytest.mark.parametrize("cut", [0, 1, FRAME_SIZE - 1, FRAME_SIZE, 3 * FRAME_SIZE + 5])
def test_a_cut_costs_at_most_one_frame(air, cut):
    air.mirror.acts = [Act(), Act(body=cut)]
    air.silence_the_broker()
    air.begin(HTTP_FIRST)
    air.until(air.world.whole, step=5)
    whole = air.world.model.entry.frames - 1
    assert air.ranges == [(0, whole), (cut // FRAME_SIZE, whole)]


CUT = 2 * FRAME_SIZE + 1000


def test_what_came_of_the_frame_that_was_cut_is_not_asked_for_again(air):
    air.mirror.acts = [Act(), Act(body=CUT), Act(body=100), Act(status=503, body=0)]
    air.silence_the_broker()
    air.begin(HTTP_FIRST)
    air.until(air.world.whole, step=5)
    starts = [int(asked.range[6:].partition("-")[0]) for asked in air.mirror.asked if asked.range]
    assert starts == [0, CUT, CUT + 100, CUT + 100]
    assert "OUT-F102" not in air.counters


def test_what_one_address_began_is_not_gone_on_with_by_another(air, offered):
    with RangeServer(files(offered)) as other:
        air.mirror.acts = [Act(), Act(body=CUT)]
        air.mirror.always = Act(status=503, body=0)
        air.silence_the_broker()
        air.begin(HTTP_FIRST, f"{air.mirror.url}/p/", f"{other.url}/p/")
        air.until(air.world.whole, step=5)
        assert [asked.range.partition("-")[0] for asked in other.asked] == [
            f"bytes={2 * FRAME_SIZE}"
        ]


def test_a_frame_whose_beginning_was_wrong_is_fetched_anew(air):
    air.mirror.acts = [Act(), Act(body=100, spoils=True)]
    air.silence_the_broker()
    air.begin(HTTP_FIRST)
    air.until(air.world.whole, step=5)
    assert air.counters["OUT-F102"] == 1


def test_after_a_cut_the_way_that_brought_something_is_gone_on_with_though_others_are_there(air):
    air.mirror.acts = [Act(), Act(body=2 * FRAME_SIZE), Act(body=3 * FRAME_SIZE)]
    air.begin(HTTP_FIRST)
    air.finish()
    assert [first for first, _ in air.ranges] == [0, 2, 5]
    assert air.frames_by_link == 0


def test_a_restart_goes_on_with_what_lies_there(air):
    air.mirror.acts = [Act(), Act(body=2 * FRAME_SIZE, stalls=True)]
    air.silence_the_broker()
    air.begin(HTTP_FIRST)
    air.until(lambda: air.here == 2)
    air.restart()
    air.world.ensure()
    air.finish()
    assert [asked.path.endswith(".lists") for asked in air.mirror.asked] == [True, False, False]
    assert air.ranges[-1][0] == 2


def test_without_a_broker_a_payload_that_was_begun_is_finished_over_http_after_a_restart(air):
    for topic in air.world.topics_of_frames[2:]:
        del air.world.broker.retained[topic]
    air.begin(TRANSPORTS)
    air.until(lambda: air.here == 2, step=0)
    air.world.broker.stop()
    air.restart()
    air.world.ensure()
    model = air.world.device.partial(air.world.offer.bundle) / "model.onnx"
    air.until(model.exists, step=5)
    assert air.ranges == [(2, air.world.model.entry.frames - 1)]


def test_a_mirror_that_ignores_ranges_is_not_used_in_the_middle(air):
    for topic in air.world.topics_of_frames[2:]:
        del air.world.broker.retained[topic]
    air.mirror.always = Act(whole=True)
    air.begin(TRANSPORTS)
    air.until(lambda: air.counters.get("OUT-F108"), step=5)
    assert air.here == 2


def test_a_mirror_that_ignores_ranges_may_bring_the_whole(air):
    air.mirror.always = Act(whole=True)
    air.silence_the_broker()
    air.begin(HTTP_FIRST)
    air.finish()


WRONG = {
    "other bytes": (Act(spoils=True), "OUT-F111"),
    "a redirect": (Act(status=302, headers=("Location: /p/", "Content-Length: 0"), body=0), "F108"),
    "packed": (Act(headers=("Content-Encoding: gzip",)), "OUT-F108"),
    "not there": (Act(status=404, body=0), "OUT-F108"),
    "another length": (Act(headers=("Content-Length: 7",), body=7), "OUT-F108"),
    "busy": (Act(status=503, headers=("Retry-After: 40",), body=0), "OUT-F107"),
    "no HTTP": (Act(headers=("x" * 70_000,)), "OUT-F107"),
    "nothing": (Act(body=0), "OUT-F107"),
}


@pytest.mark.parametrize("act, code", WRONG.values(), ids=WRONG)
def test_what_a_mirror_does_wrong_only_costs_the_mirror(air, act, code):
    air.mirror.always = act
    air.begin(HTTP_FIRST)
    air.finish()
    assert sum(times for each, times in air.counters.items() if code in each) == 1
    assert len(air.mirror.asked) <= 2, "frames are asked for before the lists are judged"


def test_a_mirror_that_trickles_is_left_for_the_broker(air):
    air.mirror.always = Act(trickles=True)
    air.begin(HTTP_FIRST)
    air.until(lambda: air.mirror.asked)
    air.until(air.world.whole, step=5)
    assert air.counters["OUT-F107"] == 1
    assert len(air.mirror.asked) == 1


def test_wrong_frames_are_refused_and_come_from_elsewhere(air):
    air.mirror.acts = [Act()]
    air.mirror.always = Act(spoils=True)
    air.begin(HTTP_FIRST)
    air.finish()
    assert air.counters == {"OUT-F102": 1}


def test_the_proof_is_sent_to_the_control_plane_and_to_nobody_else(air, offered):
    with RangeServer(files(offered, PLANE)) as plane:
        air.access.url = plane.url
        air.mirror.always = Act(status=503, body=0)
        air.silence_the_broker()
        air.begin(HTTP_FIRST, f"{air.mirror.url}/p/", "/")
        air.finish()
        assert plane.asked
        assert air.mirror.asked
        assert {asked.headers.get("authorization") for asked in plane.asked} == {PROOF}
        assert {asked.headers.get("authorization") for asked in air.mirror.asked} == {None}


def test_damage_that_stays_is_never_a_tight_loop_over_http(air):
    air.mirror.always = Act(status=404, body=0)
    air.silence_the_broker()
    air.begin(HTTP_FIRST)
    air.until(lambda: air.world.device.now > 1000 + 3600, step=20)
    assert 3 <= len(air.mirror.asked) <= 20


@pytest.fixture
def purse(air: Air) -> Purse:
    found = Purse(10**9)
    air.world.device.permits = found
    return found


def test_what_http_brings_counts(air, purse):
    air.begin(HTTP_FIRST)
    air.finish()
    entry = air.world.model.entry
    assert 10**9 - purse.left == entry.size + 32 * entry.frames + 2 * 256


def test_hours_that_close_while_a_request_runs_end_it(air, purse):
    air.mirror.acts = [Act(), Act(body=2 * FRAME_SIZE, stalls=True)]
    air.begin(HTTP_FIRST)
    air.until(lambda: air.here == 2)
    purse.closed = True
    air.world.device.turn(1)
    assert air.source is not None
    assert not air.source.busy
    asked = len(air.mirror.asked)
    for _ in range(50):
        air.world.device.turn(60)
    assert len(air.mirror.asked) == asked
    purse.closed = False
    air.finish()
    assert air.ranges[-1][0] == 2

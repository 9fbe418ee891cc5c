"""A fleet of one device under traffic, whose control plane can be made to lie.

The control plane runs in this process: what leaves by its link, with its certificate, passes
through `Site.lies`. Broker, agents and runners are real processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from control_plane.demo.fleet import wait_until
from protocol.identifiers import Digest
from tests.fakes.bundles import BundleOnDisk
from tests.fakes.whole_fleet import LIMIT_S, MODEL, FleetHere, Operator, application, ready

Change = Callable[[bytes], bytes]


class Site(Operator):
    """One device on v1 under traffic, and a control plane that can be made to lie."""

    def __init__(self, fleet: FleetHere, device: str = "h-1") -> None:
        super().__init__(fleet)
        assert fleet.control is not None
        self.control = fleet.control
        self.topics = self.control.topics
        self.device = fleet.devices[device]
        self.stable = ""
        """What the device runs when it is not pinned."""
        self.versions = (f"w{number}" for number in range(2, 1000))
        self.lies: dict[str, Change] = {}
        """What becomes of messages whose topic begins so, below the fleet's prefix."""
        self._honest = self.control.link.publish
        self.control.link.publish = self._publish  # type: ignore[method-assign]

    def _publish(self, topic: str, data: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        for start, change in self.lies.items():
            if topic.startswith(self.topics.prefix + start):
                data = change(data)
        return self._honest(topic, data, qos=qos, retain=retain)

    def say(self, topic: str, data: bytes, *, retain: bool = True) -> None:
        """Publish once, whatever should be there."""
        self._honest(topic, data, qos=1, retain=retain)

    def retained(self, topic: str) -> bytes:
        """What the broker keeps there. The control plane reads through the same ears, and one of
        two that read at the same moment may hear nothing."""
        found: dict[str, bytes] = {}

        def heard() -> bool:
            found.update(self.control.retained.read([topic]))
            return topic in found

        wait_until(heard, f"{topic} is there", LIMIT_S)
        return found[topic]

    def tell_the_truth(self) -> None:
        """What the control plane does by itself once a minute: compare, and publish anew."""
        self.lies.clear()
        self.control.publisher.connected()
        self.control.loop.wake()

    def roll_out(self, version: str, **spec: Any) -> str:
        """To the device that every test is about."""
        self.stable = version
        return super().roll_out(version, to=f"id = {self.device.name}", **spec)

    def until_ended(self, rollout: str) -> None:
        def ended() -> bool:
            status: str = self.fleet.client.get(f"rollouts/{rollout}")["status"]
            return status == "completed"

        self.until(self.device, ended, f"done with {rollout}")

    def ship_next(self, **options: Any) -> str:
        return self.ship_good(**options).version

    def ship_good(self, **options: Any) -> BundleOnDisk:
        """Another version that answers as the one before."""
        version = next(self.versions)
        return self.ship(version, scale=1 + 0.0001 * int(version[1:]), **options)

    def ship_bad(self, **options: Any) -> tuple[str, Digest]:
        version = next(self.versions)
        return version, self.ship(version, **options).digest

    def notes(self) -> Mapping[Digest, Any]:
        """What the device holds against versions, by digest."""
        notes = self.reported(self.device)["models"][MODEL].get("notes", {})
        return {digest: note for digest, note in notes.items() if note.get("reason")}

    def until_heads_for(self, version: str) -> None:
        """It runs what it should, whatever it says of versions that it gave up."""
        name = f"{MODEL}/{version}"

        def there() -> bool:
            model = self.model(self.device)
            return bool(model["runs"] == model["heads_for"] == name) and model["state"] in (
                "healthy",
                "failed",
            )

        self.until(self.device, there, f"at {version}")

    def until_refused(self, what: str, *words: str) -> None:
        def said() -> bool:
            told = self.refused(self.device).get(what, "")
            return all(word in told for word in words)

        self.until(self.device, said, f"refusing {what}: {words}")

    def counters(self) -> Mapping[str, int]:
        counters: Mapping[str, int] = self.reported(self.device).get("counters", {})
        return counters

    def until_counted(self, code: str, before: int) -> None:
        self.until(
            self.device,
            lambda: self.counters().get(code, 0) > before and bool(self.model(self.device)["why"]),
            f"counting {code}",
        )

    def until_content(self) -> None:
        """Nothing is held against anybody any more."""
        self.until(self.device, lambda: self.refused(self.device) == {}, "refusing nothing")

    def begin(self) -> None:
        """The device runs v1 whenever it is told nothing else, and answers from now on."""
        self.ship("v1")
        rollout = self.roll_out("v1")
        self.fleet.start_agent(self.device)
        self.until(self.device, lambda: ready(self.device), "ready")
        application(self.device)
        self.until_runs(self.device, "v1")
        self.until_ended(rollout)

    @contextmanager
    def besieged(self) -> Iterator[Site]:
        """Before and after, v1 or a later version of it runs and nothing is refused; in between
        every request is answered."""
        process, answering = self.device.process, self.device.application
        assert process is not None
        assert answering is not None
        self.until_content()
        yield self
        self.tell_the_truth()
        assert process.poll() is None, "the agent has ended"
        self.until_content()
        self.until_more(answering)
        assert answering.tally.failures == []


def flipped(data: bytes) -> bytes:
    """One bit of it is another, in the middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def other_signature(data: bytes) -> bytes:
    document = json.loads(data)
    for signature in document["signatures"]:
        # A digit of hexadecimal and of base 64.
        first = "b" if signature["sig"][0] == "a" else "a"
        signature["sig"] = first + signature["sig"][1:]
    return json.dumps(document).encode()

"""The only place where the control plane's shells are built and tied together."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from control_plane import deltas, encode
from control_plane.access import read_token
from control_plane.adoption import read_back
from control_plane.audit_check import INTERVAL_S, AuditCheck
from control_plane.blobs import Blobs
from control_plane.fleet.authority import Authority
from control_plane.fleet.enrolment import Enrolment
from control_plane.fleet.revocation import alarm, said
from control_plane.ingest import Ingest
from control_plane.judging import Judge
from control_plane.link import Delivery, Link
from control_plane.loops import Loop
from control_plane.mosquitto import control_identity
from control_plane.notifying import Notifier
from control_plane.offers import Offers
from control_plane.publisher import Publisher
from control_plane.receiving import Receiving
from control_plane.retained import Retained
from control_plane.roles import LOCAL
from control_plane.settings import Settings
from control_plane.signing import expiry
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.ticker import Ticker
from control_plane.upkeep import Upkeep, reload_by
from control_plane.watched_fleet import Profiles
from control_plane.watching import Watch
from control_plane.web.app import create_app
from control_plane.web.attempts import Attempts
from control_plane.web.bundles import incoming
from control_plane.web.parts import PartHealth, Parts
from control_plane.web.work import Work
from control_plane.webhooks import Secrets, Sender
from protocol.enrolment import Broker
from protocol.errors import Failed, TrustError, Unavailable
from protocol.identifiers import DeviceId, digest_of
from protocol.link import Address, Retry
from protocol.reported import ReportedState
from protocol.telemetry import Want
from protocol.topics import Topics

log = logging.getLogger(__name__)

UNSETTLED_S: Final = 0.2
"""Between ticks while the broker does not yet retain all that it should."""
UPKEEP_S: Final = 60.0
"""Between looks at certificates and revocation lists; a revocation is looked at immediately."""
DEVICES_PER_S: Final = 50.0
"""Whose records are taken comfortably after a start."""
FORGET_MS: Final = 30 * 24 * 3_600_000
"""Events and used tokens are kept for 30 days."""
SAFE: Final = "safe = have: no backup command yet"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ControlPlane:
    """All parts of one control plane. `start` once; `stop` ends what `start` began."""

    def __init__(self, of: Settings, reload_broker: Callable[[], None] | None = None) -> None:
        """Opens the store, the keys and the repository. Raises what these raise.

        `reload_broker` has the broker read its files again; without, the command in `of` does.
        """
        self.settings = of
        self.topics = Topics(of.fleet)
        self.store = Store(of.store)
        self.blobs = Blobs(of.blobs)
        self.repository = Repository.open(of.tuf, of.keys, of.fleet)
        self.authority = Authority(of.ca, of.fleet)
        self.work = Work(self.store, now_ms)
        self.deltas = deltas.Deltas(self.store, self.blobs, of, now_ms)
        self.link = Link(
            Address(of.broker_host, of.broker_port, self.authority.control),
            control_identity(of.fleet),
            on_message=self._message,
            on_state=self._link_changed,
            on_delivery=self._delivered,
            # Development brokers live on this machine and come and go.
            retry=Retry(first_s=0.2, most_s=2.0) if of.dev else Retry(),
        )
        self.retained = Retained(self.link, self.topics)
        self.publisher = Publisher(self.link, self.topics, self.retained, urls=of.payload_urls)
        self.ingest = Ingest(
            self.topics,
            self.store.records,
            accepts=self._knows,
            on_state=self._state,
            on_contact=self.store.devices.contact,
            on_want=self._want,
            now_ms=now_ms,
            spread_s=self._spread_s(),
        )
        self.receiving = Receiving(self.ingest, self.link.publish)
        self.profiles = Profiles(self.blobs.read)
        self.ticker = Ticker(
            of.fleet,
            self.store,
            self.repository,
            self.publisher,
            Offers(
                self.topics,
                self.blobs,
                self.store.payloads,
                of.home,
                of.payloads,
                encode=encode.encode,
                reopen=encode.reopen,
                abilities=lambda: deltas.abilities_of(self.store),
            ),
            Judge(self.store, self.profiles),
            listening_since_ms=lambda: self._listening_since_ms,
        )
        self.loop = Loop("ticker", self._tick, of.intervals.tick)
        self.api_alive: Callable[[], bool] = lambda: True
        self.reload_api: Callable[[], None] = lambda: None
        self.upkeep = Upkeep(
            self.authority,
            self.store.certificates,
            now_ms,
            hosts=of.hosts,
            broker_files=Path(of.broker_files) if of.broker_files else None,
            reload_broker=reload_broker or (lambda: reload_by(of.broker_reload)),
            reload_api=self._renewed,
        )
        self.upkeep.issue()
        self.upkeep_loop = Loop("upkeep", self.upkeep.step, UPKEEP_S)
        self.audit_check = AuditCheck(self.store.audit, self.repository.approvals)
        self.audit_loop = Loop("audit check", self.audit_check.step, INTERVAL_S)
        self.watch = Watch(
            self.store,
            self.profiles,
            now_ms,
            slot_s=of.intervals.drift_slot,
            day_s=of.intervals.drift_day,
        )
        self.watch_loop = Loop("drift", self.watch.step, of.intervals.drift)
        self.notifier = Notifier(
            of.fleet,
            self.store,
            Sender(Secrets(of.webhooks), private=of.webhook_private),
            now_ms,
            debounce_s=of.intervals.debounce,
            command=of.alarm_command,
        )
        self.notices_loop = Loop("notices", self.notifier.step, of.intervals.notices)
        self.encoding = deltas.InBackground(
            self.deltas, self.store, self.work.start, self.loop.wake
        )
        self.encoding_loop = Loop("encoding", self.encoding.step, deltas.INTERVAL_S)
        self.attempts = Attempts()
        self._admit_local()
        self._listening_since_ms: int | None = None
        self._link_problem = "not connected yet"
        self._adopted = False
        self._compared_s = time.monotonic()
        self.app = create_app(self._parts())

    def _admit_local(self) -> None:
        """Whoever can read the file with the local token is local; without the file nobody is."""
        if self.settings.operator_token.exists():
            token = read_token(self.settings)
            self.store.people.keep_local(digest_of(token.encode()), now_ms())
        else:
            self.store.people.revoke(LOCAL, now_ms())

    def _spread_s(self) -> float:
        """A small fleet has no reason to wait as long as a large one."""
        alone = 1 + self.store.devices.count() / DEVICES_PER_S
        return min(self.settings.intervals.hello_spread, alone)

    def start(self) -> None:
        """Clear up after whatever ended the last process, then begin to work."""
        shutil.rmtree(incoming(self.settings.home), ignore_errors=True)
        self.store.idempotency.release_interrupted()
        left = self.work.recover()
        if left:
            log.warning("%d operations were interrupted and are marked as failed", left)
        self.store.tokens.forget(now_ms() - FORGET_MS)
        self.store.events.forget(now_ms() - FORGET_MS)
        # Until the ticker says since when devices are heard, no time without contact counts.
        self.store.rollouts.members.listen(None)
        for hello in self.ingest.hellos():
            self.publisher.keep(hello.topic, hello.data)
        self.link.subscribe(self.ingest.filters(), qos=1)
        self.receiving.start()
        self.link.start()
        self.loop.start()
        for loop in self._beside():
            loop.start()

    def stop(self) -> None:
        # Nothing begins any more, then what goes on ends.
        self.encoding_loop.stop()
        self.deltas.stop()
        self.work.stop()
        for loop in self._beside():
            loop.stop()
        self.loop.stop()
        self.link.stop()
        self.receiving.stop()
        self.store.close()

    def _beside(self) -> tuple[Loop, ...]:
        """What goes on beside the ticker."""
        return (
            self.upkeep_loop,
            self.audit_loop,
            self.watch_loop,
            self.notices_loop,
            self.encoding_loop,
        )

    def health(self) -> dict[str, PartHealth]:
        """By part. Everything is judged without waiting for anything."""
        hello = json.loads(self.ingest.hellos([0])[0].data)["g"]
        refused = sum(self.ingest.refused.values())
        return {
            "api": PartHealth(self.api_alive(), self._attempts()),
            "broker": PartHealth(self.link.connected, self._link_problem),
            "ticker": PartHealth(
                self.loop.alive and self._adopted and self.loop.problem is None,
                self.loop.problem or ("" if self._adopted else "has not begun"),
            ),
            "ingest": PartHealth(
                self.receiving.alive and self.receiving.problem is None,
                self.receiving.problem or f"hello {hello}, refused {refused}; {SAFE}",
            ),
            "identity": self._identity(),
            "trust": self._trust(),
            "audit": self._audit(),
            "drift": _working(self.watch_loop, self.watch.detail),
            "notices": _working(self.notices_loop, self.notifier.detail),
        }

    def _identity(self) -> PartHealth:
        now, current = now_ms(), self.upkeep.current
        if worry := alarm(current, now):
            return PartHealth(False, str(Unavailable("OUT-A220", worry)))
        if self.upkeep_loop.problem is not None:
            return PartHealth(False, self.upkeep_loop.problem)
        return PartHealth(self.upkeep_loop.alive, said(current, now) if current else "")

    def _trust(self) -> PartHealth:
        """What expires soon is worth knowing; what has expired keeps devices from anything new."""
        found = self.repository.expiring(now_ms())
        lapsed = any(each.left <= timedelta(0) for each in found)
        return PartHealth(not lapsed, str(Failed("OUT-T125", expiry.said(found))) if found else "")

    def _audit(self) -> PartHealth:
        found = self.audit_check.found
        if found is not None and found.problems:
            return PartHealth(False, str(TrustError("OUT-S170", found.problems[0])))
        return PartHealth(True, f"{found.records:,} records" if found is not None else "")

    def _renewed(self) -> None:
        self.reload_api()

    # --- the ticker's thread ----------------------------------------------------------------------

    def _tick(self) -> float | None:
        if not self._adopted:
            self._adopt()
        self._compare()
        self.ticker.tick(now_ms())
        if self.publisher.settled:
            return None
        if self.publisher.work(time.monotonic()):
            # What waits for the broker to have everything goes on at once.
            return 0.0
        return UNSETTLED_S

    def _adopt(self) -> None:
        """Before the first signature: the fleet may have seen more than this store has."""
        if not self.link.connected:
            raise Unavailable("OUT-N102", self._link_problem)
        found = read_back(
            self.retained,
            self.topics,
            roots=self.repository.roots(),
            models=self.store.bundles.models(),
            devices=[device.id for device in self.store.devices.all()],
        )
        adopted = self.ticker.adopt(found, now_ms())
        if adopted.changed:
            log.warning("went on from what the broker retains: %s", adopted.after)
        self._adopted = True

    def _compare(self) -> None:
        """Now and then, what the broker retains is read back even if nothing seems to be wrong."""
        now_s = time.monotonic()
        if now_s - self._compared_s >= self.settings.intervals.reseed and self.link.connected:
            self._compared_s = now_s
            self.publisher.connected()

    # --- the link's thread, and ingest's ----------------------------------------------------------

    def _message(self, topic: str, data: bytes) -> None:
        self.retained.on_message(topic, data)

    def _delivered(self, delivery: Delivery) -> None:
        self.receiving.take(delivery)

    def _link_changed(self, connected: bool, why: str) -> None:
        if connected:
            self._link_problem = ""
            self._listening_since_ms = now_ms()
            self.publisher.connected()
        else:
            if self._listening_since_ms is not None:
                log.warning("broker: %s", why)
            self._link_problem = why
            self._listening_since_ms = None
        self.loop.wake()

    def _knows(self, device: DeviceId) -> bool:
        return self.store.devices.is_member(device)

    def _state(self, device: DeviceId, state: ReportedState) -> None:
        self.store.devices.put_state(device, state, now_ms())

    def _want(self, _device: DeviceId, want: Want) -> None:
        self.publisher.want(want)
        self.loop.wake()

    def _parts(self) -> Parts:
        of = self.settings
        return Parts(
            settings=of,
            store=self.store,
            blobs=self.blobs,
            repository=self.repository,
            enrolment=Enrolment(
                of.fleet,
                self.authority,
                self.store,
                f"https://{_bracketed(of.api_host)}:{of.api_port}",
                Broker(of.broker_host, of.broker_port),
                self._newest_root,
                dev=of.dev,
            ),
            work=self.work,
            deltas=self.deltas,
            now_ms=now_ms,
            wake=self.loop.wake,
            revoked=self.upkeep_loop.wake,
            health=self.health,
            origin_bytes=lambda: self.publisher.origin_bytes,
            attempts=self.attempts,
        )

    def _attempts(self) -> str:
        wrong, early = self.attempts.failures, self.attempts.refusals
        said = f"{wrong:,} failed attempts since the start" if wrong else ""
        return said + (f", {early:,} came too early" if early else "")

    def _newest_root(self) -> bytes:
        roots = self.repository.roots()
        return roots[max(roots)]


def _working(loop: Loop, detail: str) -> PartHealth:
    return PartHealth(loop.alive and loop.problem is None, loop.problem or detail)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

"""Brings a bundle's files here by subscribing to what is retained.

index -> manifest -> per member: an equal file of another bundle, else hint -> payload -> file.
Frames of a payload may come over HTTP instead, from an address that the hint names.
Level-triggered: after every event the topics that should be subscribed are worked out anew and
compared with those that are; a message that never comes, comes twice or is wrong only delays.
Hashing and decoding happen on a worker thread, all decisions on the caller's. Retries always
wait first, longer each time, and jittered; only the signed digest ever accepts a file.

Long because every event has its method, and they share one job.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path
from typing import Final, Protocol

from edge_agent import refusals
from edge_agent.bringing import Bringing
from edge_agent.budget import Permits, Unlimited
from edge_agent.contents import (
    INDEX,
    MANIFEST,
    keep,
    keep_hint,
    kept_hint,
    lying_there,
    read_hint,
    read_index,
    read_manifest,
)
from edge_agent.download import Download, Gone
from edge_agent.job import Job
from edge_agent.members import DECODER_ENDED, become, resume, survey
from edge_agent.partial import Partial
from edge_agent.patience import Patience
from edge_agent.siblings import link_equals
from edge_agent.subscriptions import Subscribing, Subscriptions
from edge_agent.transfer import Held
from edge_agent.ways import Ways
from edge_agent.worker import Worker
from protocol import codec
from protocol.approval import Approvals
from protocol.bundle import Facts, Member, VariantReference
from protocol.errors import OutriderError, PeerError, TrustError, Unavailable
from protocol.identifiers import DeviceId, Digest, ModelName, short
from protocol.payload import PLAIN_FEATURES, HintEntry
from protocol.reported import Progress
from protocol.telemetry import Want
from protocol.topics import Topics

MOST_DEATHS: Final = 3
"""Times that decoding is cut short before the payload is thought to be the reason."""
BASE_MISSING: Final = "OUT-F104"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class LinkLike(Subscribing, Protocol):
    @property
    def connected(self) -> bool: ...
    def publish(self, topic: str, data: bytes, *, qos: int = 1, retain: bool = False) -> bool: ...


@dataclass(frozen=True, slots=True)
class FetchStatus:
    model: ModelName | None = None
    digest: Digest | None = None
    progress: Progress | None = None
    """Frames of the file that is coming now."""
    problem: tuple[str, str] | None = None
    """Problem code and detail of what holds it up; None while it moves."""
    done: bool = False


class Fetcher:
    """Called from one thread only. `on_wake` is called on another, when `tick` has work."""

    def __init__(
        self,
        link: LinkLike,
        topics: Topics,
        device: DeviceId,
        bundles: Path,
        facts: Facts,
        approvals: Callable[[], Approvals],
        rng: random.Random,
        *,
        frame_timeout_s: float = 30.0,
        want_interval_s: float = 600.0,
        on_wake: Callable[[], None] = lambda: None,
        permits: Permits | None = None,
        known: int = PLAIN_FEATURES,
        bringing: Bringing | None = None,
    ) -> None:
        """`permits` says whether so many more bytes may travel now; without it, all may. `known`
        are the feature bits that can be decoded here. Without `bringing` all comes over the
        link."""
        self._link = link
        self._topics = topics
        self._device = device
        self._bundles = bundles
        self._facts = facts
        self._approvals = approvals
        self._rng = rng
        self._mine = tuple(topics.prefix + kind for kind in ("manifests/", "payloads/", "frames/"))
        self._permits = permits or Unlimited()
        self._known = known
        self._bringing = bringing or Bringing(Ways(("mqtt",)), None, None, rng)
        self.fetched: Counter[str] = Counter()
        """Bytes of what arrived, since the agent started."""
        self._closing = False
        self._held_back: Held | None = None
        """Why the payload of the first missing file waits, as of the last look."""
        self._frame_timeout_s = frame_timeout_s
        self._offline_since: float | None = None
        self._worker = Worker(on_wake)
        self._patience = Patience(
            rng, frame_timeout_s=frame_timeout_s, want_interval_s=want_interval_s
        )
        self._job: Job | None = None
        self._subscriptions = Subscriptions(link)
        self._held: set[Digest] = set()
        """Bundles that somebody else is bringing."""

    # --- what the supervisor calls ------------------------------------------------------------

    def ensure(self, model: ModelName, digest: Digest) -> None:
        """This bundle is wanted, into `<bundles>/.<digest>`; any other one no longer is."""
        if digest in self._held:
            return
        job = self._job
        same = job is not None and (job.model, job.digest) == (model, digest)
        if job is not None and same and (not job.done or job.directory.exists()):
            return
        self.forget()
        self._job = Job(model, digest, self._bundles / f".{digest}")

    def hold(self, digest: Digest) -> Callable[[], None]:
        """Leave a bundle to somebody else until `release`; what is returned waits for our work."""
        self._held.add(digest)
        if self._job is not None and self._job.digest == digest:
            self.forget()
        return self._worker.settled()

    def release(self, digest: Digest) -> None:
        """The bundle may be fetched again; what lies there by now is found."""
        self._held.discard(digest)

    def forget(self) -> None:
        """Nothing is wanted. What lies on disk stays, for next time."""
        self._job = self._held_back = None
        self._bringing.rest(self._permits)
        self._worker.forget()
        self._patience.start()
        self._sync(all_of_them=True)

    def on_message(self, topic: str, data: bytes) -> bool:
        """Whether the topic is one of ours; then the message is dealt with."""
        if not topic.startswith(self._mine):
            return False
        job = self._job
        awaited = self._subscriptions.take(topic)
        if job is None or awaited is None:
            return True
        with _Reporting(self):
            if topic == job.hint_topic(self._topics):
                self._take_hint(job, data)
            elif awaited and not self._worker.busy:
                self._take(job, topic, data)
        self._sync()
        return True

    def tick(self, now: float) -> None:
        """Look after what only time brings. `now` in monotonic seconds."""
        self._patience.now = now
        if self._link.connected:
            self._offline_since = None
        elif self._offline_since is None:
            self._offline_since = now
        with _Reporting(self):
            self._finish_work()
            if (job := self._job) is not None and not job.done and not self._patience.paused:
                if not job.started:
                    self._start(job)
                self._ask_permission(job)
                self._bring(job)
                http = self._bringing.over_http(job.download)
                idle = self._worker.busy or self._held_back is not None or http
                if self._patience.silent(self._link.connected and not idle):
                    self._silence(job)
            else:
                self._bringing.rest(self._permits)
        self._sync(all_of_them=True)

    def status(self) -> FetchStatus:
        job = self._job
        if job is None:
            return FetchStatus()
        progress = job.download.progress if job.download is not None else None
        return FetchStatus(job.model, job.digest, progress, self._problem(job), job.done)

    @property
    def counters(self) -> Mapping[str, int]:
        """Refused messages and hold-ups by problem code, since the agent started."""
        return self._patience.counters

    def close(self) -> None:
        """Stop, after work that has begun; decoding goes on another time."""
        self._closing = True
        self.forget()
        self._worker.close()

    # --- index and manifest -------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        approved = self._approvals().get(job.digest)
        if approved is None or approved.model != job.model:
            raise TrustError("OUT-T104", f"{job.model} {short(job.digest)}")
        if approved.revoked:
            raise TrustError("OUT-T105", f"{job.model}/{approved.version}")
        job.directory.mkdir(parents=True, exist_ok=True)
        job.bad |= refusals.refused(job.directory)
        job.started = True
        if data := lying_there(job.directory / INDEX, job.digest):
            self._take_index(job, data)

    def _take(self, job: Job, topic: str, data: bytes) -> None:
        """An answer that was waited for: a document of the bundle, or a part of a payload."""
        if job.index is None:
            self._take_index(job, data)
        elif not job.surveyed and job.variant is not None:
            self._take_manifest(job, job.variant, data)
        elif job.download is not None:
            self._take_frame(job, job.download, topic, data)

    def _take_index(self, job: Job, data: bytes) -> None:
        index, chosen = read_index(data, job.model, job.digest, self._facts)
        keep(job.directory / INDEX, data)
        job.index, job.variant = index, chosen
        self._patience.moved()
        if data := lying_there(job.directory / MANIFEST, chosen.digest):
            self._take_manifest(job, chosen, data)

    def _take_manifest(self, job: Job, chosen: VariantReference, data: bytes) -> None:
        members = read_manifest(data, chosen)
        keep(job.directory / MANIFEST, data)
        job.surveyed = True
        self._patience.moved()
        self._worker.begin(
            bind(survey, self._bundles, job.directory, members),
            bind(self._surveyed, job),
        )

    # --- members --------------------------------------------------------------------------------

    def _surveyed(self, job: Job, found: tuple[tuple[Member, ...], Mapping[Digest, Path]]) -> None:
        job.missing, job.bases = found
        self._next_member(job)

    def _next_member(self, job: Job) -> None:
        job.entries, job.hint, job.download = None, b"", None
        job.gone.clear()
        self._patience.moved()
        # Stage removes whatever is left of payloads that were no good.
        job.done = not job.missing

    def _take_hint(self, job: Job, data: bytes) -> None:
        if data == job.hint and job.entries is not None:
            return
        if not data:
            job.entries = None
            raise Unavailable("OUT-F101", f"{job.missing[0].path} of {job.model} is withdrawn")
        entries = read_hint(data, job.missing[0], self._known, job.bases)
        job.entries = tuple(filter(self._bringing.possible, entries))
        job.hint = data
        if any(entry.urls for entry in entries):
            keep_hint(job.directory, job.missing[0], data)
        job.gone.clear()
        self._patience.go_on()
        if job.download is None and not self._worker.busy:
            self._next_entry(job)

    def _next_entry(self, job: Job, fits: Callable[[HintEntry], bool] | None = None) -> None:
        """The next payload in the hint's order that may travel now, after the last one the first
        again. While none may, nothing is begun: a budget for a delta is not spent on a part of a
        full payload."""
        if not job.usable:
            job.download, job.entries, job.hint = None, None, b""
            raise Unavailable("OUT-F101", f"no payload for {job.missing[0].path} can be used")
        waits = {entry.payload: self._permit(job, entry) for entry in job.usable}
        entry, again = job.next_entry(fits or (lambda entry: waits[entry.payload] is None))
        job.download = None
        if entry is None:
            smallest = min(job.usable, key=lambda entry: entry.size)
            self._held_back = waits[smallest.payload]
            return
        if again:
            self._patience.pause()
        on_disk = Partial(job.directory, entry)
        job.download = download = Download(self._topics, job.model, entry, on_disk, self._rng)
        self._worker.begin(
            bind(resume, on_disk, job.directory, entry, job.bases),
            bind(self._resumed, job, download),
        )

    def _resumed(
        self, job: Job, download: Download, found: tuple[tuple[bytes, ...], bytearray] | None
    ) -> None:
        if found is not None:
            download.resume(*found)
            if download.complete:
                self._decode(job, download)

    def _take_frame(self, job: Job, download: Download, topic: str, data: bytes) -> None:
        try:
            new = download.receive(topic, data, self._patience.now)
        except Gone:
            job.gone.add(download.entry.payload)
            self._patience.count("OUT-F101", f"payload {short(download.entry.payload)} was cleared")
            self._next_entry(job)
            return
        except PeerError as error:
            self._patience.count(error.code, error.why)
            self._want(download)
            if download.tried_enough:
                self._next_entry(job)
            return
        if new:
            self._patience.moved()
        if download.complete:
            self._decode(job, download)

    def _decode(self, job: Job, download: Download) -> None:
        self._bringing.rest(self._permits)
        member, base = job.missing[0], download.entry.base
        self._worker.begin(
            bind(become, download.partial, job.directory, member, base, lambda: self._closing),
            bind(self._decoded, job, download),
        )

    def _decoded(self, job: Job, download: Download, error: OutriderError | None) -> None:
        entry = download.entry
        if error is not None and error.code == DECODER_ENDED:
            job.deaths[entry.payload] += 1
            if job.deaths[entry.payload] < MOST_DEATHS:
                self._job = job.afresh()
                raise error
        if error is not None:
            self._patience.count(error.code, error.why)
            job.bad.add(entry.payload)
            if error.code != BASE_MISSING:
                refusals.refuse(job.directory, entry.payload)
            download.partial.discard()
            self._next_entry(job)
            return
        self.fetched[f"fetched {'full' if entry.base is None else 'delta'} bytes"] += entry.size
        member, *others = job.missing
        job.missing = link_equals(job.directory, member, others)
        self._next_member(job)

    def _problem(self, job: Job) -> tuple[str, str] | None:
        if (held := self._held_back) is not None:
            return held.code, held.detail
        since = self._patience.now if self._offline_since is None else self._offline_since
        # Not at once: links come and go, and nobody should decide by that.
        away = self._patience.now - since >= self._frame_timeout_s
        if not job.done and away and not self._bringing.over_http(job.download):
            return "OUT-N102", "what is here is kept"
        return self._patience.problem

    # --- what may travel ----------------------------------------------------------------------

    def _ask_permission(self, job: Job) -> None:
        """Look again: budgets and hours come and go while nothing else happens."""
        before, self._held_back = self._held_back, None
        if job.download is not None:
            network = self._bringing.network(job.download)
            self._held_back = self._permits.held(job.download.missing_bytes, network)
            if before is not None and self._held_back is None:
                self._subscriptions.again()
                self._patience.moved()
        elif job.entries is not None and not self._worker.busy:
            self._next_entry(job)

    def _permit(self, job: Job, entry: HintEntry) -> Held | None:
        here = Partial(job.directory, entry).size
        return self._permits.held(max(entry.size - here, 0))

    # --- over HTTP ----------------------------------------------------------------------------

    def _bring(self, job: Job) -> None:
        """Take what came over HTTP, and have what is missing come on the way that is best now."""
        now, download = self._patience.now, job.download
        link_up = self._link_up(now)
        if self._worker.busy:
            return
        if download is None or self._held_back is not None:
            self._bringing.rest(self._permits)
            if not link_up and job.missing and job.entries is None and self._held_back is None:
                self._remember_hint(job)
            return
        brought = self._bringing.bring(download, self._permits, link_up, now)
        if brought.fresh_bytes:
            self._patience.moved()
            self.fetched["fetched over http"] += brought.fresh_bytes
        for code, detail in brought.problems:
            self._patience.count(code, detail)
        if download.complete:
            self._decode(job, download)
        elif brought.stuck:
            self._next_open(job, download)
        elif download.tried_enough:
            self._next_entry(job)

    def _next_open(self, job: Job, download: Download) -> None:
        """No way of this payload can be tried for long: another one that has a way, if any."""
        now = self._patience.now
        others = {
            entry.payload
            for entry in job.usable
            if entry != download.entry
            and self._bringing.open(entry, self._link_up(now), now)
            and self._permit(job, entry) is None
        }
        if others:
            self._next_entry(job, lambda entry: entry.payload in others)

    def _remember_hint(self, job: Job) -> None:
        """Without a link: what was offered when there was one."""
        if data := kept_hint(job.directory, job.missing[0]):
            self._take_hint(job, data)

    def _link_up(self, now: float) -> bool:
        """Links that were lost a moment ago still count."""
        return self._offline_since is None or now - self._offline_since < self._frame_timeout_s

    # --- what goes wrong ----------------------------------------------------------------------

    def _silence(self, job: Job) -> None:
        """Nothing useful came for a while: ask again, and look elsewhere."""
        download = job.download
        self._subscriptions.again()
        if download is None:
            what = "hint" if job.surveyed else "manifest" if job.index else "index"
            raise Unavailable("OUT-F101", f"no {what} of {job.model} {short(job.digest)} came")
        self._patience.count("OUT-F101", f"frames of {job.missing[0].path} do not come")
        download.slower()
        self._want(download)
        if not self._bringing.elsewhere(download, self._patience.now) and len(job.usable) > 1:
            self._next_entry(job)

    def _want(self, download: Download) -> None:
        """Have the control plane look after a payload, for everybody; not often."""
        if self._patience.may_want():
            want = codec.encode_up(Want(1, download.entry.payload, download.missing()))
            if self._link.publish(self._topics.up(self._device, "want"), want):
                self._patience.asked()

    def refuse(self, error: OutriderError | OSError) -> None:
        """Note what went wrong, and wait before anything is tried again."""
        if isinstance(error, OutriderError):
            self._patience.count(error.code, error.why)
        elif error.errno in _FULL:
            self._patience.count("OUT-D201", "what is here is kept")
        else:
            self._patience.count("OUT-D316", error.strerror or str(error))
        self._subscriptions.again()
        self._patience.pause()

    def _finish_work(self) -> None:
        try:
            self._worker.finish()
        except OSError:
            # For want of disk, usually: take the bundle up again from what lies there.
            if (job := self._job) is not None:
                self._job = job.afresh()
            raise

    def _sync(self, *, all_of_them: bool = False) -> None:
        """Subscribe what should be."""
        job = self._job
        busy = self._worker.busy or self._patience.paused or self._held_back is not None
        busy = busy or (job is not None and self._bringing.over_http(job.download))
        wanted = () if job is None or busy else job.wanted(self._topics, self._patience.now)
        hint = job.hint_topic(self._topics) if job is not None else None
        self._subscriptions.follow(wanted, (hint,), all_of_them=all_of_them)


class _Reporting:
    """What goes wrong inside is reported and paused for, never raised into the supervisor."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> bool:
        if isinstance(error, OutriderError | OSError):
            self._fetcher.refuse(error)
            return True
        return False

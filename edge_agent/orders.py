"""What this device has been told, verified: its document, the plans that concern it, the deny list.

Bytes come in from the link in any order, any number of times, from anybody. They stay in a small
waiting room until trusted metadata says what they must be; then they are verified, kept on disk
and put in force. What is in force never gets worse: a document that is refused leaves the last
verified one where it is, and the refusal is reported.

It decides which topics to ask for next (`wanted`), but never talks to the link itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from edge_agent import durable
from edge_agent.backoff import full_jitter
from edge_agent.clock import Clock
from edge_agent.trust import Trust
from protocol.codec import MAX_DENY_LIST, MAX_DEVICE_DOCUMENT, MAX_PLAN
from protocol.device import DeviceDocument
from protocol.errors import InvalidRequest, OutriderError, PeerError, TrustError, Unavailable
from protocol.identifiers import DeviceId, Digest, ModelName, digest_of
from protocol.plan import DenyList, Plan
from protocol.reported import Refused
from protocol.selector import matches
from protocol.topics import Topics, shard_of

log = logging.getLogger(__name__)

_AGAIN_S: Final = 5.0
"""First upper bound of the full-jitter delay before metadata that does not fit together is fetched
again; it doubles with every time."""
_AGAIN_MOST_S: Final = 300.0
_APART_S: Final = 5.0
"""Metadata and what it lists travel separately. What does not meet for so long is reported."""
_MAX_WAITING: Final = 64


class Orders:
    """Verified orders of one device. All calls come from the supervisor's thread."""

    def __init__(
        self,
        trust: Trust,
        clock: Clock,
        topics: Topics,
        device: DeviceId,
        directory: Path,
        random: Callable[[], float],
    ) -> None:
        self._trust = trust
        self._clock = clock
        self._topics = topics
        self._device = device
        self._directory = directory
        self._random = random
        self._waiting: dict[str, bytes] = {}
        """Newest bytes per topic that are not verified yet."""
        self._offered = False
        self._again_s: float | None = None
        self._asked = 0
        """Times that metadata was fetched again since it last fitted together."""
        self._incomplete: Unavailable | None = None
        """Why the metadata that was offered last could not be judged."""
        self._apart: dict[str, float] = {}
        """Since when (monotonic seconds) something has not met what trusted metadata lists."""
        self._reported_apart: set[str] = set()
        self._plan_digests: dict[ModelName, Digest] = {}
        self._deny_digest: Digest | None = None
        self.document: DeviceDocument | None = None
        self.plans: dict[ModelName, Plan] = {}
        self.deny: DenyList | None = None
        self.refused: dict[str, Refused] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def load(self) -> None:
        """Put back in force what an earlier process verified, with or without a link."""
        for path in sorted(self._directory.glob("plan-*.json")):
            self._try(path.stem, partial(self._recall_plan, path))
        if (path := self._directory / "deny.json").exists():
            self._try("deny list", partial(self._recall_deny, path))
        if (path := self._directory / "document.dsse").exists():
            self._try("document", partial(self._recall_document, path))

    def _recall_plan(self, path: Path) -> bool:
        model, data = path.stem.removeprefix("plan-"), path.read_bytes()
        self.plans[model] = self._trust.recall_plan(model, data)
        self._plan_digests[model] = digest_of(data)
        return True

    def _recall_deny(self, path: Path) -> bool:
        data = path.read_bytes()
        self.deny = self._trust.recall_deny(data)
        self._deny_digest = digest_of(data)
        return True

    def _recall_document(self, path: Path) -> bool:
        self.document = self._trust.recall_document(path.read_bytes())
        return True

    @property
    def standing(self) -> tuple[str, ...]:
        """Topics that a device always listens to."""
        return (
            *self._trust.standing,
            self._topics.deny,
            self._topics.document(self._device),
            self._topics.ack(self._device),
            self._topics.ingest(shard_of(self._device)),
        )

    def again(self, now_s: float) -> bool:
        """Whether what is wanted should be asked for once more: something may have been lost."""
        if self._again_s is None or now_s < self._again_s:
            return False
        self._again_s = None
        self._asked += 1
        return True

    def wanted(self, held: Collection[ModelName]) -> frozenset[str]:
        """Topics to fetch now: metadata that is behind, plans that concern us and changed."""
        topics = set(self._trust.wanted())
        for model, target in self._trust.plans.items():
            if self._plan_digests.get(model) != target.digest and self._concerns(model, held):
                topics.add(self._topics.plan(model))
        return frozenset(topics)

    @property
    def doubted(self) -> frozenset[str]:
        """Standing topics whose last message was refused. Only asking again tells whether that is
        what is retained there, or was said once."""
        named = {
            "metadata": self._topics.tuf("timestamp"),
            "deny list": self._topics.deny,
            "document": self._topics.document(self._device),
        }
        return frozenset(topic for what, topic in named.items() if what in self.refused)

    def on_message(self, topic: str, data: bytes) -> bool:
        """Take in what the link brought. True if the topic is one of ours."""
        if topic.startswith(f"{self._topics.prefix}tuf/"):
            self._try("metadata", partial(self._offer, topic, data))
            return True
        limit = self._limit(topic)
        if limit is None:
            return False
        if not data:
            self._waiting.pop(topic, None)
        elif len(data) > limit:
            self._refuse(self._what(topic), PeerError("OUT-N211", f"{len(data):,} bytes"))
        elif topic in self._waiting or len(self._waiting) < _MAX_WAITING:
            self._waiting[topic] = data
        return True

    def _offer(self, topic: str, data: bytes) -> bool:
        self._offered = self._trust.offer(topic, data) or self._offered
        said = topic == self._topics.tuf("timestamp") and self._trust.is_current(data)
        if said and not self._trust.undecided:
            # The fleet is where this device is: what was refused in between is over.
            self.refused.pop("metadata", None)
            self._complete()
        return False

    def settle(self, held: Collection[ModelName], now_s: float) -> bool:
        """Verify what has arrived. True if anything in force changed."""
        changed = False
        if self._offered:
            self._offered = False
            changed = self._try("metadata", partial(self._refresh, now_s))
        changed |= self._verify_waiting(held)
        self._report_apart(held, now_s)
        if self.doubted and self._again_s is None:
            self._ask_again(now_s)
        elif not self.doubted and self._incomplete is None:
            self._asked = 0
        return changed

    def carry(
        self,
        document: bytes,
        deny: bytes,
        plans: Mapping[ModelName, bytes],
        held: Collection[ModelName],
    ) -> None:
        """Put in force what a person brought with metadata that is trusted by now.

        A document that is older than the one in force is left alone: it may have come over the
        link since. Raises what is refused: `TrustError` OUT-T102, OUT-T106, `PeerError`;
        `InvalidRequest` OUT-T119 when a plan that concerns this device is missing.
        """
        found = self._trust.carried_document(document, self._device)
        if found is not None and found != self.document:
            self._store("document.dsse", document)
            self.document = found
        if self._trust.deny_target is None or digest_of(deny) != self._trust.deny_target.digest:
            raise TrustError("OUT-T106", "its deny list is not what rollouts lists")
        self._accept_deny(deny)
        for model, target in self._trust.plans.items():
            here = self._plan_digests.get(model) == target.digest
            if model not in plans:
                if not here and self._concerns(model, ()):
                    raise InvalidRequest("OUT-T119", f"it lacks the plan of {model}")
            elif digest_of(plans[model]) != target.digest:
                raise TrustError("OUT-T106", f"its plan of {model} is not what rollouts lists")
            elif not here and self._concerns(model, held):
                self._accept_plan(model, plans[model])

    def _refresh(self, now_s: float) -> bool:
        try:
            changed = self._trust.refresh()
        except Unavailable as error:
            # Roles arrive one by one; the set is only looked at again when more has come, and
            # fetched again after a while in case something was lost.
            self._incomplete = error
            self._ask_again(now_s)
            # Nothing more has to come where only room was missing.
            self._offered = error.code == "OUT-D201"
            return False
        if changed or not self._trust.undecided:
            self._complete()
        elif self._again_s is None:
            self._ask_again(now_s)  # the same came once more
        return changed

    def _ask_again(self, now_s: float) -> None:
        self._again_s = now_s + full_jitter(self._asked, _AGAIN_S, _AGAIN_MOST_S, self._random())

    def _complete(self) -> None:
        self._incomplete = self._again_s = None
        self._asked = 0

    def _report_apart(self, held: Collection[ModelName], now_s: float) -> None:
        """Say what is offered and never fits: on its way it would have met by now."""
        apart = self._not_listed(held)
        for what in self._reported_apart - apart.keys():
            self.refused.pop(what, None)
        self._reported_apart &= apart.keys()
        self._apart = {what: self._apart.get(what, now_s) for what in apart}
        for what, since_s in self._apart.items():
            if now_s - since_s >= _APART_S and what not in self.refused:
                self._refuse(what, apart[what])
                self._reported_apart.add(what)

    def _not_listed(self, held: Collection[ModelName]) -> dict[str, OutriderError]:
        """What waits although it is not what trusted metadata lists."""
        apart: dict[str, OutriderError] = {}
        if self._incomplete is not None:
            apart["metadata"] = self._incomplete
        not_listed = TrustError("OUT-T106", "what is offered is not what rollouts lists")
        if self._trust.deny_target is not None and self._topics.deny in self._waiting:
            apart["deny list"] = not_listed
        for model, target in self._trust.plans.items():
            lacks = self._plan_digests.get(model) != target.digest
            if lacks and self._topics.plan(model) in self._waiting and self._concerns(model, held):
                apart[f"plan-{model}"] = not_listed
        return apart

    def _verify_waiting(self, held: Collection[ModelName]) -> bool:
        changed = False
        topic = self._topics.document(self._device)
        if topic in self._waiting:
            changed |= self._try("document", partial(self._take_document, topic))
        if self._topics.deny in self._waiting:
            changed |= self._try("deny list", self._take_deny)
        for model in list(self._trust.plans):
            if self._topics.plan(model) in self._waiting and self._concerns(model, held):
                changed |= self._try(f"plan-{model}", partial(self._take_plan, model))
        return changed

    def _take_document(self, topic: str) -> bool:
        if not self._trust.known:
            return False
        envelope = self._waiting[topic]
        with self._judging(topic):
            document = self._trust.verify_document(envelope, self._device)
            if document == self.document:
                self.refused.pop("document", None)  # what is offered is what is in force, again
                return False
            self._store("document.dsse", envelope)
        self.document = document
        return True

    def _take_deny(self) -> bool:
        target = self._trust.deny_target
        data = self._waiting[self._topics.deny]
        if target is None or digest_of(data) != target.digest:
            return False  # metadata and list travel separately: one of them is still on its way
        with self._judging(self._topics.deny):
            if self._deny_digest == target.digest:
                self.refused.pop("deny list", None)
                return False
            self._accept_deny(data)
        return True

    def _accept_deny(self, data: bytes) -> None:
        self.deny = self._trust.verify_deny(data)
        self._store("deny.json", data)
        self._deny_digest = digest_of(data)

    def _take_plan(self, model: ModelName) -> bool:
        target = self._trust.plans[model]
        topic = self._topics.plan(model)
        data = self._waiting[topic]
        if digest_of(data) != target.digest:
            return False
        with self._judging(topic):
            if self._plan_digests.get(model) == target.digest:
                return False
            self._accept_plan(model, data)
        return True

    def _accept_plan(self, model: ModelName, data: bytes) -> None:
        try:
            plan = self._trust.verify_plan(model, data)
        except (TrustError, PeerError):
            # The same bytes will not become acceptable by asking again.
            self._plan_digests[model] = digest_of(data)
            raise
        self.plans[model] = plan
        self._store(f"plan-{model}.json", data)
        self._plan_digests[model] = digest_of(data)

    @contextmanager
    def _judging(self, topic: str) -> Iterator[None]:
        """What came under a topic waits no longer once it was judged, whichever way. Where the
        disk has no room for that, it is judged again in the next turn: nobody says it twice."""
        judged = True
        try:
            yield
        except Unavailable:
            judged = False
            raise
        finally:
            if judged:
                self._waiting.pop(topic, None)

    def _store(self, name: str, data: bytes) -> None:
        """Durable on return. Raises `Unavailable` OUT-D201."""
        try:
            durable.replace(self._directory / name, data)
        except OSError as error:
            raise Unavailable("OUT-D201", f"{name}: {error}") from error

    def _concerns(self, model: ModelName, held: Collection[ModelName]) -> bool:
        if model in held:
            return True
        if self.document is None:
            return False
        return matches(self._trust.plans[model].terms.selector, self.document.selectable)

    def _limit(self, topic: str) -> int | None:
        if topic == self._topics.deny:
            return MAX_DENY_LIST
        if topic == self._topics.document(self._device):
            return MAX_DEVICE_DOCUMENT
        if topic.startswith(f"{self._topics.prefix}plans/"):
            return MAX_PLAN
        return None

    def _what(self, topic: str) -> str:
        """The name under which refusals of a topic are kept, and forgotten."""
        if topic == self._topics.deny:
            return "deny list"
        if topic == self._topics.document(self._device):
            return "document"
        return f"plan-{topic.rpartition('/')[2]}"

    def _try(self, what: str, step: Callable[[], bool]) -> bool:
        """Run one verification. What it refuses is kept for the report; what it lacks is not."""
        try:
            changed = step()
        except (TrustError, PeerError) as error:
            self._refuse(what, error)
            return False
        except Unavailable:
            return False
        if changed:
            self.refused.pop(what, None)
        return changed

    def _refuse(self, what: str, error: OutriderError) -> None:
        log.warning("%s refused: %s", what, error)
        self.refused[what] = Refused(what, error.code, error.why[:200])

"""Takes what devices send, stores it, and only then answers.

The device is the one of the topic, which the broker ties to its certificate, never one named in
a message. A message that is not in order is refused and counted, and answered with nothing.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.store.records import Records
from control_plane.unpack import unpack
from protocol.batch import read_upload
from protocol.codec import (
    CODEC_BINARY,
    CODEC_JSON,
    CODEC_ZSTD_JSON,
    MAX_DOWN,
    decode_up,
    encode,
)
from protocol.errors import PeerError, Unavailable
from protocol.identifiers import DeviceId, digest_hex
from protocol.reported import ReportedState
from protocol.telemetry import (
    BLOCKS,
    Ack,
    Body,
    DriftWindow,
    EventWindow,
    Hello,
    InferenceWindow,
    Range,
    Record,
    StreamAck,
    Upload,
    Want,
    check_epoch,
    merge_ranges,
    read_body,
)
from protocol.topics import SHARDS, Topics

_MOST_PER_WINDOW: Final = 10**10
"""Answers one window can hold. Sums of what a faulty device sends must fit SQL integers."""
_MOST_EVENT_CODES: Final = 64
_EVENT_CODE_LENGTH: Final = 64
_GENERATION_BITS: Final = 53
CODECS: Final = (CODEC_JSON, CODEC_ZSTD_JSON, CODEC_BINARY)
"""What devices may send."""


@dataclass(frozen=True, slots=True)
class Publication:
    topic: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one message. `acks` are to be published, QoS 1, not retained."""

    acks: tuple[Publication, ...] = ()
    problem: str | None = None
    """Problem code if the message was refused."""
    why: str = ""


class Ingest:
    """`handle` may be called by several threads if `records` and the callables may.

    The callables run inside the transaction that stores the records, so that a device's newest
    state is never ahead of its records, nor behind them. `on_state` keeps the state with the
    highest `order` and gets them in any order.
    """

    def __init__(
        self,
        topics: Topics,
        records: Records,
        *,
        accepts: Callable[[DeviceId], bool],
        on_state: Callable[[DeviceId, ReportedState], None],
        on_contact: Callable[[DeviceId, int], None],
        on_want: Callable[[DeviceId, Want], None],
        now_ms: Callable[[], int],
        rng: random.Random | None = None,
        spread_s: float = 60.0,
        wait_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._topics = topics
        self._records = records
        self._accepts = accepts
        self._on_state = on_state
        self._on_contact = on_contact
        self._on_want = on_want
        self._now_ms = now_ms
        self._wait_s = wait_s
        generation = (rng or random.SystemRandom()).getrandbits(_GENERATION_BITS)
        self._hello = Hello(generation, spread_s, CODECS)
        self.refused: Counter[str] = Counter()
        """Messages by problem code since the start."""

    def filters(self, shards: Iterable[int] = range(SHARDS)) -> list[str]:
        """What to subscribe, with QoS 1 and manual acknowledgement after `handle`."""
        return [self._topics.up_filter(shard) for shard in shards]

    def hellos(self, shards: Iterable[int] = range(SHARDS)) -> list[Publication]:
        """To be retained, once per start and again after the broker lost what it retains."""
        data = encode(self._hello)
        return [Publication(self._topics.ingest(shard), data) for shard in shards]

    def handle(self, topic: str, data: bytes) -> Answer:
        """Store one message; when this returns it is committed and may be acknowledged.

        Raises `Unavailable` (OUT-S161) if the store cannot take it: then the MQTT message must
        stay unacknowledged, so that the broker gives it again.
        """
        try:
            device, kind = self._sender(topic)
            if kind == "want":
                return self._want(device, decode_up(data, Want, unpack))
            return self._upload(device, read_upload(data, unpack))
        except PeerError as error:
            self.refused[error.code] += 1
            return Answer(problem=error.code, why=error.why)
        except sqlite3.OperationalError as error:
            raise Unavailable("OUT-S161", str(error)) from error

    def _sender(self, topic: str) -> tuple[DeviceId, str]:
        try:
            device, kind = self._topics.parse_up(topic)
        except ValueError as error:
            raise PeerError("OUT-N210", str(error)) from error
        if not self._accepts(device):
            raise PeerError("OUT-N214", device)
        return device, kind

    def _want(self, device: DeviceId, want: Want) -> Answer:
        with self._records.transaction():
            self._on_contact(device, self._now_ms())
        self._on_want(device, want)
        return Answer()

    def _upload(self, device: DeviceId, upload: Upload) -> Answer:
        found = [checked(record) for record in upload.x]
        for epoch, *_ in upload.held:
            _epoch(epoch)
        now_ms = self._now_ms()
        with self._records.transaction():
            stored = [(record, text) for record, text, _ in found]
            self._records.ingest(device, stored)
            if not upload.x:
                self._records.note_held(device, upload.held, now_ms)
            states = [body for _, _, body in found if isinstance(body, ReportedState)]
            if states:
                self._on_state(device, max(states, key=lambda state: state.order))
            self._on_contact(device, now_ms)
        # Only now, after the commit: what is acknowledged must survive this process.
        return Answer(acks=self._acks(device, upload))

    def _acks(self, device: DeviceId, upload: Upload) -> tuple[Publication, ...]:
        named: dict[tuple[int, str], list[Range]] = {}
        for record in upload.x:
            named.setdefault((record.e, record.s), []).append((record.lo, record.hi))
        for epoch, stream, lowest, highest in upload.held:
            named.setdefault((epoch, stream), []).append((lowest, highest))
        coverage = [
            self._records.coverage(device, epoch, stream, merge_ranges(windows))
            for (epoch, stream), windows in named.items()
        ]
        topic = self._topics.ack(device)
        return tuple(Publication(topic, data) for data in _split(coverage, self._wait_s()))


def checked(record: Record) -> tuple[Record, str, Body]:
    """A record, its body as JSON text and typed. Raises `PeerError` where they do not agree."""
    _epoch(record.e)
    body = read_body(record)
    size = record.hi - record.lo + 1
    if record.n > _MOST_PER_WINDOW * size or record.t0 > record.t1 or size not in BLOCKS:
        raise PeerError("OUT-N210", f"{record.s}: n or times out of range")
    if record.n != _counted(body):
        raise PeerError("OUT-N210", f"{record.s}: n is not the sum of its body")
    if isinstance(body, InferenceWindow | DriftWindow):
        try:
            ids = [digest_hex(each)[:16] for each in (body.manifest, body.profile)]
        except ValueError as error:
            raise PeerError("OUT-N210", str(error)) from error
        if record.s.split("/")[1:] != ids:
            raise PeerError("OUT-N210", f"{record.s}: the body is of another model or profile")
    if isinstance(body, InferenceWindow) and not _labels_agree(body):
        raise PeerError("OUT-N210", f"{record.s}: more right, or in bins, than labels came")
    try:
        return record, encode(body).decode(), body
    except (ValueError, OverflowError, RecursionError) as error:
        raise PeerError("OUT-N210", f"{record.s}: {error}") from error


def _counted(body: Body) -> int:
    match body:
        case InferenceWindow():
            return body.answers
        case DriftWindow():
            return body.rows
        case EventWindow():
            if len(body.counts) > _MOST_EVENT_CODES or not set(body.newest) <= set(body.counts):
                raise PeerError("OUT-N210", "events: more codes than allowed, or unknown ones")
            if any(len(code) > _EVENT_CODE_LENGTH for code in body.counts):
                raise PeerError("OUT-N210", "events: a code is too long")
            return sum(body.counts.values())
        case ReportedState():
            return 1


def _labels_agree(body: InferenceWindow) -> bool:
    """Bins may hold less than the totals: of some labels the confidence is not known."""
    binned, right = sum(body.labelled_bins), sum(body.correct_bins)
    return right <= body.correct <= body.labelled and right <= binned <= body.labelled


def _epoch(value: int) -> None:
    try:
        check_epoch(value)
    except ValueError as error:
        raise PeerError("OUT-N210", str(error)) from error


def _split(coverage: Sequence[StreamAck], wait_s: float | None) -> list[bytes]:
    """As few acks as fit. An upload that names nothing is answered too: the probe was heard."""
    data = encode(Ack(1, tuple(coverage), wait_s))
    if len(data) <= MAX_DOWN or len(coverage) < 2:
        return [data]
    half = len(coverage) // 2
    return [*_split(coverage[:half], wait_s), *_split(coverage[half:], wait_s)]

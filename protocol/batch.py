"""Codec 0x03: an upload as bytes instead of JSON. It says the same, in a fifth of the room.

A device sends it only to an ingester that greeted it with codec 3. After the codec byte come the
packing (0 plain, 1 zstd) and the batch. `uv` is an unsigned LEB128 of at most 8 bytes, up to 2^53.

    u8 version = 1
    uv D <= 1000, D x 32 bytes      digests of manifests and profiles, distinct, by first use
    uv T0                           the smallest t0
    uv R <= 500, R x record:
       u8 kind                      0 JSON body, 1 inference, 2 drift
       uv e; uv lo; uv hi-lo; uv part (0: final); uv t0-T0; uv t1-t0; uv n
       0: uv length, stream; uv length, JSON of b
       1: uv manifest, uv profile; uv rows, errors, refused, nonfinite, by_rules, outside,
          labelled, correct; counts x 6: latency, confidence, classes, score, labelled_bins,
          correct_bins
       2: uv manifest, uv profile; uv F <= 4096, F x counts; counts residual; uv looks;
          uv E <= 16, E x (uv stream, uv tenths)
    uv H <= 500, H x (uv e; uv length, stream; uv lowest; uv highest)

    counts: uv length <= 10,003 (0: not kept), then v > 0 as uv v, and z zeros as 0, uv z-1

The stream of kinds 1 and 2 follows from the digests; `answers` and `rows` are `n`. Whatever does
not fit that is kind 0, so every upload has a form here, and reads back as JSON would have said it.
Only a t1 before its t0, which no ingester takes, is written as that t0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from protocol.codec import (
    CODEC_BINARY,
    MAX_UP_PACKED,
    MAX_UP_UNPACKED,
    Compress,
    Decompress,
    convert,
    decode,
    decode_up,
    encode,
    to_wire,
)
from protocol.errors import PeerError
from protocol.histogram import Counts
from protocol.identifiers import MAX_INT, Digest, digest_from_hex, digest_hex
from protocol.telemetry import (
    FINAL,
    MAX_EVIDENCE,
    MAX_RECORDS,
    DriftWindow,
    InferenceWindow,
    Record,
    Upload,
    stream_name,
)

T = TypeVar("T")
_Window = InferenceWindow | DriftWindow

VERSION: Final = 1
PLAIN: Final = 0
ZSTD: Final = 1

_JSON_BODY: Final = 0
_INFERENCE: Final = 1
_DRIFT: Final = 2

_MAX_DIGESTS: Final = 1000
_MAX_FEATURES: Final = 4096
_MAX_SLOTS: Final = 10_003
_MAX_VALUES: Final = MAX_UP_UNPACKED // 2
"""Counts in one batch: as many as JSON has room for. Runs of zeros would unpack to any number."""
_MAX_STREAM_BYTES: Final = 64
_MAX_UV_BYTES: Final = 8
_DIGEST_BYTES: Final = 32

_TOTALS: Final = (
    "rows",
    "errors",
    "refused",
    "nonfinite",
    "by_rules",
    "outside",
    "labelled",
    "correct",
)
_TABLES: Final = ("latency", "confidence", "classes", "score", "labelled_bins", "correct_bins")


def encode_batch(upload: Upload, compress: Compress | None = None) -> bytes:
    """The whole message, packed where that is shorter."""
    batch = _Writer().batch(upload)
    if compress is not None:
        packed = compress(batch)
        if len(packed) < len(batch):
            return bytes((CODEC_BINARY, ZSTD)) + packed
    return bytes((CODEC_BINARY, PLAIN)) + batch


def read_upload(data: bytes, decompress: Decompress) -> Upload:
    """An upload in any codec. Raises `PeerError` for every byte sequence that is none."""
    if data[:1] != bytes((CODEC_BINARY,)):
        return decode_up(data, Upload, decompress)
    if len(data) > MAX_UP_PACKED:
        raise PeerError("OUT-N211", f"{len(data):,} bytes, at most {MAX_UP_PACKED:,}")
    packing, batch = data[1:2], data[2:]
    if packing == bytes((ZSTD,)):
        try:
            batch = decompress(batch, MAX_UP_UNPACKED)
        except ValueError as error:
            raise PeerError("OUT-N211", str(error)) from error
    elif packing and packing != bytes((PLAIN,)):
        raise PeerError("OUT-N212", f"packing 0x{packing.hex()} of codec 0x03")
    try:
        return _Reader(batch).batch()
    except (ValueError, IndexError) as error:
        raise PeerError("OUT-N210", str(error)) from error


class _Writer:
    def __init__(self) -> None:
        self._out = bytearray()
        self._digests: dict[Digest, int] = {}

    def batch(self, upload: Upload) -> bytes:
        start = min((record.t0 for record in upload.x), default=0)
        self._uv(start)
        self._uv(len(upload.x))
        for record in upload.x:
            self._record(record, start)
        self._uv(len(upload.held))
        for epoch, stream, lowest, highest in upload.held:
            self._uv(epoch)
            self._text(stream.encode())
            self._uv(lowest)
            self._uv(highest)
        # Only now it is known which digests there are.
        rest, self._out = self._out, bytearray((VERSION,))
        self._uv(len(self._digests))
        for each in self._digests:
            self._out += bytes.fromhex(digest_hex(each))
        return bytes(self._out + rest)

    def _record(self, record: Record, start: int) -> None:
        body = _typed(record)
        kind = _JSON_BODY
        if body is not None:
            kind = _INFERENCE if isinstance(body, InferenceWindow) else _DRIFT
        self._out.append(kind)
        part = 0 if record.part == FINAL else record.part
        ends = max(record.t1 - record.t0, 0)
        for value in (record.e, record.lo, record.hi - record.lo, part, record.t0 - start, ends):
            self._uv(value)
        self._uv(record.n)
        if body is None:
            self._text(record.s.encode())
            self._text(encode(record.b))
            return
        self._digest(body.manifest)
        self._digest(body.profile)
        if isinstance(body, InferenceWindow):
            for name in _TOTALS:
                self._uv(getattr(body, name))
            for name in _TABLES:
                self._counts(getattr(body, name))
            return
        self._uv(len(body.counts))
        for counts in body.counts:
            self._counts(counts)
        self._counts(body.residual)
        self._uv(body.looks)
        self._uv(len(body.evidence))
        for stream, tenths in body.evidence:
            self._uv(stream)
            self._uv(tenths)

    def _uv(self, value: int) -> None:
        while value > 0x7F:
            self._out.append(value & 0x7F | 0x80)
            value >>= 7
        self._out.append(value)

    def _text(self, data: bytes) -> None:
        self._uv(len(data))
        self._out += data

    def _digest(self, value: Digest) -> None:
        self._uv(self._digests.setdefault(value, len(self._digests)))

    def _counts(self, counts: Counts) -> None:
        # A device writes thousands of them, most below 128.
        self._uv(len(counts))
        zeros = 0
        for value in counts:
            if not value:
                zeros += 1
                continue
            if zeros:
                self._zeros(zeros)
                zeros = 0
            if value < 0x80:
                self._out.append(value)
            else:
                self._uv(value)
        if zeros:
            self._zeros(zeros)

    def _zeros(self, count: int) -> None:
        self._out.append(0)
        self._uv(count - 1)


class _Reader:
    """Reads one batch. Raises `ValueError` or `IndexError` for what is none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._values = 0

    def batch(self) -> Upload:
        version = self._byte()
        if version != VERSION:
            raise PeerError("OUT-N212", f"binary batch of version {version}")
        digests = self._list(_MAX_DIGESTS, self._digest)
        if len(set(digests)) != len(digests):
            raise ValueError("a digest is there twice")
        start = self._uv()
        records = self._list(MAX_RECORDS, lambda: self._record(digests, start))
        held = self._list(MAX_RECORDS, self._held)
        if self._at != len(self._data):
            raise ValueError("something follows the batch")
        return Upload(1, records, held)

    def _record(self, digests: Sequence[Digest], start: int) -> Record:
        kind = self._byte()
        epoch, lo = self._uv(), self._uv()
        hi, part = _count(lo + self._uv()), self._uv() or FINAL
        t0 = _count(start + self._uv())
        t1, n = _count(t0 + self._uv()), self._uv()
        if kind == _JSON_BODY:
            stream = self._bytes(_MAX_STREAM_BYTES).decode()
            body = decode(self._bytes(MAX_UP_UNPACKED), dict[str, Any], limit=MAX_UP_UNPACKED)
            return Record(epoch, stream, lo, hi, n, body, part, t0, t1)
        if kind not in (_INFERENCE, _DRIFT):
            raise ValueError(f"records of kind {kind}")
        manifest, profile = digests[self._uv()], digests[self._uv()]
        if kind == _INFERENCE:
            typed, name = self._inference(manifest, profile, n), "inference"
        else:
            typed, name = self._drift(manifest, profile, n), "drift"
        stream = stream_name(name, manifest, profile)
        return Record(epoch, stream, lo, hi, n, to_wire(typed), part, t0, t1)

    def _inference(self, manifest: Digest, profile: Digest, n: int) -> _Window:
        totals = {name: self._uv() for name in _TOTALS}
        tables = {name: self._counts() for name in _TABLES}
        return InferenceWindow(manifest, profile, n, **totals, **tables)  # type: ignore[arg-type]

    def _drift(self, manifest: Digest, profile: Digest, n: int) -> _Window:
        counts = self._list(_MAX_FEATURES, self._counts)
        residual, looks = self._counts(), self._uv()
        evidence = self._list(MAX_EVIDENCE, lambda: (self._uv(), self._uv()))
        return DriftWindow(manifest, profile, n, counts, residual, looks, evidence)

    def _held(self) -> tuple[int, str, int, int]:
        return self._uv(), self._bytes(_MAX_STREAM_BYTES).decode(), self._uv(), self._uv()

    def _list(self, most: int, read: Callable[[], T]) -> tuple[T, ...]:
        length = self._uv()
        if length > most:
            raise ValueError(f"{length:,} where at most {most:,} are allowed")
        return tuple(read() for _ in range(length))

    def _counts(self) -> Counts:
        length = self._uv()
        self._values += length
        if length > _MAX_SLOTS or self._values > _MAX_VALUES:
            raise ValueError("more counts than a batch may have")
        counts: list[int] = []
        while len(counts) < length:
            value = self._data[self._at]
            if 0 < value < 0x80:
                self._at += 1
                counts.append(value)
            elif value:
                counts.append(self._uv())
            else:
                self._at += 1
                zeros = self._uv() + 1
                if zeros > length - len(counts):
                    raise ValueError("more zeros than there are slots")
                counts += [0] * zeros
        return tuple(counts)

    def _uv(self) -> int:
        value = 0
        for place in range(_MAX_UV_BYTES):
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return _count(value)
        raise ValueError("a number of more than eight bytes")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, most: int) -> bytes:
        length = self._uv()
        if length > min(most, len(self._data) - self._at):
            raise ValueError(f"{length:,} bytes that are not there, or too many")
        self._at += length
        return self._data[self._at - length : self._at]

    def _digest(self) -> Digest:
        data = self._data[self._at : self._at + _DIGEST_BYTES]
        if len(data) < _DIGEST_BYTES:
            raise ValueError("a digest is cut short")
        self._at += _DIGEST_BYTES
        return digest_from_hex(data.hex())


def _typed(record: Record) -> _Window | None:
    """The body, if all of the record follows from it and the form has room for it."""
    if record.kind not in ("inference", "drift"):
        return None
    try:
        if record.kind == "inference":
            inference = convert(record.b, InferenceWindow)
            fits = inference.answers == record.n
            body: _Window = inference
            lengths = [len(getattr(inference, name)) for name in _TABLES]
        else:
            drift = convert(record.b, DriftWindow)
            fits = drift.rows == record.n and len(drift.counts) <= _MAX_FEATURES
            body = drift
            lengths = [len(each) for each in (*drift.counts, drift.residual)]
    except PeerError:
        return None
    named = stream_name(record.kind, body.manifest, body.profile) == record.s
    short = max(lengths, default=0) <= _MAX_SLOTS
    # Equal also in what this version does not know, which the form has no room for.
    whole = to_wire(body) == record.b
    return body if fits and named and short and whole and record.t1 >= record.t0 else None


def _count(value: int) -> int:
    if value > MAX_INT:
        raise ValueError(f"{value} is more than 2^53")
    return value

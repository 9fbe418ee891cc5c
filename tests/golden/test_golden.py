"""What travels, byte for byte. Provisional until the first tagged release, then never edited.

A difference here is a device in the field that no longer understands us, or that we no longer
understand. `python tests/golden/test_golden.py` writes files that are not there yet; it never
changes one that is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol import batch, bundle, codec, rules
from protocol.approval import Approved
from protocol.bundle import Index, Member, Needs, Variant, VariantReference
from protocol.device import DeviceDocument, Pin, Settings
from protocol.members import Policy
from protocol.payload import FEATURE_ZSTD, MAX_BLOCK, Header, Hint, HintEntry
from protocol.plan import Denied, DenyList, Ended, Plan, PlanTerms, Rollout, Rule, Wave
from protocol.reported import Guards, ModelState, Note, Outcome, ReportedState
from protocol.selector import Selector
from protocol.telemetry import (
    Ack,
    DriftWindow,
    EventWindow,
    Hello,
    InferenceWindow,
    Record,
    StreamAck,
    Upload,
    Want,
    stream_name,
)

FOLDER = Path(__file__).parent / "v1"
A, B, C = ("sha256-" + letter * 64 for letter in "abc")
LEEDS = Selector("eq", "site", ("leeds",))
STREAM = stream_name("inference", A, B)

DOCUMENTS: dict[str, Any] = {
    "plan": Plan(
        "north",
        "digits",
        29_400_000,
        31,
        (
            Rule(
                Selector("and", of=(LEEDS, Selector("not", of=(Selector("exists", "line"),)))),
                A,
                Rollout(
                    "digits-7",
                    1,
                    B,
                    "0123456789abcdef" * 2,
                    12,
                    Wave(2**52, ("cam-1",), ("cam-2",), "site", {"leeds": 2**53}),
                    holdback=2**48,
                ),
            ),
            Rule(None, A),
        ),
        Ended("digits-6", C, "aborted"),
    ),
    "plan-terms": PlanTerms(LEEDS, ("selector/1",)),
    "deny-list": DenyList("north", 29_400_001, (Denied("digits", C, "class 8"),)),
    "device-document": DeviceDocument(
        "north",
        "north-cam-1",
        29_400_002,
        9,
        {"site": "leeds", "fact/arch": "aarch64"},
        {"digits": Pin(A, 1_800_000_000_000)},
        {"digits": {B: 2}},
        settings=Settings(state_interval_s=600),
    ),
    "approved": Approved("revoked", "stop", Needs(("aarch64",), "1.17", 96_000_000)),
    "policy": Policy(
        fallback=C,
        actions={"errors": "fallback", "crashes": "rules"},
        after_commit=("errors", "crashes", "latency"),
        rules=rules.Rules(
            {"label": (0,), "p": (1.0, 0.0)},
            (
                rules.Rule(
                    (rules.Condition(1, "gt", 80.5, "temperature"),),
                    {"label": (1,), "p": (0.0, 1.0)},
                ),
            ),
        ),
    ),
    "hint": Hint((HintEntry(A, 131_072, 2, FEATURE_ZSTD, 8_000_000),)),
    "upload": Upload(
        1,
        (
            Record(
                5,
                STREAM,
                24,
                47,
                9_001,
                codec.to_wire(InferenceWindow(A, B, 9_001, 9_100, 3, 2, 1, classes=(9_000, 100))),
                t0=1_795_000_000_000,
                t1=1_795_086_400_000,
            ),
            Record(
                5,
                stream_name("drift", A, B),
                3,
                3,
                60,
                codec.to_wire(DriftWindow(A, B, 60, ((1, 59), (30, 30)))),
                4,
            ),
            Record(5, "events/-/-", 0, 0, 1, codec.to_wire(EventWindow({"OUT-D310": 1}))),
        ),
        ((5, STREAM, 24, 50),),
    ),
    "state": ReportedState(
        1_795_000_000_001,
        "0.1.0",
        features=("payload/1", "plan/1"),
        document_version=29_400_002,
        models={
            "digits": ModelState(
                current=A,
                previous=B,
                serving=A,
                phase="probation",
                guards=Guards("active", 1, 64, 3),
                notes={C: Note("OUT-D310", "confidence 0.31, was 0.97", True, activated=True)},
                last=Outcome(4, "digits", C, "rejected", "OUT-D310"),
            )
        },
    ),
    "ack": Ack(1, (StreamAck(5, STREAM, ((0, 47),), ((0, 23),), ((48, 3, False),)),), 2.5),
    "hello": Hello(2**52 + 1, 60.0),
    "want": Want(1, A, ((0, 3), (7, 7))),
}
BATCH = Upload(
    1,
    (
        Record(
            2**53 - 1,
            STREAM,
            24,
            47,
            9_001,
            codec.to_wire(
                InferenceWindow(
                    A,
                    B,
                    9_001,
                    9_100,
                    3,
                    2,
                    1,
                    confidence=(*(0,) * 19, 9_100),
                    classes=(9_000, 100),
                    by_rules=5,
                    outside=4,
                    labelled=200,
                    correct=190,
                    labelled_bins=(*(0,) * 10, 20, *(0,) * 8, 180),
                    correct_bins=(*(0,) * 10, 12, *(0,) * 8, 178),
                    score=(0, 9_100, 0, 0),
                )
            ),
            t0=1_795_000_000_000,
            t1=1_795_086_400_000,
        ),
        Record(
            5,
            stream_name("drift", A, C),
            3,
            3,
            60,
            codec.to_wire(
                DriftWindow(
                    A,
                    C,
                    60,
                    ((1, 59, 0, 0), (0, 30, 30, 0)),
                    (0, 60, 0, 0),
                    61,
                    ((0, 154), (2, 400)),
                )
            ),
            4,
            1_795_000_000_001,
            1_795_000_000_002,
        ),
        Record(5, "events/-/-", 0, 0, 1, codec.to_wire(EventWindow({"OUT-D601": 1}))),
        Record(5, "state/-/-", 7, 7, 1, codec.to_wire(ReportedState(9, "0.1.0"))),
    ),
    ((5, STREAM, 24, 50),),
)


def read_batch(data: bytes) -> Upload:
    read = batch.read_upload(data, lambda packed, limit: packed)
    assert read == BATCH
    return read


OTHERS: dict[str, tuple[bytes, Any]] = {
    "upload-batch.bin": (batch.encode_batch(BATCH), read_batch),
    "index.json": (
        bundle.encode_index(
            Index("digits", "v2", (VariantReference(A, 900, Needs(onnxruntime="1.17")),))
        ),
        bundle.decode_index,
    ),
    "manifest.json": (
        bundle.encode_manifest(
            Variant(tuple(Member(r, f"{r}.bin", B, 5) for r in sorted(bundle.REQUIRED_ROLES)))
        ),
        bundle.decode_manifest,
    ),
    "payload-header.bin": (
        Header(FEATURE_ZSTD, A, B, 5_000_000, MAX_BLOCK).pack(),
        Header.unpack,
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_written_and_read_as_it_always_was(name):
    golden = (FOLDER / f"{name}.json").read_bytes()
    value = DOCUMENTS[name]
    assert codec.encode(value) == golden
    assert codec.decode(golden, type(value), limit=len(golden)) == value


@pytest.mark.parametrize("name", OTHERS)
def test_other_bytes_are_written_and_read_as_they_always_were(name):
    golden = (FOLDER / name).read_bytes()
    data, read = OTHERS[name]
    assert data == golden
    read(golden)


def test_no_golden_file_lacks_its_test():
    names = {f"{name}.json" for name in DOCUMENTS} | set(OTHERS)
    assert {path.name for path in FOLDER.iterdir()} == names


def write_missing() -> None:
    files = {f"{name}.json": codec.encode(value) for name, value in DOCUMENTS.items()}
    files |= {name: data for name, (data, _) in OTHERS.items()}
    for name, data in files.items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    write_missing()

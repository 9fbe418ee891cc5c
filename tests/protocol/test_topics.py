"""Topics: built and parsed in one place, within what every broker takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.topics import SHARDS, Topics, shard_of

NORTH = Topics("north")
DIGEST = "sha256-" + "0" * 64
DEVICE = "north-cam-0117"

ALL = [
    NORTH.tuf("timestamp"),
    NORTH.root(12),
    NORTH.plan("digits"),
    NORTH.deny,
    NORTH.manifest("digits", DIGEST),
    NORTH.hint("digits", DIGEST),
    NORTH.frame("digits", DIGEST, 70_000),
    NORTH.frame_list("digits", DIGEST, 34),
    NORTH.document(DEVICE),
    NORTH.ack(DEVICE),
    NORTH.ingest(15),
    NORTH.up(DEVICE, "records"),
    NORTH.up(DEVICE, "want"),
    NORTH.presence(DEVICE),
]


@pytest.mark.parametrize("topic", ALL)
def test_a_topic_stays_within_what_every_broker_takes(topic):
    assert re.fullmatch(r"[A-Za-z0-9_/-]+", topic)
    assert topic.count("/") <= 7
    assert "//" not in topic
    assert len(topic) <= 256


def test_topics_are_distinct():
    assert len(set(ALL)) == len(ALL)


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True))
def test_an_upstream_topic_gives_back_its_device(local):
    device = f"north-{local}"
    assert NORTH.parse_up(NORTH.up(device, "records")) == (device, "records")
    assert 0 <= shard_of(device) < SHARDS


def other_shard() -> str:
    return f"outrider/v1/north/up/{(shard_of(DEVICE) + 1) % SHARDS}/{DEVICE}/records"


@pytest.mark.parametrize(
    "topic",
    [
        "outrider/v1/south/up/3/north-cam-0117/records",
        "outrider/v1/north/up/x/north-cam-0117/records",
        other_shard(),
        f"outrider/v1/north/up/{shard_of(DEVICE)}/{DEVICE}/state",
        f"outrider/v1/north/up/{shard_of(DEVICE)}/south-cam-0117/records",
        f"outrider/v1/north/up/{shard_of(DEVICE)}/{DEVICE}/records/more",
        "outrider/v1/north/deny",
        "",
    ],
)
def test_any_other_topic_is_not_an_upstream_topic(topic):
    with pytest.raises(ValueError):
        NORTH.parse_up(topic)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Topics("no/rth"),
        lambda: NORTH.plan("a/b"),
        lambda: NORTH.plan("+"),
        lambda: NORTH.document("south-cam-1"),
        lambda: NORTH.document("north-#"),
        lambda: NORTH.manifest("digits", "sha256-xyz"),
        lambda: NORTH.tuf("root"),
        lambda: NORTH.root(-1),
        lambda: NORTH.up(DEVICE, "other"),
    ],
)
def test_no_name_can_leave_its_level(build):
    with pytest.raises(ValueError):
        build()

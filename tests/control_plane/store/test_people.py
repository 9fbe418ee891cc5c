"""Tokens of people: one valid one each, only hashes, noted when used."""

import pytest

from control_plane.store import Store
from protocol.errors import InvalidRequest

NOW_MS = 1_795_000_000_000
MINUTE_MS = 60_000


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store.sqlite")
    yield made
    made.close()


def test_a_name_has_one_valid_token_and_gets_another_once_it_is_over(store):
    store.people.create("h1", "eva", "viewer", NOW_MS, NOW_MS + MINUTE_MS)
    with pytest.raises(InvalidRequest) as refused:
        store.people.create("h2", "eva", "operator", NOW_MS)
    assert refused.value.code == "OUT-A205"
    store.people.create("h2", "eva", "operator", NOW_MS + MINUTE_MS)
    assert store.people.revoke("eva", NOW_MS + MINUTE_MS) == 1
    store.people.create("h3", "eva", "admin", NOW_MS + MINUTE_MS)
    assert [(row.hash, row.role) for row in store.people.named("eva")] == [
        ("h1", "viewer"),
        ("h2", "operator"),
        ("h3", "admin"),
    ]


def test_the_local_token_is_the_one_in_the_folder(store):
    store.people.keep_local("h1", NOW_MS)
    store.people.keep_local("h1", NOW_MS + 1)
    store.people.keep_local("h2", NOW_MS + 2)
    assert [(row.hash, row.valid(NOW_MS + 3)) for row in store.people.named("local")] == [
        ("h1", False),
        ("h2", True),
    ]


def test_what_was_revoked_stays_revoked_over_a_start(store):
    store.people.keep_local("h1", NOW_MS)
    store.people.revoke("local", NOW_MS + 1)
    store.people.keep_local("h1", NOW_MS + 2)
    assert not store.people.by_hash("h1").valid(NOW_MS + 3)


def test_use_is_noted_to_the_minute(store):
    store.people.create("h", "eva", "viewer", NOW_MS)
    noted = []
    for now_ms in (NOW_MS, NOW_MS + MINUTE_MS, NOW_MS + MINUTE_MS + 1, NOW_MS):
        store.people.used("h", now_ms)
        noted.append(store.people.by_hash("h").used_ms)
    assert noted == [NOW_MS, NOW_MS, NOW_MS + MINUTE_MS + 1, NOW_MS + MINUTE_MS + 1]


def test_who_may_come_in_may_do_so_while_the_store_cannot_be_written(store):
    store.people.create("h", "eva", "viewer", NOW_MS)
    store.connection().execute("PRAGMA query_only = ON")
    store.people.used("h", NOW_MS)
    assert store.people.by_hash("h").used_ms is None


def test_nobody_has_a_hash_that_was_not_made(store):
    store.people.create("h", "eva", "viewer", NOW_MS)
    assert store.people.by_hash("h2") is None
    assert store.people.by_hash("") is None
    store.people.used("h2", NOW_MS)


@pytest.mark.parametrize(
    "expires_ms, at_ms, valid",
    [
        (None, NOW_MS * 2, True),
        (NOW_MS + MINUTE_MS, NOW_MS + MINUTE_MS - 1, True),
        (NOW_MS + MINUTE_MS, NOW_MS + MINUTE_MS, False),
    ],
)
def test_a_token_is_valid_until_it_expires(store, expires_ms, at_ms, valid):
    store.people.create("h", "eva", "viewer", NOW_MS, expires_ms)
    assert store.people.by_hash("h").valid(at_ms) is valid
    # What is over cannot be revoked any more.
    assert store.people.revoke("eva", at_ms) == int(valid)


def test_everybody_is_listed_by_name_with_their_tokens_in_order(store):
    store.people.create("h1", "eva", "viewer", NOW_MS)
    store.people.create("h2", "bo", "admin", NOW_MS + 1)
    store.people.revoke("eva", NOW_MS + 2)
    store.people.create("h3", "eva", "operator", NOW_MS + 3)
    assert [row.hash for row in store.people.all()] == ["h2", "h1", "h3"]
    assert store.people.revoke("nobody", NOW_MS) == 0

"""Positions are one hash, computed in one place, the same everywhere for ever."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.membership import EVERYONE, check_salt, position

SALT = "0123456789abcdef" * 2


def test_the_position_is_the_top_53_bits_of_the_hash_of_salt_nul_device():
    digest = hashlib.sha256(f"{SALT}\0north-cam-0117".encode()).digest()
    assert position(SALT, "north-cam-0117") == int.from_bytes(digest, "big") >> (256 - 53)


def test_a_known_position_never_changes():
    assert position("0" * 32, "local-a-1") == 6093350651859799


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=40))
def test_every_position_is_below_everyone(device):
    assert 0 <= position(SALT, device) < EVERYONE


def test_positions_of_a_fleet_are_spread_evenly():
    places = [position(SALT, f"north-cam-{n}") for n in range(4000)]
    quarters = [sum(q <= 4 * p // EVERYONE < q + 1 for p in places) for q in range(4)]
    assert all(850 < share < 1150 for share in quarters)


@pytest.mark.parametrize("salt", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32])
def test_a_salt_is_32_lower_case_hex_digits(salt):
    with pytest.raises(ValueError):
        check_salt(salt)

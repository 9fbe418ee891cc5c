"""Who bets is chance: a hash that has nothing to do with the one that makes waves."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.sampling import score_place
from protocol.membership import position

SALT = "0123456789abcdef" * 2


def test_the_place_is_the_top_53_bits_of_a_hash_that_anybody_can_compute():
    digest = hashlib.sha256(f"score\0{SALT}\0north-d1".encode()).digest()
    assert score_place(SALT, "north-d1") == int.from_bytes(digest[:8], "big") >> 11


@given(st.from_regex(r"[a-z0-9]{1,8}-[a-z0-9][a-z0-9-]{0,30}", fullmatch=True))
def test_places_are_in_range_and_differ_with_the_salt(device):
    assert 0 <= score_place(SALT, device) < 2**53
    assert score_place(SALT, device) != score_place("f" * 32, device)


def test_the_first_wave_is_no_better_represented_than_any_other():
    devices = [f"north-d{n}" for n in range(4000)]
    wave = [each for each in devices if position(SALT, each) < 2**53 // 4]
    chosen = [each for each in wave if score_place(SALT, each) < 2**53 // 2]
    # 1,000 devices or so, half of them: five standard deviations are 80.
    assert abs(len(chosen) - len(wave) / 2) < 80

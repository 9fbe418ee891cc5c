"""How people are told times, sizes and counts."""

import pytest

from protocol import wording

NOW = 1_795_000_000_000  # 18 Nov 2026 11:06:40 UTC


@pytest.mark.parametrize(
    "seconds, text",
    [
        (None, "unknown"),
        (0.4, "0 s"),
        (42, "42 s"),
        (60, "1 min"),
        (3_661, "1 h 1 min"),
        (86_400, "1 d"),
        (86_460, "1 d"),
        (9 * 86_400 + 4 * 3_600 + 59, "9 d 4 h"),
    ],
)
def test_durations_have_at_most_two_neighbouring_units(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    "size, text",
    [
        (None, "unknown"),
        (131, "131 B"),
        (9_100, "9.10 kB"),
        (412_000, "412 kB"),
        (999_900, "1.00 MB"),
        (1_260_000, "1.26 MB"),
        (31_500_000, "31.5 MB"),
    ],
)
def test_sizes_are_decimal_with_three_digits(size, text):
    assert wording.size(size) == text


@pytest.mark.parametrize(
    "age_s, text",
    [(30, "30 s ago"), (6 * 86_400, "6 d ago"), (8 * 86_400, "10 Nov 11:06 UTC")],
)
def test_a_moment_is_an_age_and_later_a_date(age_s, text):
    assert wording.moment(NOW - age_s * 1000, NOW) == text


def test_a_date_of_another_year_says_the_year():
    assert wording.date(NOW - 400 * 86_400_000, NOW) == "14 Oct 2025 11:06 UTC"


def test_unknown_is_never_zero():
    assert wording.moment(0, NOW) == wording.count(None) == "unknown"


@pytest.mark.parametrize(
    "at, text", [(NOW, "2026-11-18T11:06:40Z"), (NOW + 5, "2026-11-18T11:06:40.005Z")]
)
def test_json_times_are_rfc_3339(at, text):
    assert wording.rfc3339(at) == text


@pytest.mark.parametrize(
    "part, whole, text",
    [
        (880_000, 1_260_000, "880 kB of 1.26 MB"),
        (1_200_000, 1_260_000, "1.20 of 1.26 MB"),
        (0, 0, "0 of 0 B"),
    ],
)
def test_the_unit_of_a_part_is_said_once(part, whole, text):
    assert wording.size_of(part, whole) == text


def test_a_day_has_no_time():
    now = 1_795_000_000_000
    assert wording.day(now, now) == "18 Nov"
    assert wording.day(now, 0) == "18 Nov 2026"

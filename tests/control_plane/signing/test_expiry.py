"""Warnings before signed metadata expires."""

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.signing.expiry import expiring, said, worth_renewing

NOW = datetime(2026, 12, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=400)


def roles(**left):
    names = ("root", "targets", "models", "rollouts", "snapshot", "timestamp")
    return {name: NOW + left[name] if name in left else LATER for name in names}


@pytest.mark.parametrize(
    "role, limit",
    [
        ("root", timedelta(days=30)),
        ("targets", timedelta(days=30)),
        ("models", timedelta(days=30)),
        ("rollouts", timedelta(days=7)),
        ("snapshot", timedelta(days=7)),
        ("timestamp", timedelta(hours=24)),
    ],
)
def test_each_role_is_warned_of_in_time_and_not_before(role, limit):
    second = timedelta(seconds=1)
    assert expiring(roles(**{role: limit + second}), NOW) == ()
    (found,) = expiring(roles(**{role: limit}), NOW)
    assert (found.role, found.left) == (role, limit)
    assert found.offline == (role in ("root", "targets", "models"))


def test_the_most_urgent_role_comes_first():
    found = expiring(
        roles(models=timedelta(days=12), root=timedelta(days=-1), timestamp=timedelta(hours=5)),
        NOW,
    )
    assert said(found) == "root has expired, timestamp expires in 5 h, models expires in 12 d"


def test_renewal_is_offered_before_anybody_is_warned():
    assert worth_renewing(roles(), NOW) == ()
    assert worth_renewing(roles(models=timedelta(days=45)), NOW) == ("models",)
    both = worth_renewing(roles(root=timedelta(days=95), targets=timedelta(days=130)), NOW)
    assert both == ("root", "targets")

"""What was usual when a rollout started stays what it was judged by."""

from __future__ import annotations

import pytest

from control_plane.rollout.spec import NO_SCORES, Condition, RolloutSpec, WaveSpec
from control_plane.store import Store, migrations
from control_plane.store.bundles import BundleRow
from control_plane.store.rollouts import Rollout
from protocol.identifiers import digest_of

BEFORE = [each for each in migrations.known() if each[0] < "m0013"]
CANDIDATE = digest_of(b"v2")
USUAL_BAD = Condition(("failed", "rolled_back", "silent"), ">", 10)
USUAL_GOOD = Condition(("healthy",), ">=", 95)


@pytest.mark.parametrize(
    "stored, expected",
    [
        (
            '{"model":"digits","version":"v2"}',
            RolloutSpec(
                "digits",
                "v2",
                waves=(WaveSpec(percent=100),),
                soak_s=0,
                error_condition=USUAL_BAD,
                success_condition=USUAL_GOOD,
                gates=NO_SCORES,
            ),
        ),
        (
            '{"error_condition":{"operator":">","percent":20.0,"phases":["failed"]},'
            '"model":"digits","soak_s":5.0,"version":"v2",'
            '"waves":[{"devices":3},{"percent":100.0}]}',
            RolloutSpec(
                "digits",
                "v2",
                waves=(WaveSpec(devices=3), WaveSpec(percent=100)),
                soak_s=5,
                error_condition=Condition(("failed",), ">", 20),
                success_condition=USUAL_GOOD,
                gates=NO_SCORES,
            ),
        ),
    ],
    ids=["everything as usual", "own waves and condition"],
)
def test_a_rollout_of_before_keeps_the_rules_that_it_was_judged_by(tmp_path, stored, expected):
    path = tmp_path / "store.sqlite"
    older = Store(path, changes=BEFORE)
    older.bundles.put(BundleRow(CANDIDATE, "digits", "v2", 1000, 0))
    started = Rollout(
        id="digits-1",
        model="digits",
        number=1,
        attempt=1,
        candidate=CANDIDATE,
        over=None,
        spec=expected,
        selector=None,
        salt="0" * 32,
        as_of=0,
        waves=(),
    )
    older.rollouts.put(started)
    with older.write() as connection:
        connection.execute("UPDATE rollout SET spec = ?", (stored,))
    older.close()
    store = Store(path)
    found = store.rollouts.get("digits-1")
    store.close()
    assert found is not None
    assert found.spec == expected

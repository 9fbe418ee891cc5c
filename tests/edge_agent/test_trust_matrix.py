"""The table of attacks on trust, carried out row by row."""

import pytest

from tests.attacks.matrix import ATTACKS
from tests.fakes.siege import Siege


@pytest.mark.parametrize("attack", ATTACKS, ids=[str(attack.number) for attack in ATTACKS])
def test_attack(tmp_path, attack):
    siege = Siege(tmp_path)
    told = attack.forge(siege)
    before = siege.trusted

    siege.hear(told)

    assert siege.refused == attack.refused
    assert attack.holds(siege)
    if attack.ending == "refused":
        assert siege.trusted == before
        siege.restart()
        assert siege.trusted == before
        siege.hear(told)
        assert siege.refused == attack.refused
        assert siege.trusted == before
    attack.recovery(siege)
    siege.tell_the_truth()
    assert siege.converged


def test_the_table_has_every_case_once():
    assert [attack.number for attack in ATTACKS] == list(range(1, 39))
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)

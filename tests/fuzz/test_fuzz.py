"""What the fuzzer found once stays refused, and a fuzzer that finds nothing would be none."""

import sys
from random import Random

import pytest

from coding import decoding, methods
from tests.fuzz import watch
from tests.fuzz.corpus import SEEDS, by_hand, by_the_encoder, keep, kept, read
from tests.fuzz.mutate import mutated


@pytest.mark.parametrize("case", [*kept(SEEDS), *by_the_encoder()])
def test_what_it_begins_with_is_refused_or_decoded(case):
    for written in (0, case.header.target_size // 2, case.header.target_size):
        assert watch.decoded(case, written) == ""


def test_there_is_one_of_each_method(monkeypatch):
    seen = set()
    honest = methods.decode

    def looking(data, context):
        seen.add(data[0])
        return honest(data, context)

    monkeypatch.setattr(methods, "decode", looking)
    for case in (*by_hand(), *by_the_encoder()):
        watch.decoded(case)
    assert seen == set(range(methods.ONE_OF + 1))


def test_wrong_payloads_are_refused_and_nothing_else_happens():
    random, cases = Random(7), [*by_hand(), *by_the_encoder()]
    for _ in range(300):
        case = mutated(random.choice(cases), random.choice(cases), random)
        assert watch.decoded(case, random.randint(0, case.header.target_size)) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_whoever_is_watched_answers_for_each():
    with watch.Watched() as watched:
        for case in by_hand():
            assert watched.wrong(case, 5) == ""


def test_a_decoder_that_gives_too_little_is_found(monkeypatch):
    monkeypatch.setattr(decoding, "blocks", lambda *_: iter([b"x"]))
    assert "it gave 1 of" in watch.decoded(by_hand()[0])


def test_findings_are_kept_as_files(tmp_path):
    for case in by_hand():
        assert read(keep(case, tmp_path)) == case
    assert len(kept(tmp_path)) == len(by_hand())

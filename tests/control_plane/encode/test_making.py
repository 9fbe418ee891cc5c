"""For each ability the smallest payload, and only one that became its file here."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coding import decoding
from control_plane.encode.encoded import reopen
from control_plane.encode.making import Ability, File, make
from control_plane.encode.search import Effort
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_RAW,
    FEATURE_SEGMENTS,
    FEATURE_ZSTD,
    HEADER_SIZE,
    KNOWN_FEATURES,
    MAX_DECODE_MEMORY,
    PLAIN_FEATURES,
    Header,
)
from tests.fakes import onnx_files as onnx

QUICK = Effort(level=3, lzma=True, refine=1)
EVERYTHING = Ability(KNOWN_FEATURES)
PLAIN = Ability(PLAIN_FEATURES)
STUDIED = Ability(PLAIN_FEATURES | FEATURE_SEGMENTS | FEATURE_PATCH | FEATURE_BSDIFF)
NUMBERS = Ability(PLAIN_FEATURES | FEATURE_SEGMENTS)
WEIGHTS = onnx.some_floats(20_000, 1)
OLD = onnx.weights(WEIGHTS[:15_000].reshape(100, 150), WEIGHTS[15_000:])
NEW = onnx.weights(
    onnx.trained_on(WEIGHTS[:15_000], 2, 1e-5).reshape(100, 150),
    onnx.trained_on(WEIGHTS[15_000:], 3, 1e-5),
)


def file(tmp_path, data, role="model", **more):
    path = tmp_path / digest_of(data)
    path.write_bytes(data)
    return File(path, digest_of(data), role, **more)


def made(tmp_path, target, base=None, abilities=(EVERYTHING,), **more):
    said: dict[str, Any] = {"effort": QUICK, "workers": 1, **more}
    return make(
        file(tmp_path, target),
        None if base is None else file(tmp_path, base),
        frozenset(abilities),
        tmp_path / "payloads",
        **said,
    )


def test_the_smallest_is_kept_and_found_again(tmp_path):
    (first,) = made(tmp_path, NEW)
    assert first.entry.features & FEATURE_SEGMENTS
    assert first.entry.size < 0.95 * len(NEW)
    assert reopen(tmp_path / "payloads", first.entry.payload) == first
    assert sum(1 for _ in (tmp_path / "payloads").iterdir()) == 3


def test_each_ability_has_its_own_smallest_and_equal_ones_are_made_once(tmp_path):
    payloads = made(tmp_path, NEW, abilities=[EVERYTHING, STUDIED, PLAIN, Ability(FEATURE_RAW)])
    sizes = [each.entry.size for each in payloads]
    assert sizes == sorted(sizes)
    assert len({each.entry.payload for each in payloads}) == len(payloads)
    plain = [each for each in payloads if not each.entry.features & ~PLAIN_FEATURES]
    assert [each.entry.features for each in plain] == [FEATURE_ZSTD] or len(NEW) * 0.98 < sizes[-1]


def test_a_delta_names_its_base_and_is_much_smaller(tmp_path):
    (full,) = made(tmp_path, NEW)
    (delta,) = made(tmp_path, NEW, OLD, below=full.entry.size)
    assert delta.entry.base == digest_of(OLD)
    assert delta.entry.size < 0.6 * full.entry.size
    header, _ = Header.unpack(delta.path.read_bytes()[:HEADER_SIZE])
    assert (header.base, header.target) == (digest_of(OLD), digest_of(NEW))
    assert header.features == delta.entry.features


def test_a_delta_that_saves_less_than_five_percent_is_not_made(tmp_path):
    other = onnx.weights(onnx.some_floats(20_000, 9))
    (full,) = made(tmp_path, other)
    assert made(tmp_path, other, OLD, below=full.entry.size) == ()
    assert made(tmp_path, NEW, OLD, below=600) == ()


@pytest.mark.parametrize("base", [None, OLD], ids=["full", "delta"])
def test_without_lzma_and_brotli_there_is_a_payload_without_them(tmp_path, base):
    (one,) = made(tmp_path, NEW, base, [STUDIED])
    assert not one.entry.features & (FEATURE_LZMA | FEATURE_BROTLI)
    assert not one.entry.features & ~STUDIED.features


def test_a_payload_never_names_a_feature_that_it_does_not_use(tmp_path):
    able = Ability(PLAIN_FEATURES | FEATURE_SEGMENTS | FEATURE_LZMA)
    used = set()
    for model in (OLD, onnx.forest(onnx.some_trees(8, 1))):
        (one,) = made(tmp_path, model, None, [able], effort=Effort(19))
        used.add(one.entry.features)
        if one.entry.features & FEATURE_LZMA:
            body = one.path.read_bytes()
            header, _ = Header.unpack(body)
            fewer = replace(header, features=FEATURE_SEGMENTS)
            with pytest.raises(PeerError):
                list(decoding.blocks(io.BytesIO(body[HEADER_SIZE:]), fewer, None))
    assert FEATURE_SEGMENTS | FEATURE_LZMA in used


def test_what_does_not_decode_to_its_file_is_never_returned_and_logged(
    tmp_path, monkeypatch, caplog
):
    honest = decoding.blocks

    def lying(source, header, base):
        for block in honest(source, header, base):
            yield bytes([block[0] ^ 1]) + block[1:] if header.features != FEATURE_ZSTD else block

    monkeypatch.setattr(decoding, "blocks", lying)
    text = b"one line like the other\n" * 300
    with caplog.at_level(logging.ERROR):
        (one,) = made(tmp_path, text)
    assert one.entry.features == FEATURE_ZSTD
    assert "a payload is not kept: it becomes" in caplog.text
    assert made(tmp_path, NEW, OLD) == ()
    assert sum(1 for _ in (tmp_path / "payloads").iterdir()) == 3


def test_equal_inputs_give_equal_payloads_whatever_the_number_of_workers(tmp_path):
    model = onnx.forest(onnx.some_trees(8, 1))
    assert made(tmp_path, model, workers=1) == made(tmp_path, model, workers=3)
    large = onnx.weights(onnx.some_floats(200_000, 1))
    trained = onnx.weights(onnx.trained_on(onnx.some_floats(200_000, 1), 1))
    alone, among = (made(tmp_path, trained, large, [NUMBERS], workers=each) for each in (1, 4))
    assert alone == among


@pytest.mark.parametrize("base", [None, OLD], ids=["full", "delta"])
def test_progress_goes_from_nothing_to_everything_and_never_back(tmp_path, base):
    told: list[tuple[int, int]] = []
    made(tmp_path, NEW, base, [EVERYTHING, STUDIED], tell=lambda *each: told.append(each))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1


def test_nothing_that_needs_more_memory_than_agents_grant_is_returned(tmp_path):
    for one in made(tmp_path, NEW, abilities=[EVERYTHING, STUDIED, PLAIN]):
        assert one.entry.decode_memory <= MAX_DECODE_MEMORY
    assert made(tmp_path, NEW, abilities=[Ability(KNOWN_FEATURES, 1_000)]) == ()
    (one,) = made(tmp_path, NEW, abilities=[Ability(KNOWN_FEATURES, 1_500_000)])
    assert one.entry.decode_memory <= 1_500_000


def test_files_without_numbers_are_patched(tmp_path):
    old = b"".join(b"line %d of many lines\n" % line for line in range(2_000))
    target = file(tmp_path, old.replace(b"line 7", b"LINE 7"), "source")
    (one,) = make(target, file(tmp_path, old, "source"), frozenset({EVERYTHING}), tmp_path / "p")
    assert one.entry.features == FEATURE_PATCH
    assert one.entry.size < 400


def test_a_file_of_weights_is_read_through_its_model(tmp_path):
    old, new = (onnx.some_floats(20_000, 4), onnx.trained_on(onnx.some_floats(20_000, 4), 5, 1e-5))
    model = file(tmp_path, onnx.external("weights.bin", [("w", 0, 80_000)])).path
    target = file(tmp_path, new.tobytes(), "weights", model=model)
    base = file(tmp_path, old.tobytes(), "weights", model=model, location="weights.bin")
    (known,) = make(target, base, frozenset({EVERYTHING}), tmp_path / "p", effort=QUICK)
    elsewhere = file(tmp_path, onnx.external("other.bin", [("w", 0, 80_000)])).path
    assert known.entry.features & FEATURE_SEGMENTS
    target = file(tmp_path, new.tobytes(), "weights", model=elsewhere, location="weights.bin")
    others = make(target, base, frozenset({EVERYTHING}), tmp_path / "p", effort=QUICK)
    assert known.entry.size < min(each.entry.size for each in others)


@pytest.mark.parametrize("which", ["target", "base"])
def test_a_file_that_changed_meanwhile_is_refused(tmp_path, which):
    files = {"target": file(tmp_path, NEW), "base": file(tmp_path, OLD)}
    files[which].path.write_bytes(b"changed")
    with pytest.raises(InvalidRequest):
        make(files["target"], files["base"], frozenset({EVERYTHING}), tmp_path / "p")
    assert list((tmp_path / "p").iterdir()) == []


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(InvalidRequest):
        made(tmp_path, b"")


def test_a_payload_that_asks_for_more_memory_than_agents_grant_is_made_again(tmp_path):
    (one,) = made(tmp_path, NEW)
    note = one.path.with_name(one.path.name + ".json")
    before = b'"decode_memory":%d' % one.entry.decode_memory
    note.write_bytes(note.read_bytes().replace(before, b'"decode_memory":9262144'))
    assert reopen(tmp_path / "payloads", one.entry.payload) is None


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_generated_models_come_back_as_they_were(tmp_path, data):
    old, new = (data.draw(onnx.models()).SerializeToString() or b"x" for _ in range(2))
    for base in (None, old):
        for ability in (EVERYTHING, STUDIED):
            # Whatever was made decoded to its target: `make` logs what did not.
            assert base is not None or made(tmp_path, new, base, [ability])


@pytest.mark.parametrize("base", [None, 1, 2])
def test_forests_come_back_as_they_were(tmp_path, base, caplog):
    trees = onnx.some_trees(12, 1)
    old = {None: None, 1: onnx.forest(trees[:10], 1), 2: onnx.forest(onnx.some_trees(9, 4), 2)}
    target = onnx.forest(trees, 1)
    (one,) = made(tmp_path, target, old[base], below=len(target))
    assert one.entry.features & FEATURE_SEGMENTS
    assert one.entry.size < len(target) / 5
    assert "not kept" not in caplog.text


def test_a_graph_edit_of_a_large_model_takes_few_bytes(tmp_path):
    weights = np.resize(onnx.some_floats(50_000, 1), 1_000_000).reshape(1000, 1000)
    old, new = (onnx.weights(weights, head=head) for head in ("", "an exporter"))
    (one,) = made(tmp_path, new, old)
    assert one.entry.size <= 170


def test_renaming_all_tensors_takes_few_bytes(tmp_path):
    weights = onnx.some_floats(400_000, 1).reshape(10, 200, 200)
    old = onnx.weights(*weights, names=[f"f.{place}.weight" for place in range(10)])
    new = onnx.weights(*weights, names=[f"onnx::Conv_{4 * place}" for place in range(10)])
    (one,) = made(tmp_path, new, old)
    assert one.entry.size <= 430

"""Whatever the encoder makes of real shapes of files, the devices' decoder makes the file of it:
in one go, from wherever it was cut off, and never anything else."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding import decoding
from control_plane.encode import container, segments
from control_plane.encode.layout import lay_out
from control_plane.encode.search import Effort
from edge_agent.decoder import Task, run
from protocol.errors import PeerError
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_LZMA, FEATURE_SEGMENTS, MAX_BLOCK, Header
from tests.control_plane.encode.test_whole import Held
from tests.fakes import onnx_files as onnx
from tests.golden.payloads import FOLDER

QUICK = Effort(3, lzma=False, refine=1)
ROOMY = Effort(19, lzma=True)
GOLDEN = sorted(FOLDER.glob("*.payload"))


@st.composite
def updates(draw):
    """`(target, segments of it, base or None, segments of that)`."""
    kind = draw(st.sampled_from(["model", "forest", "tensors", "external"]))
    seed = draw(st.integers(0, 99))
    if kind == "model":
        files = [draw(onnx.models()).SerializeToString() or b"x" for _ in range(2)]
    elif kind == "forest":
        trees = onnx.some_trees(draw(st.integers(1, 9)), seed, depth=4)
        options = {"classes": draw(st.integers(1, 3)), "features": draw(st.integers(1, 9))}
        files = [
            onnx.forest(
                trees[: draw(st.integers(1, len(trees)))], draw(st.integers(0, 3)), **options
            )
            for _ in range(2)
        ]
    else:
        old = onnx.some_floats(draw(st.integers(20, 9_000)), seed)
        share = draw(st.sampled_from([1e-7, 1e-4, 1e-1]))
        new = onnx.trained_on(old, seed, share)
        if draw(st.booleans()):
            new = np.where(np.arange(len(old)) % 7, old, new)
        if kind == "external":
            model = onnx.external("weights.bin", [("w", 0, old.nbytes)])
            (found,) = segments.find_external(model).values()
            return new.tobytes(), found, *((old.tobytes(), found) if seed % 3 else (None, ()))
        files = [onnx.weights(each, head="" if seed % 2 else "x") for each in (new, old)]
    target, base = files
    if not seed % 3:
        return target, segments.find(target), None, ()
    return target, segments.find(target), base, segments.find(base)


def payload(update, effort):
    target, found, base, base_found = update
    body = io.BytesIO()
    layout = lay_out(target, found, base, base_found)
    container.write(target, base, layout, body, effort, lambda _: None, workers=1)
    named = None if base is None else digest_of(base)
    features = FEATURE_SEGMENTS | FEATURE_LZMA
    header = Header(features, named, digest_of(target), len(target), MAX_BLOCK)
    return header, body.getvalue(), None if base is None else Held(base)


@settings(max_examples=40)
@given(updates(), st.sampled_from([QUICK, ROOMY]), st.data())
def test_a_file_comes_back_whole_and_from_wherever_decoding_was_cut_off(update, effort, data):
    target = update[0]
    header, body, base = payload(update, effort)
    assert b"".join(decoding.blocks(io.BytesIO(body), header, base)) == target
    written = data.draw(st.integers(0, len(target)))
    at, rest = decoding.resume(io.BytesIO(body), header, base, written)
    assert at <= written
    assert b"".join(rest) == target[at:]


@settings(max_examples=40)
@given(updates(), st.data())
def test_a_payload_that_is_cut_off_is_refused_and_gives_nothing_wrong(update, data):
    target = update[0]
    header, body, base = payload(update, QUICK)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    found = bytearray()
    with pytest.raises(PeerError):
        deque(_kept(decoding.blocks(io.BytesIO(cut), header, base), found), maxlen=0)
    assert target.startswith(bytes(found))


def _kept(blocks: Iterator[bytes], found: bytearray) -> Iterator[bytes]:
    """`blocks`, each in `found` as well."""
    for block in blocks:
        found += block
        yield block


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_device_goes_on_after_any_crash(path: Path, tmp_path):
    target, base = path.with_suffix(".target"), path.with_suffix(".base")
    whole = target.read_bytes()
    out = tmp_path / "out"
    task = Task(
        os.getppid(), path, out, digest_of(whole), len(whole), base if base.exists() else None
    )
    for written in sorted({0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)}):
        # What was written is what was to be written, or a power cut left zeros of it.
        for left in (whole[:written], bytes(written)):
            out.write_bytes(left)
            run(task, decoding.resume)
            assert out.read_bytes() == whole

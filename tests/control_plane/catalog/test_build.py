"""From a model to a bundle that a device's own code can read and run."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from control_plane.catalog import CardFields, Outputs, build
from control_plane.catalog.layout import read
from control_plane.catalog.report import report
from edge_agent.runner.bundle import read_bundle, read_golden
from edge_agent.runner.probe import difference
from protocol.bundle import Needs, decode_index
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.members import DevPolicy, Policy, Source
from tests.control_plane.catalog.onnx_files import (
    classifier,
    model,
    rows,
    save,
    save_external,
    unary,
    value,
)


def built(tmp_path, proto=None, **options):
    path = save(proto or classifier(), tmp_path / "net.onnx")
    samples = options.pop("samples", {"pixels": rows()})
    return build(path, samples, "net/v1", into=tmp_path, **options)


def on_a_device(bundle, folder: Path) -> Path:
    """The members at their paths, as an agent stages them."""
    layout = read(bundle.directory)
    folder.mkdir()
    shutil.copy(bundle.directory / "index.json", folder)
    shutil.copy(layout.path(bundle.manifest), folder / "manifest.json")
    for member in layout.variants[0].members:
        shutil.copy(layout.path(member.digest), folder / member.path)
    return folder


def test_a_bundle_is_an_oci_layout_whose_index_is_its_identity(tmp_path):
    bundle = built(tmp_path)
    index = (tmp_path / "net-v1.bundle" / "index.json").read_bytes()
    assert bundle.digest == digest_of(index)
    assert (decode_index(index).model, decode_index(index).version) == ("net", "v1")
    assert decode_index(index).variants[0].needs == Needs(onnxruntime="1.12")
    layout = read(bundle.directory)
    assert layout.digest == bundle.digest
    assert layout.size == bundle.size_bytes
    assert layout.contract(layout.variants[0]) == bundle.contract
    assert layout.profile(layout.variants[0]) == bundle.profile
    assert layout.card(layout.variants[0]) == bundle.card


def test_equal_inputs_give_equal_bytes_wherever_they_are_built(tmp_path):
    bundles = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        bundles.append(built(tmp_path / name, card=CardFields(created="2026-11-20T09:10:00Z")))
    first, second = (
        {p.relative_to(b.directory): p.read_bytes() for p in b.directory.rglob("*") if p.is_file()}
        for b in bundles
    )
    assert first == second


def test_the_agent_reads_the_bundle_and_its_golden_vectors_reproduce(tmp_path):
    import onnxruntime

    folder = on_a_device(built(tmp_path), tmp_path / "device")
    bundle = read_bundle(folder)
    golden = read_golden(bundle)
    session = onnxruntime.InferenceSession(str(bundle.file("model")))
    names = [each.name for each in session.get_outputs()]
    got = dict(zip(names, session.run(names, dict(golden.inputs)), strict=True))
    assert len(golden.inputs["pixels"]) == 32
    assert difference(bundle.contract, golden.outputs, got) is None
    assert (
        difference(bundle.contract, golden.outputs, got | {"label": got["label"] + 1}) is not None
    )


def test_external_data_travels_with_the_bundle(tmp_path):
    import onnxruntime

    path = save_external(classifier(), tmp_path / "net.onnx", "data/w.bin")
    bundle = build(path, {"pixels": rows()}, "net/v1", into=tmp_path)
    folder = on_a_device(bundle, tmp_path / "device")
    assert (folder / "weights-0.bin").read_bytes() == (tmp_path / "data/w.bin").read_bytes()
    onnxruntime.InferenceSession(str(folder / "model.onnx"))


def test_large_weights_move_into_a_file_that_a_device_can_map(tmp_path):
    import onnxruntime

    large = built(tmp_path, classifier(hidden=1_000_000))
    folder = on_a_device(large, tmp_path / "device")
    assert (folder / "model.onnx").stat().st_size < 10_000
    assert (folder / "weights.bin").stat().st_size >= 4 * 8_000_000
    shipped = onnx.load(folder / "model.onnx", load_external_data=False)
    kept = {each.name: each for each in shipped.graph.initializer}
    assert kept["fc.bias"].data_location == TensorProto.DEFAULT
    said = {entry.key: entry.value for entry in kept["fc.weight"].external_data}
    assert said["location"] == "weights.bin"
    assert int(said["offset"]) % 4096 == 0
    golden = read_golden(read_bundle(folder))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    got = dict(
        zip(golden.outputs, session.run(list(golden.outputs), dict(golden.inputs)), strict=True)
    )
    assert difference(large.contract, golden.outputs, got) is None


def test_the_same_large_model_gives_the_same_bundle(tmp_path):
    (tmp_path / "again").mkdir()
    first, second = (
        built(folder, classifier(hidden=500_000)) for folder in (tmp_path, tmp_path / "again")
    )
    assert first.digest == second.digest


def test_moved_weights_do_not_take_the_name_of_external_data(tmp_path):
    proto = classifier(hidden=1_000_000)
    path = save(proto, tmp_path / "net.onnx")
    loaded = onnx.load(path)
    bias = next(each for each in loaded.graph.initializer if each.name == "conv1.bias")
    (tmp_path / "weights.bin").write_bytes(bias.raw_data)
    bias.ClearField("raw_data")
    bias.data_location = TensorProto.EXTERNAL
    bias.external_data.add(key="location", value="weights.bin")
    onnx.save(loaded, path)
    bundle = build(path, {"pixels": rows()}, "net/v1", into=tmp_path)
    folder = on_a_device(bundle, tmp_path / "device")
    assert {each.name for each in folder.glob("*.bin")} == {"weights.bin", "more-weights.bin"}


def test_contract_and_roles_are_taken_from_what_the_model_does(tmp_path):
    contract = built(tmp_path).contract
    assert [(spec.name, spec.role) for spec in contract.outputs] == [
        ("label", "label"),
        ("probabilities", "probabilities"),
    ]
    assert contract.classes == ("0", "1", "2")
    assert contract.inputs[0].minimum == pytest.approx(rows().min())
    assert contract.inputs[0].maximum == pytest.approx(rows().max())


LOGITS = model(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    constants={"w": np.eye(4, dtype=np.float32)},
)


def test_outputs_whose_rows_do_not_sum_to_one_are_no_probabilities(tmp_path):
    bundle = built(tmp_path, LOGITS, samples={"x": rows()})
    assert bundle.contract.outputs[0].role == "other"
    assert (bundle.contract.classes, bundle.profile.confidence) == ((), ())


@pytest.mark.parametrize(
    "said,why",
    [
        (Outputs(roles={"nothing": "label"}), "nothing"),
        (Outputs(roles={"label": "king"}), "king"),  # type: ignore[dict-item]  # that is the point
        (Outputs(classes=("a", "b")), "2 classes, probabilities has 3"),
    ],
)
def test_what_is_said_of_outputs_must_fit_the_model(tmp_path, said, why):
    with pytest.raises(InvalidRequest, match="S120") as caught:
        built(tmp_path, outputs=said)
    assert why in caught.value.why


def test_roles_and_classes_may_be_said(tmp_path):
    said = Outputs(roles={"label": "other"}, classes=("cat", "dog", "owl"))
    contract = built(tmp_path, outputs=said).contract
    assert contract.output("label") is None
    assert contract.classes == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    "samples,why",
    [
        ({"pixels": rows(), "more": rows()}, "the model's inputs are pixels"),
        ({"pixels": rows(width=5)}, "wanted \\[-1, 4\\]"),
        ({"pixels": rows()[0]}, "wanted \\[-1, 4\\]"),
        ({"pixels": rows(0)}, "0 rows"),
        ({}, "arrays none"),
        ({"pixels": np.array([["a"] * 4])}, "type <U1"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, samples, why):
    with pytest.raises(InvalidRequest, match="B108.*" + why):
        built(tmp_path, samples=samples)


def test_one_array_fits_one_input_whatever_it_is_called(tmp_path):
    named = built(tmp_path).digest
    assert built(tmp_path, samples={"arr_0": rows().astype(np.float64)}).digest == named


def test_fewer_rows_than_golden_vectors_give_as_many_vectors(tmp_path):
    assert built(tmp_path, samples={"pixels": rows(5)}).golden == 5


def test_a_model_of_a_fixed_batch_has_one_batch_of_golden_vectors(tmp_path):
    bundle = built(tmp_path, classifier(batch=8))
    assert bundle.golden == 8
    assert bundle.profile == built(tmp_path).profile
    assert bundle.contract.inputs[0].shape == (8, 4)


RANDOM = model(
    [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
)
SEEDED = model(
    [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], seed=3.0),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
)


@pytest.mark.parametrize("proto", [RANDOM, SEEDED], ids=["unseeded", "seeded"])
def test_random_operators_do_not_reproduce_and_are_named(tmp_path, proto):
    with pytest.raises(InvalidRequest, match="B110") as caught:
        built(tmp_path, proto, samples={"x": rows()})
    assert "two runs differ by" in caught.value.why
    assert caught.value.do.startswith("remove RandomNormalLike (node 0)")


@pytest.mark.parametrize("operator", ["Log", "Sqrt", "Reciprocal"])
def test_answers_that_are_not_finite_are_refused(tmp_path, operator):
    samples = rows()
    samples[:, 0] = 0 if operator != "Sqrt" else -1
    with pytest.raises(InvalidRequest, match=r"B111.*32 of 32 samples"):
        built(tmp_path, unary(operator), samples={"x": samples})


def test_a_model_that_does_not_answer_row_by_row_is_refused(tmp_path):
    proto = model(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        outputs=[value("y", TensorProto.FLOAT, [])],
    )
    with pytest.raises(InvalidRequest, match="B108"):
        built(tmp_path, proto, samples={"x": rows()})


def test_development_intervals_are_in_the_policy_only_when_asked_for(tmp_path):
    assert built(tmp_path).policy == Policy()
    assert built(tmp_path, dev=True).policy == Policy(dev=DevPolicy())
    layout = read(tmp_path / "net-v1.bundle")
    assert layout.policy(layout.variants[0]).dev == DevPolicy()


def test_needs_are_kept_and_raised_to_what_the_model_needs(tmp_path):
    needs = Needs(arch=("aarch64",), ram_bytes=96_000_000)
    assert built(tmp_path, needs=needs).needs == Needs(("aarch64",), "1.12", 96_000_000)
    assert built(tmp_path, needs=Needs(onnxruntime="1.20")).needs.onnxruntime == "1.20"


@pytest.mark.parametrize("reference", ["digits", "Digits/v1", "digits/", "a/b/c", "../x/v1"])
def test_a_reference_is_model_and_version(tmp_path, reference):
    path = save(classifier(), tmp_path / "net.onnx")
    with pytest.raises(InvalidRequest, match="S120"):
        build(path, {"pixels": rows()}, reference, into=tmp_path)


def test_building_again_replaces_a_bundle_but_nothing_else(tmp_path):
    first = built(tmp_path)
    second = built(tmp_path, classifier(seed=1))
    assert read(second.directory).digest != first.digest
    shutil.rmtree(second.directory)
    second.directory.mkdir()
    (second.directory / "thesis.txt").write_text("precious")
    with pytest.raises(InvalidRequest, match="in the way"):
        built(tmp_path)
    assert (second.directory / "thesis.txt").read_text() == "precious"


def test_a_refused_model_leaves_nothing_behind(tmp_path):
    with pytest.raises(InvalidRequest):
        built(tmp_path, RANDOM, samples={"x": rows()})
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_the_card_says_what_the_builder_said(tmp_path):
    fields = CardFields(risk_class="minimal", data=(Source("lakefs://d", "3f9c1e"),))
    card = built(tmp_path, card=fields).card
    assert (card.risk_class, card.rows, card.data[0].revision) == ("minimal", 200, "3f9c1e")


def test_the_report_has_the_lines_that_people_read(tmp_path):
    lines = dict(report(built(tmp_path, card=CardFields("", "d", "l", "u", "x"))))
    assert lines["checks"] == "ONNX ok, opset 17 (onnxruntime >= 1.12), no custom ops"
    assert lines["contract"].startswith("pixels float32[-1,4] in -")
    assert lines["contract"].endswith("-> label int64[-1], probabilities float32[-1,3]")
    assert lines["profile"] == "4 features, 200 rows      golden 32 vectors, reproduced twice"
    assert lines["card"] == "empty: risk_class (a policy may ask for it)"
    assert lines["wrote"].startswith("net-v1.bundle  sha256-")

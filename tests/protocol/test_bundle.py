"""Bundles: OCI documents that an agent can trust the shape of."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import bundle, safetensors
from protocol.bundle import Facts, Index, Member, Needs, Variant, VariantReference, unfit
from protocol.codec import MAX_INDEX
from protocol.errors import NotUnderstood, PeerError

D = "sha256-" + "c" * 64
MEMBERS = tuple(Member(role, f"{role}.bin", D, 5) for role in sorted(bundle.REQUIRED_ROLES))
VARIANT = Variant(MEMBERS)
INDEX = Index("digits", "v1", (VariantReference(D, 900, Needs(arch=("aarch64",))),))


def test_index_and_manifest_survive_the_wire():
    assert bundle.decode_index(bundle.encode_index(INDEX)) == INDEX
    decoded = bundle.decode_manifest(bundle.encode_manifest(VARIANT))
    assert set(decoded.members) == set(VARIANT.members)


def changed(data: bytes, **changes) -> bytes:
    return json.dumps(json.loads(data) | changes).encode()


INDEX_BYTES = bundle.encode_index(INDEX)
MANIFEST_BYTES = bundle.encode_manifest(VARIANT)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a list"),
        pytest.param(INDEX_BYTES[:-1], id="cut short"),
        pytest.param(MANIFEST_BYTES, id="a manifest"),
        pytest.param(changed(INDEX_BYTES, schemaVersion=1), id="schema 1"),
        pytest.param(changed(INDEX_BYTES, manifests=[]), id="no variant"),
        pytest.param(changed(INDEX_BYTES, manifests={}), id="no list"),
        pytest.param(changed(INDEX_BYTES, manifests=[1]), id="no descriptor"),
        pytest.param(changed(INDEX_BYTES, annotations=[]), id="no annotations"),
        pytest.param(changed(INDEX_BYTES, annotations={}), id="no name"),
        pytest.param(b" " * (MAX_INDEX + 1), id="too large"),
    ],
)
def test_a_document_that_is_no_index_is_the_peers_fault(data):
    with pytest.raises(PeerError):
        bundle.decode_index(data)


@given(st.dictionaries(st.sampled_from(list(json.loads(MANIFEST_BYTES))), st.from_type(type)))
def test_no_shape_of_json_crashes_the_reader(changes):
    data = changed(MANIFEST_BYTES, **dict.fromkeys(changes))
    try:
        bundle.decode_manifest(data)
    except PeerError:
        return


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/b", "", ".hidden", "a\0b", "a b", "x" * 200]
)
def test_a_member_cannot_leave_its_bundle(path):
    with pytest.raises(ValueError):
        Member("model", path, D, 5)


def test_a_member_role_from_the_future_is_not_understood():
    with pytest.raises(NotUnderstood):
        Member("telepathy", "x", D, 5)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param(MEMBERS[1:], id="one is missing"),
        pytest.param((*MEMBERS, MEMBERS[0]), id="one twice"),
        pytest.param((*MEMBERS, Member("weights", MEMBERS[0].path, D, 5)), id="one path twice"),
    ],
)
def test_a_manifest_has_each_role_once(members):
    with pytest.raises(ValueError):
        Variant(members)


def test_must_understand_of_an_index_comes_before_its_shape():
    data = changed(INDEX_BYTES, annotations={bundle.MUST_UNDERSTAND: "bundle/1,quantum/1"})
    with pytest.raises(NotUnderstood) as caught:
        bundle.decode_index(data)
    assert caught.value.names == ("quantum/1",)


HERE = Facts(arch="aarch64", onnxruntime="1.31.1", ram_bytes=10**9, agent="0.1.0.dev0")


@pytest.mark.parametrize(
    "needs, fits",
    [
        pytest.param(Needs(), True, id="anything"),
        pytest.param(Needs(arch=("x86_64", "aarch64")), True, id="one of the architectures"),
        pytest.param(Needs(arch=("x86_64",)), False, id="another architecture"),
        pytest.param(Needs(onnxruntime="1.9"), True, id="versions are numbers, not text"),
        pytest.param(Needs(onnxruntime="1.32"), False, id="too old a runtime"),
        pytest.param(Needs(ram_bytes=2 * 10**9), False, id="too little memory"),
        pytest.param(Needs(agent="0.2"), False, id="too old an agent"),
    ],
)
def test_needs_are_compared_with_facts(needs, fits):
    assert (unfit(needs, HERE) is None) is fits
    index = Index("m", "v", (VariantReference(D, 1, needs),))
    assert (index.choose(HERE) is not None) is fits


def test_the_first_variant_that_fits_is_chosen():
    other = "sha256-" + "d" * 64
    index = Index(
        "m", "v", (VariantReference(D, 1, Needs(arch=("x86_64",))), VariantReference(other, 1))
    )
    chosen = index.choose(HERE)
    assert chosen is not None
    assert chosen.digest == other


TENSORS = {"input:x": ("FP32", (2, 2), b"\0" * 16), "output:y": ("INT64", (2,), b"\1" * 16)}


def test_golden_vectors_survive_their_file():
    data = safetensors.build(TENSORS)
    views = safetensors.parse_header(data)
    assert {
        name: (view.datatype, view.shape, data[view.start : view.stop])
        for name, view in views.items()
    } == TENSORS


TEXTS = {
    "input:city": ("BYTES", (2, 1), b"\5\0\0\0leeds\0\0\0\0"),
    "input:raw": ("UINT8", (4,), b"\0\1\2\3"),
}


def test_texts_lie_in_a_row_of_bytes_and_say_so():
    data = safetensors.build(TENSORS | TEXTS)
    views = safetensors.parse_header(data)
    assert {
        name: (view.datatype, view.shape, data[view.start : view.stop])
        for name, view in views.items()
    } == TENSORS | TEXTS
    # Whoever does not know of texts sees bytes, not a file that is damaged.
    header = json.loads(data[8 : data.index(b"}}") + 2])
    assert header["input:city"]["dtype"] == "U8"
    assert b"__metadata__" not in safetensors.build(TENSORS)


def test_metadata_of_others_mean_nothing():
    data = safetensors.build(TENSORS | TEXTS).replace(b"BYTES 2,1", b"text, 2,1")
    assert safetensors.parse_header(data)["input:city"].datatype == "UINT8"


@pytest.mark.parametrize(
    "said", [b"BYTES 9,9", b"BYTES -,1", b"BYTES -2,", b"BYTES 2.1"], ids=bytes.decode
)
def test_texts_of_a_shape_that_cannot_be_are_refused(said):
    data = safetensors.build(TENSORS | TEXTS)
    assert b"BYTES 2,1" in data
    with pytest.raises(PeerError):
        safetensors.parse_header(data.replace(b"BYTES 2,1", said))


def test_only_a_row_of_bytes_can_be_text():
    data = safetensors.build(TENSORS | TEXTS)
    other = data.replace(b'"input:city":"BYTES 2,1"', b'"output:y":"BYTES 2,1"  ')
    assert other != data
    with pytest.raises(PeerError, match="row of bytes"):
        safetensors.parse_header(other)


GOOD = safetensors.build(TENSORS)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(GOOD[:-1], id="cut short"),
        pytest.param(b"\xff" * 8 + GOOD[8:], id="a header of 16 EiB"),
        pytest.param(GOOD[:8] + b"[" + GOOD[9:], id="no JSON"),
        pytest.param(GOOD.replace(b"[2,2]", b"[9,9]"), id="shape and size disagree"),
        pytest.param(GOOD.replace(b'"F32"', b'"F99"'), id="unknown type"),
    ],
)
def test_a_damaged_tensor_file_is_refused(data):
    with pytest.raises(PeerError):
        safetensors.parse_header(data)

"""What is read from disk is a bundle down to the last byte."""

import json
import shutil

import pytest

from control_plane.catalog import build
from control_plane.catalog.layout import BLOBS, read, write
from protocol.bundle import Index, Member, Variant, VariantReference, encode_index, encode_manifest
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_hex, digest_of
from tests.control_plane.catalog.onnx_files import classifier, rows, save


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    path = save(classifier(), folder / "net.onnx")
    return build(path, {"pixels": rows()}, "net/v1", into=folder).directory


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "net-v1.bundle")


def test_every_file_is_checked_for_damage_and_absence(bundle):
    whole = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert read(bundle).index.version == "v1"
    for path, data in whole.items():
        for damage in (data[:-1], data + b"\n", data[:9] + b"\xff" + data[10:], b"", None):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            if path.name in ("index.json", "oci-layout") and damage == data + b"\n":
                continue  # the same JSON; another identity, though
            with pytest.raises(InvalidRequest, match="B120"):
                read(bundle)
        path.write_bytes(data)


def test_white_space_in_an_index_is_another_identity(bundle):
    before = read(bundle).digest
    (bundle / "index.json").write_bytes((bundle / "index.json").read_bytes() + b"\n")
    assert read(bundle).digest != before


def test_links_are_not_followed(bundle, tmp_path):
    member = next((bundle / BLOBS).iterdir())
    shutil.move(member, tmp_path / "elsewhere")
    member.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidRequest, match="B120"):
        read(bundle)


@pytest.mark.parametrize("marker", [b"", b"{", b"[]", b'{"imageLayoutVersion":"2.0"}', b"[" * 999])
def test_another_layout_is_refused(bundle, marker):
    (bundle / "oci-layout").write_bytes(marker)
    with pytest.raises(InvalidRequest, match="B120"):
        read(bundle)


@pytest.mark.parametrize(
    "role,data",
    [
        ("contract", b"{}"),
        ("contract", b'{"inputs":[]}'),
        ("profile", b'{"rows":-1}'),
        ("policy", b'{"must_understand":["policy/99"]}'),
        ("card", b"[]"),
        ("golden", b"\xff" * 64),
    ],
)
def test_members_are_read_and_not_only_hashed(bundle, tmp_path, role, data):
    layout = read(bundle)
    members = []
    blobs = {}
    for member in layout.variants[0].members:
        content = data if member.role == role else layout.path(member.digest).read_bytes()
        members.append(Member(member.role, member.path, digest_of(content), len(content)))
        blobs[digest_of(content)] = content
    manifest = encode_manifest(Variant(tuple(members)))
    reference = VariantReference(digest_of(manifest), len(manifest))
    index = encode_index(Index("net", "v1", (reference,)))
    with pytest.raises(InvalidRequest, match="B120"):
        write(tmp_path / "out.bundle", index, {**blobs, digest_of(manifest): manifest})
    assert not (tmp_path / "out.bundle").exists()


def test_a_manifest_of_another_size_than_the_index_says_is_refused(bundle):
    index = json.loads((bundle / "index.json").read_bytes())
    index["manifests"][0]["size"] += 1
    (bundle / "index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidRequest, match="manifest"):
        read(bundle)


def test_paths_are_inside_the_bundle(bundle):
    layout = read(bundle)
    for member in layout.members():
        assert layout.path(member.digest) == bundle / BLOBS / digest_hex(member.digest)

"""A bundle fetched by an approver: every byte is checked, and nobody reads more than is claimed."""

import json

import pytest

from control_plane.signing.evidence import fetch
from protocol.bundle import INDEX_TYPE, MAX_VARIANTS, encode_index
from protocol.errors import TrustError
from protocol.identifiers import digest_of
from protocol.members import Policy
from protocol.payload import MAX_PAYLOAD
from tests.fakes.bundles import make_bundle

PATH = "models/digits/v1"
BLOCK = 100


class Server:
    """Gives what it has, in blocks, and counts what was read."""

    def __init__(self, *contents):
        self.files = {digest_of(data): data for data in contents}
        self.read_bytes = 0
        self.asked = []

    def __call__(self, digest):
        self.asked.append(digest)
        data = self.files[digest]
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            self.read_bytes += len(block)
            yield block


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path, "digits", "v1", policy=Policy(min_requests=7))


@pytest.fixture
def server(bundle):
    return Server(*(path.read_bytes() for path in bundle.path.iterdir()))


def index_of(bundle):
    return (bundle.path / "index.json").read_bytes()


def fetched(server, index, path=PATH, **more):
    server.files[digest_of(index)] = index
    return fetch(server, path, digest_of(index), len(index), **more)


def test_everything_is_fetched_and_what_is_shown_is_read(bundle, server):
    told = []
    found = fetched(server, index_of(bundle), progress=lambda *at: told.append(at))

    sizes = {member.digest: member.size for member in bundle.variant.members}
    assert found.size_bytes == sum(sizes.values())
    assert set(server.asked) == {bundle.digest, bundle.manifest, *sizes}
    assert (found.contracts, found.policies[0].min_requests) == ((bundle.contract,), 7)
    assert (found.card.model, found.index) == ("digits", bundle.index)
    assert told[-1] == (found.size_bytes, found.size_bytes)
    assert told == sorted(told)


def test_of_a_version_to_compare_with_only_documents_are_fetched(bundle, server):
    fetched(server, index_of(bundle), whole=False)
    assert bundle.variant.member("model").digest not in server.asked
    assert bundle.variant.member("card").digest in server.asked


@pytest.mark.parametrize("role", ["model", "golden", "contract", "card"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: b"",
    ],
    ids=["shorter", "longer", "another byte", "empty"],
)
def test_bytes_that_are_not_what_was_signed_are_refused(bundle, server, role, damage):
    member = bundle.variant.member(role)
    server.files[member.digest] = damage(server.files[member.digest])
    with pytest.raises(TrustError, match="T103"):
        fetched(server, index_of(bundle))


@pytest.mark.parametrize("which", ["index", "manifest"])
def test_another_document_under_the_same_digest_is_refused(bundle, server, which):
    digest = bundle.digest if which == "index" else bundle.manifest
    server.files[digest] = server.files[digest].replace(b"digits", b"bigits")[::-1]
    with pytest.raises(TrustError, match="T103"):
        fetch(server, PATH, bundle.digest, len(index_of(bundle)))


def test_a_server_that_never_stops_is_left_at_the_claimed_size(bundle, server):
    member = bundle.variant.member("model")

    def endless(digest):
        if digest != member.digest:
            yield from server(digest)
            return
        while True:
            server.read_bytes += BLOCK
            yield b"x" * BLOCK

    with pytest.raises(TrustError, match="more than"):
        fetch(endless, PATH, bundle.digest, len(index_of(bundle)))
    assert server.read_bytes < sum(len(data) for data in server.files.values()) + 2 * BLOCK


@pytest.mark.parametrize("length", [0, -1, 64 * 1024 + 1, 2**63])
def test_an_index_of_no_length_is_not_even_asked_for(bundle, server, length):
    with pytest.raises(TrustError, match="T114"):
        fetch(server, PATH, bundle.digest, length)
    assert server.asked == []


def test_a_bundle_of_another_name_is_refused(bundle, server):
    for path in ("models/digits/v2", "models/other/v1"):
        with pytest.raises(TrustError, match="calls itself digits/v1"):
            fetched(server, index_of(bundle), path)


def rewritten(bundle, server, edit):
    """The bundle with a manifest that was edited, properly digested: the server is the builder."""
    manifest = json.loads((bundle.path / "manifest.json").read_bytes())
    edit(manifest)
    data = json.dumps(manifest).encode()
    server.files[digest_of(data)] = data
    index = json.loads(index_of(bundle))
    reference = index["manifests"][0]
    reference["digest"], reference["size"] = digest_of(data).replace("-", ":"), len(data)
    return json.dumps(index).encode()


def name(path):
    return lambda manifest: manifest["layers"][0]["annotations"].update(
        {"org.cncf.model.filepath": path}
    )


def size(value):
    return lambda manifest: manifest["layers"][0].update({"size": value})


@pytest.mark.parametrize(
    "edit",
    [
        name("../../etc/passwd"),
        name("/etc/passwd"),
        name("a/b"),
        name(".."),
        name(""),
        name("a\0b"),
        size(0),
        size(-1),
        size(MAX_PAYLOAD + 1),
        size(2**63),
        size("12"),
        size(1.5),
        lambda manifest: manifest["layers"].pop(),
        lambda manifest: manifest["layers"].extend(manifest["layers"] * 20),
        lambda manifest: manifest["layers"][0].update({"digest": "sha256:../../x"}),
        lambda manifest: manifest["layers"][0]["annotations"].update({"dev.outrider.role": "link"}),
        lambda manifest: manifest["annotations"].update(
            {"dev.outrider.must-understand": "bundle/1,future/1"}
        ),
        lambda manifest: manifest.update({"mediaType": "application/x-tar"}),
    ],
    ids=[
        "traversal", "absolute", "folder", "parent", "no name", "nul", "empty", "negative",
        "above the limit", "2^63", "size as text", "half a byte", "a member is missing",
        "members twice", "no digest", "a role nobody knows", "from the future", "no manifest",
    ],
)  # fmt: skip
def test_a_bundle_that_no_device_would_take_is_refused(bundle, server, edit):
    index = rewritten(bundle, server, edit)
    with pytest.raises(TrustError, match="T114"):
        fetched(server, index)
    assert not {member.digest for member in bundle.variant.members} & set(server.asked)


def test_claims_are_added_up_before_anything_is_fetched(bundle, server):
    each = MAX_PAYLOAD // 2 + 1
    index = rewritten(
        bundle,
        server,
        lambda manifest: [layer.update({"size": each}) for layer in manifest["layers"]],
    )
    with pytest.raises(TrustError, match="claims"):
        fetched(server, index)
    assert not {member.digest for member in bundle.variant.members} & set(server.asked)


def test_one_content_has_one_size(bundle, server):
    def edit(manifest):
        manifest["layers"][1]["digest"] = manifest["layers"][0]["digest"]

    with pytest.raises(TrustError, match="two sizes"):
        fetched(server, rewritten(bundle, server, edit))


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"{}",
        b"[" * 10_000,
        json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE}).encode(),
    ],
    ids=["nothing", "empty", "deep", "without members"],
)
def test_what_is_no_index_is_refused(server, index):
    with pytest.raises(TrustError, match="T114"):
        fetched(server, index)


def test_many_variants_are_no_index(bundle, server):
    index = json.loads(encode_index(bundle.index))
    index["manifests"] *= MAX_VARIANTS + 1
    with pytest.raises(TrustError, match="T114"):
        fetched(server, json.dumps(index).encode())

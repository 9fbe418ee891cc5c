"""A bundle as a stream: what comes in is exactly a bundle, or nothing."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.catalog import build
from control_plane.catalog.archive import Unpacker, pack, packed_size
from control_plane.catalog.layout import BLOBS, read
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from tests.control_plane.catalog.onnx_files import classifier, rows, save


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    path = save(classifier(), folder / "net.onnx")
    return build(path, {"pixels": rows()}, "net/v1", into=folder).directory


@pytest.fixture(scope="module")
def packed(bundle) -> bytes:
    return b"".join(pack(bundle))


def unpack(data: bytes, folder: Path, piece: int = 1 << 20, **options: int):
    unpacker = Unpacker(folder, **options)
    try:
        for start in range(0, len(data), piece):
            unpacker.feed(data[start : start + piece])
        return unpacker.finish()
    except InvalidRequest:
        unpacker.discard()
        assert not folder.exists()
        raise


def tar_of(*files: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, data in files:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def named(name: str, data: bytes = b"{}", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


@pytest.mark.parametrize("piece", [1, 511, 512, 513, 1 << 20])
def test_a_bundle_survives_the_stream_however_it_is_cut_into_pieces(
    bundle, packed, tmp_path, piece
):
    # One byte at a time only through the small files at the front.
    data = packed if piece > 1 else packed[: 4096 * 3]
    if piece == 1:
        unpacker = Unpacker(tmp_path / "in")
        for byte in data:
            unpacker.feed(bytes([byte]))
        unpacker.feed(packed[len(data) :])
        layout = unpacker.finish()
    else:
        layout = unpack(data, tmp_path / "in", piece)
    assert layout.digest == read(bundle).digest
    assert b"".join(pack(layout.directory)) == packed


def test_the_size_of_the_stream_is_known_before(bundle, packed):
    assert packed_size(bundle) == len(packed)


def test_other_tar_programs_read_ours_and_we_read_theirs(bundle, packed, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
        assert all(member.isreg() and member.mtime == 0 for member in archive)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        theirs = tar_of(*(named(n, (bundle / n).read_bytes()) for n in names), form=form)
        assert unpack(theirs, tmp_path / f"in{form}").digest == read(bundle).digest


HEX = "0" * 64
BAD_NAMES = [
    "../index.json",
    "/etc/passwd",
    "./index.json",
    "index.json/",
    "blobs/sha256/../../x",
    f"blobs/sha256/{HEX.upper().replace('0', 'A')}",
    f"blobs/sha256/{HEX}0",
    f"blobs/sha512/{HEX}",
    f"blobs/sha256/{HEX}\n",
    "blobs",
    "model.onnx",
    "",
    " index.json",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_hostile_names_are_refused(tmp_path, name):
    with pytest.raises(InvalidRequest, match="B120"):
        unpack(tar_of(named(name)), tmp_path / "in")
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=99))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_name_ever_leaves_the_folder(tmp_path, name):
    folder = tmp_path / "in"
    if name not in ("oci-layout", "index.json"):
        with pytest.raises(InvalidRequest, match="B120"):
            unpack(tar_of(named(name), form=tarfile.GNU_FORMAT), folder)
    assert list(tmp_path.iterdir()) == []


KINDS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
    "directory": tarfile.DIRTYPE,
    "contiguous": tarfile.CONTTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_only_regular_files_are_taken(tmp_path, kind):
    data = tar_of(named("index.json", b"", type=kind, linkname="/etc/passwd"))
    with pytest.raises(InvalidRequest, match="B120"):
        unpack(data, tmp_path / "in")


def test_extended_headers_are_refused_unread(tmp_path):
    info, data = named("index.json")
    info.pax_headers = {"path": "../../x", "size": "99999999999"}
    with pytest.raises(InvalidRequest, match="B120"):
        unpack(tar_of((info, data), form=tarfile.PAX_FORMAT), tmp_path / "in")


def test_a_file_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="twice"):
        unpack(tar_of(named("index.json"), named("index.json")), tmp_path / "in")


def test_a_blob_that_is_not_its_name_is_refused_before_the_next_header(tmp_path):
    unpacker = Unpacker(tmp_path / "in")
    with pytest.raises(InvalidRequest, match="does not have its digest"):
        unpacker.feed(tar_of(named(f"blobs/sha256/{HEX}", b"x" * 700)))


def test_a_changed_byte_is_refused_or_makes_another_identity(bundle, packed, tmp_path):
    identity = read(bundle).digest
    positions = np.random.default_rng(0).integers(0, len(packed) - 1024, 200)
    for number, position in enumerate(positions):
        changed = bytearray(packed)
        changed[position] ^= 0x20
        try:
            layout = unpack(bytes(changed), tmp_path / f"in{number}")
        except InvalidRequest:
            continue
        # In the index, or where the format allows either of two fillers after a number.
        again = b"".join(pack(layout.directory))
        assert again == packed or layout.digest != identity


def test_a_stream_that_ends_early_is_refused(packed, tmp_path):
    for size in (0, 1, 512, 600, len(packed) // 2, len(packed) - 1024):
        with pytest.raises(InvalidRequest, match="cut short"):
            unpack(packed[:size], tmp_path / "in")


def test_a_stream_above_the_limit_is_refused_while_it_comes(packed, tmp_path):
    with pytest.raises(InvalidRequest, match="B107"):
        unpack(packed, tmp_path / "in", piece=4096, limit=10_000)


def test_a_claimed_size_above_the_limit_is_refused_before_the_content(tmp_path):
    header = bytearray(tar_of(named("oci-layout"))[:512])
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    with pytest.raises(InvalidRequest, match="oci-layout has"):
        unpack(bytes(header), tmp_path / "in")


def test_nothing_may_follow_the_end(packed, tmp_path):
    assert unpack(packed + b"\0" * 9000, tmp_path / "padded")
    with pytest.raises(InvalidRequest, match="after the end"):
        unpack(packed + b"x", tmp_path / "in")


def test_a_blob_that_belongs_to_nothing_is_refused(bundle, tmp_path):
    files = [p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()]
    extra = b"who am I"
    name = f"{BLOBS}/{digest_of(extra)[7:]}"
    data = tar_of(*(named(n, (bundle / n).read_bytes()) for n in files), named(name, extra))
    with pytest.raises(InvalidRequest, match="belongs to nothing"):
        unpack(data, tmp_path / "in")


def test_a_bundle_without_one_of_its_files_is_refused(bundle, tmp_path):
    files = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    for missing in files:
        kept = (named(n, (bundle / n).read_bytes()) for n in files if n != missing)
        with pytest.raises(InvalidRequest, match="B120"):
            unpack(tar_of(*kept), tmp_path / "in")

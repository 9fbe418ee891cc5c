"""Signing keys in files: encrypted, public, and whose they are."""

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey

from control_plane.signing import keys
from protocol.errors import InvalidRequest

PASSWORD = b"correct horse"


def test_an_encrypted_key_signs_like_the_one_that_was_made(tmp_path):
    made = keys.generate(tmp_path / "ana.pem", "ana", PASSWORD)
    pem = (tmp_path / "ana.pem").read_bytes()
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in pem
    assert stat.S_IMODE((tmp_path / "ana.pem").stat().st_mode) == 0o600
    assert keys.encrypted(tmp_path / "ana.pem")

    found = keys.load(tmp_path / "ana.pem", password=PASSWORD)
    made.public_key.verify_signature(found.sign(b"data"), b"data")
    assert keys.holder(found.public_key) == "ana"


@pytest.mark.parametrize(
    "password, why",
    [
        (None, "no passphrase was given"),
        (b"", "passphrase is wrong"),
        (b"x", "passphrase is wrong"),
    ],
)
def test_a_missing_or_wrong_passphrase_says_so_and_not_what_it_was(tmp_path, password, why):
    keys.generate(tmp_path / "ana.pem", "ana", PASSWORD)
    with pytest.raises(InvalidRequest, match=why) as refused:
        keys.load(tmp_path / "ana.pem", password=password)
    assert refused.value.code == "OUT-T113"
    assert "correct" not in str(refused.value)


def test_a_key_that_is_not_encrypted_needs_no_passphrase(tmp_path):
    made = keys.generate(tmp_path / "ana.pem", "ana")
    assert not keys.encrypted(tmp_path / "ana.pem")
    assert keys.load(tmp_path / "ana.pem", password=b"unused").public_key == made.public_key


def test_keys_are_never_overwritten(tmp_path):
    key = keys.generate(tmp_path / "ana.pem", "ana").public_key
    keys.write_public(tmp_path / "ana.pub", key)
    with pytest.raises(FileExistsError):
        keys.generate(tmp_path / "ana.pem", "bo")
    with pytest.raises(FileExistsError):
        keys.write_public(tmp_path / "ana.pub", key)


def test_a_public_key_file_is_read_back(tmp_path):
    key = keys.generate(tmp_path / "ana.pem", "ana").public_key
    keys.write_public(tmp_path / "ana.pub", key)
    assert keys.load_public(tmp_path / "ana.pub") == key
    assert "PRIVATE" not in (tmp_path / "ana.pub").read_text()


def test_a_p256_key_of_a_token_is_as_good(tmp_path):
    signer = CryptoSigner(generate_private_key(SECP256R1()))
    keys.write_public(tmp_path / "hsm.pub", signer.public_key)
    assert keys.load_public(tmp_path / "hsm.pub").scheme == "ecdsa-sha2-nistp256"


@pytest.fixture
def public():
    key = CryptoSigner.generate_ed25519().public_key
    return keys.public(SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, {"x-name": "ana"}))


@pytest.mark.parametrize(
    "change",
    [
        {"keyid": "0" * 64},
        {"x-name": "ana\x1b[2J"},
        {"x-name": ""},
        {"x-name": 7},
        {"x-other": "hidden"},
        {"scheme": "rsassa-pss-sha256", "keytype": "rsa"},
        {"keyval": {"public": "00"}},
        {"keyval": {"public": 7}},
        {"keyval": {}},
        {"keyval": None},
        {"keytype": None},
        {"keyid": None},
    ],
    ids=str,
)
def test_a_public_key_that_is_not_what_it_says_is_refused(tmp_path, public, change):
    (tmp_path / "ana.pub").write_text(json.dumps({**public, **change}))
    with pytest.raises(InvalidRequest) as refused:
        keys.load_public(tmp_path / "ana.pub")
    assert refused.value.code == "OUT-T113"


@pytest.mark.parametrize("content", ["", "garbage", "[]", "7", "[" * 5000])
def test_what_is_no_public_key_is_refused(tmp_path, content):
    (tmp_path / "ana.pub").write_text(content)
    with pytest.raises(InvalidRequest) as refused:
        keys.load_public(tmp_path / "ana.pub")
    assert refused.value.code == "OUT-T113"


@pytest.mark.parametrize("name", ["", "a" * 41, "two\nlines", "\x1b[2J", "/etc"])
def test_a_name_that_cannot_be_shown_is_refused(tmp_path, name):
    with pytest.raises(InvalidRequest) as refused:
        keys.generate(tmp_path / "ana.pem", name)
    assert refused.value.code == "OUT-T117"
    assert not (tmp_path / "ana.pem").exists()

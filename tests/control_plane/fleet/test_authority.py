"""Certificates of a fleet: who may sign what, and whom the other side believes."""

import socket
import ssl
import stat
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control_plane.fleet.authority import LEAF_LIFE, Authority, fingerprint, public_key
from protocol.errors import InvalidRequest

NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("home") / "ca", "local", NOW_MS, ["10.1.2.3"])


SHA256 = hashes.SHA256()


def request(key, common="whatever", algorithm=SHA256) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def test_keys_are_readable_by_their_owner_only(authority):
    keys = list(authority.directory.glob("*.key"))
    assert {key.name for key in keys} == {
        f"{name}.key" for name in ("broker-ca", "device-ca", "api-ca", "server", "api", "control")
    }
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE(authority.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "key,algorithm",
    [
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["P-256", "Ed25519"],
)
def test_a_device_gets_a_client_certificate_in_its_own_name_for_two_years(
    authority, key, algorithm
):
    pem = authority.sign_csr(request(key, "root", algorithm), "local-cam-1", NOW_MS)
    certificate = x509.load_pem_x509_certificate(pem)
    names = [name.value for name in certificate.subject]
    assert names == ["local-cam-1"]
    assert certificate.public_key() == key.public_key()
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc.timestamp() * 1000 == NOW_MS + LEAF_LIFE.days * DAY_MS
    authority_certificate = x509.load_pem_x509_certificate(
        authority.certificate("device-ca").read_bytes()
    )
    certificate.verify_directly_issued_by(authority_certificate)
    assert fingerprint(pem).startswith("sha256-")


def tampered() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    der = bytearray(x509.load_pem_x509_csr(request(key)).public_bytes(serialization.Encoding.DER))
    der[der.index(b"whatever")] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


BAD_REQUESTS = {
    "nothing": b"",
    "no PEM": b"hello",
    "damaged PEM": b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
    "RSA": request(rsa.generate_private_key(65537, 2048)),
    "P-384": request(ec.generate_private_key(ec.SECP384R1())),
    "secp256k1": request(ec.generate_private_key(ec.SECP256K1())),
    "Ed448": request(ed448.Ed448PrivateKey.generate(), algorithm=None),
    "changed after signing": tampered(),
    "too long": b"-" * 20_000,
}


@pytest.mark.parametrize("csr", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_other_requests_are_refused(authority, csr):
    with pytest.raises(InvalidRequest, match="A210"):
        authority.sign_csr(csr, "local-cam-1", NOW_MS)


def test_nothing_of_a_request_but_its_key_is_used(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outrider-control-local")])
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("broker")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    certificate = x509.load_pem_x509_certificate(authority.sign_csr(csr, "local-x", NOW_MS))
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert public_key(csr) == key.public_key()


@pytest.mark.parametrize("device", ["north-cam-1", "cam", "local-", "local-Cam", "local-a+b"])
def test_devices_of_other_fleets_and_other_forms_are_not_signed(authority, device):
    with pytest.raises(ValueError):
        authority.sign_csr(request(ec.generate_private_key(ec.SECP256R1())), device, NOW_MS)


def test_the_fleet_whose_devices_could_be_named_like_the_control_plane_is_refused(tmp_path):
    with pytest.raises(InvalidRequest):
        Authority.create(tmp_path / "ca", "outrider", NOW_MS)
    assert not (tmp_path / "ca").exists()


def test_renewal_is_due_at_half_of_the_life(authority):
    half = LEAF_LIFE.days // 2
    assert not authority.renewal_due(NOW_MS + (half - 1) * DAY_MS)
    assert authority.renewal_due(NOW_MS + (half + 1) * DAY_MS)


def test_renewal_is_due_for_a_name_that_is_missing_and_not_for_another_spelling(authority):
    assert set(authority.hosts) == {"127.0.0.1", "localhost", "10.1.2.3"}
    assert not authority.renewal_due(NOW_MS, ["localhost", "10.1.2.3"])
    assert authority.renewal_due(NOW_MS, ["broker.example"])
    assert authority.renewal_due(NOW_MS, ["::1"])


def test_renewal_is_due_when_a_power_cut_left_a_key_without_its_certificate(tmp_path):
    authority = Authority.create(tmp_path / "ca", "local", NOW_MS, ["0:0:0:0:0:0:0:1"])
    assert not authority.renewal_due(NOW_MS, ["::1"])
    for name in ("server", "api", "control"):
        before = authority.key(name).read_bytes()
        authority.key(name).write_bytes(authority.key("broker-ca").read_bytes())
        assert authority.renewal_due(NOW_MS)
        authority.key(name).unlink()
        assert authority.renewal_due(NOW_MS)
        authority.key(name).write_bytes(before)
    assert not authority.renewal_due(NOW_MS)


def test_certificates_that_a_wrong_clock_made_are_replaced(authority):
    assert authority.renewal_due(NOW_MS - 2 * DAY_MS)


def test_a_new_authority_has_a_list_on_which_nobody_is(authority):
    found = authority.revocation_list()
    assert found is not None
    assert not found.serials
    assert found.from_ms <= NOW_MS
    assert 29 * DAY_MS < found.until_ms - NOW_MS <= 30 * DAY_MS


def test_a_revocation_list_is_signed_by_the_authority_of_devices_and_numbered(tmp_path):
    authority = Authority.create(tmp_path / "ca", "local", NOW_MS)
    first = authority.issue_crl([("a1", NOW_MS), ("ff00", NOW_MS - DAY_MS)], NOW_MS)
    second = authority.issue_crl([("a1", NOW_MS)], NOW_MS + DAY_MS)
    assert first.serials == {"a1", "ff00"}
    assert second == authority.revocation_list()
    assert second.number > first.number
    crl = x509.load_pem_x509_crl(authority.crl.read_bytes())
    ca = x509.load_pem_x509_certificate(authority.certificate("device-ca").read_bytes())
    key = ca.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    assert crl.issuer == ca.subject
    entry = crl.get_revoked_certificate_by_serial_number(0xA1)
    assert entry is not None
    assert entry.revocation_date_utc.timestamp() * 1000 == NOW_MS


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_list_that_cannot_be_read_counts_as_none(tmp_path, content):
    authority = Authority.create(tmp_path / "ca", "local", NOW_MS)
    authority.crl.unlink()
    if content is not None:
        authority.crl.write_bytes(content)
    assert authority.revocation_list() is None
    assert authority.issue_crl((), NOW_MS) == authority.revocation_list()


def test_servers_are_issued_again_under_the_same_authorities(tmp_path):
    authority = Authority.create(tmp_path / "ca", "local", NOW_MS)
    before = {p.name: p.read_bytes() for p in authority.directory.iterdir()}
    authority.issue_servers(NOW_MS + 400 * DAY_MS, ["broker.example"])
    after = {p.name: p.read_bytes() for p in authority.directory.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{n}.{e}" for n in ("server", "api", "control") for e in ("crt", "key")}


def meet(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """One handshake over a socket pair; the server's view of the client's name."""
    here, there = socket.socketpair()
    failure: list[Exception] = []

    def answer() -> None:
        try:
            with client.wrap_socket(there, server_hostname=host) as link:
                link.recv(1)
        except (ssl.SSLError, OSError) as error:
            failure.append(error)
            there.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with server.wrap_socket(here, server_side=True) as link:
            certificate = link.getpeercert() or {}
            subject = {str(pair[0][0]): str(pair[0][1]) for pair in certificate.get("subject", ())}
            link.send(b"x")
    except (ssl.SSLError, OSError):
        subject = None
    finally:
        here.close()
        thread.join()
    return None if failure or subject is None else subject.get("commonName", "")


@pytest.fixture
def contexts(tmp_path):
    """The broker's side, and one client's: real ones, of now."""
    import time

    now_ms = int(time.time() * 1000)
    authority = Authority.create(tmp_path / "ca", "local", now_ms, ["10.1.2.3"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate("server"), authority.key("server"))
    server.load_verify_locations(authority.certificate("device-ca"))
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(authority.certificate("broker-ca")))
    return authority, server, client


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3"])
def test_broker_and_control_plane_believe_each_other(contexts, host):
    authority, server, client = contexts
    client.load_cert_chain(authority.control.certificate, authority.control.key)
    assert meet(server, client, host) == "outrider-control-local"


def test_a_server_is_not_believed_under_another_name(contexts):
    authority, server, client = contexts
    client.load_cert_chain(authority.control.certificate, authority.control.key)
    assert meet(server, client, "evil.example") is None


def test_a_device_cannot_pass_for_a_server(contexts):
    authority, _, client = contexts
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate("control"), authority.key("control"))
    client.load_verify_locations(authority.certificate("device-ca"))
    assert meet(server, client, "localhost") is None


def test_a_server_certificate_does_not_open_the_broker(contexts):
    authority, server, client = contexts
    client.load_cert_chain(authority.certificate("server"), authority.key("server"))
    assert meet(server, client, "localhost") is None

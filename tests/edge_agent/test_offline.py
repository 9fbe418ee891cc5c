"""Enrolment and renewal by files on a stick, function by function and as a technician types it."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.fleet.authority import Authority
from edge_agent import cli, identity, offline
from edge_agent.identity import certificate_until_ms
from protocol.codec import decode, encode
from protocol.enrolment import MAX_REQUEST, OfflineAnswer, OfflineRequest
from protocol.errors import InvalidRequest, PeerError, TrustError
from protocol.identifiers import digest_of
from tests.fakes.command_line import Ran, ran
from tests.fakes.renewals import BROKER, ROOT, RenewingPlane, pair, renewing_plane

NOW_MS = int(time.time() * 1000)
DIGEST = digest_of(ROOT.encode())


@pytest.fixture
def stick(tmp_path):
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTRIDER_AGENT_HOME", str(tmp_path / "device"))
    return tmp_path / "device"


@pytest.fixture
def plane(tmp_path):
    with renewing_plane(tmp_path / "ca", NOW_MS) as plane:
        yield plane


def agent(*words: object) -> Ran:
    return ran(cli.run_command, [str(word) for word in words])


def read(file: Path) -> OfflineRequest:
    return decode(file.read_bytes(), OfflineRequest, limit=MAX_REQUEST)


def answered(plane: RenewingPlane, file: Path, **changes: object) -> Path:
    """What the operator's command makes of an enrolment request."""
    request = read(file)
    device = f"local-{request.name or 'dev-1'}"
    answer = OfflineAnswer(
        device,
        "local",
        plane.authority.sign_csr(request.csr.encode(), device, NOW_MS).decode(),
        plane.authority.broker_ca.decode(),
        BROKER,
        ROOT,
        plane.url,
        plane.authority.certificate("api-ca").read_text(),
        DIGEST,
        labels={"site": "mine"},
    )
    written = file.with_name(f"{request.name or 'dev-1'}.answer.json")
    written.write_bytes(encode(replace(answer, **changes)))  # type: ignore[arg-type]  # a table
    return written


def renewed(plane: RenewingPlane, file: Path, **changes: object) -> Path:
    request = read(file).renewal
    assert request is not None
    status, body = plane.answer("/v1/renew", encode(request))
    assert status == 200
    written = file.with_name("cam-1.answer.json")
    written.write_bytes(body)
    return written


# --- enrolment --------------------------------------------------------------------------------


def test_a_device_without_network_joins_with_two_files(plane, home, stick):
    file = offline.write_request(home, stick, "cam-9")
    assert (file.name, read(file).name, read(file).renewal) == ("cam-9.request.json", "cam-9", None)
    made = offline.take_answer(home, answered(plane, file), DIGEST)
    assert identity.load(home) == made
    assert (made.device, made.labels, made.root) == ("local-cam-9", {"site": "mine"}, ROOT.encode())
    assert made.server is not None
    assert made.server.url == plane.url
    own, certified = pair(home / "identity")
    assert own == certified


def test_the_key_is_made_once_and_never_leaves(home, stick):
    offline.write_request(home, stick, "cam-9")
    key = (home / "identity/device.key").read_bytes()
    offline.write_request(home, stick)
    assert (home / "identity/device.key").read_bytes() == key
    assert sorted(path.name for path in stick.iterdir()) == [
        "cam-9.request.json",
        "device.request.json",
    ]
    for path in stick.iterdir():
        assert b"PRIVATE" not in path.read_bytes()
        assert not any(line in path.read_bytes() for line in key.splitlines()[1:-1])


def test_an_answer_whose_root_is_not_the_operators_is_refused(plane, home, stick):
    file = answered(plane, offline.write_request(home, stick, "cam-9"))
    with pytest.raises(TrustError, match="T108"):
        offline.take_answer(home, file, digest_of(b"another root"))
    with pytest.raises(InvalidRequest, match="D403"):
        identity.load(home)


def test_an_answer_to_another_device_is_refused(plane, home, stick, tmp_path):
    offline.write_request(home, stick, "cam-9")
    other = offline.write_request(tmp_path / "other", stick, "cam-8")
    with pytest.raises(PeerError, match="another key"):
        offline.take_answer(home, answered(plane, other), DIGEST)
    with pytest.raises(InvalidRequest, match="D403"):
        identity.load(home)


def test_a_device_that_asked_nothing_takes_no_answer(plane, home, stick, tmp_path):
    file = answered(plane, offline.write_request(tmp_path / "other", stick, "cam-8"))
    with pytest.raises(InvalidRequest, match="no request"):
        offline.take_answer(home, file, DIGEST)


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"x" * 3_000_000], ids=str)
def test_what_is_no_answer_is_refused(home, stick, content):
    offline.write_request(home, stick, "cam-9")
    file = stick / "answer"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidRequest, match="S110" if content is None else "S120"):
        offline.take_answer(home, file, DIGEST)


def test_an_enrolled_device_asks_for_no_second_identity(plane, home, stick):
    plane.device(home)
    with pytest.raises(InvalidRequest, match="D404"):
        offline.write_request(home, stick, "cam-9")
    with pytest.raises(InvalidRequest, match="D404"):
        offline.take_answer(home, stick / "answer", DIGEST)


# --- renewal ----------------------------------------------------------------------------------


def test_a_certificate_is_renewed_with_two_files(plane, home, stick):
    plane.device(home)
    before = certificate_until_ms(home / "identity")
    file = offline.write_renewal(home, stick)
    assert file.name == "cam-1.request.json"
    offline.take_renewal(home, renewed(plane, file))
    assert certificate_until_ms(home / "identity") > before


def test_nothing_but_the_certificate_is_believed_of_a_renewals_answer(plane, home, stick, tmp_path):
    made = plane.device(home)
    evil = Authority.create(tmp_path / "evil", "local", NOW_MS)
    plane.changes = {"broker_ca": evil.broker_ca.decode(), "url": "https://evil.example"}
    offline.take_renewal(home, renewed(plane, offline.write_renewal(home, stick)))
    assert identity.load(home) == made
    assert (home / "identity/broker-ca.crt").read_bytes() == plane.authority.broker_ca


def test_an_unenrolled_device_renews_nothing(home, stick):
    with pytest.raises(InvalidRequest, match="D403"):
        offline.write_renewal(home, stick)


# --- as a technician types it -----------------------------------------------------------------


def test_a_technician_enrols_without_network(plane, home, stick):
    said = agent("enrol", "--csr-to", stick, "--name", "cam-9")
    assert said == Ran(
        0,
        f"wrote      {stick}/cam-9.request.json\n",
        "key        stays on this device\n"
        "next       an operator runs: outrider device sign-request cam-9.request.json --to .\n",
    )
    file = answered(plane, stick / "cam-9.request.json")
    said = agent("enrol", "--answer", file, "--root-digest", DIGEST)
    assert said.exit == 0
    assert said.out.startswith("enrolled   cam-9 in fleet local, site=mine; cert until ")
    assert "root.json  matches the digest" in said.err


def test_a_technician_renews_with_and_without_network(plane, home, stick):
    plane.device(home)
    said = agent("enrol", "--renew", "--csr-to", stick)
    assert (said.exit, said.out) == (0, f"wrote      {stick}/cam-1.request.json\n")
    said = agent("enrol", "--renew", "--answer", renewed(plane, stick / "cam-1.request.json"))
    assert (said.exit, said.out.startswith("renewed    cam-1; cert until ")) == (0, True)

    plane.now_ms += 86_400_000  # its certificate would not last longer otherwise
    said = agent("enrol", "--renew", "--json")
    assert (said.exit, json.loads(said.out)["name"]) == (0, "cam-1")
    assert len(plane.requests) == 2


@pytest.mark.parametrize(
    "words",
    [
        "--csr-to . --answer a",
        "--csr-to . --token-file t",
        "--renew --token-file t",
        "--renew --name cam-9",
        "--answer a --name cam-9 --root-digest d",
        "--answer a",
        "--answer a --root-digest sha256-0",
        "--renew --answer a --root-digest d",
        "--root-digest d",
        "--csr-to /nowhere",
        "--csr-to . --name CAM",
    ],
)
def test_options_that_do_not_fit_are_said_and_change_nothing(home, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    said = agent("enrol", *words.split())
    assert (said.exit, said.out) == (2, ""), said.err
    assert said.err.startswith("error[OUT-S120]: ")
    assert not home.exists()

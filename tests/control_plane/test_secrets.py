"""No secret in what is logged, shown, or kept for later: a whole flow at the chattiest level.

A real control plane over TLS in this process (without a broker: nothing of this needs one), the
real commands with `-vv`, a real enrolment.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from control_plane import cli
from control_plane.access import access
from control_plane.client import Client
from control_plane.init import init_dev
from control_plane.people import decode_login
from control_plane.serve import running
from control_plane.signing import create
from control_plane.wiring import ControlPlane, now_ms
from edge_agent.enrol import enrol
from protocol.codec import encode
from protocol.enrolment import decode_token
from protocol.errors import OutriderError
from protocol.plan import DenyList
from tests.fakes.bundles import make_bundle
from tests.fakes.command_line import Ran, ran
from tests.fakes.operator import packed

PASSPHRASE = "correct horse battery staple"
GUESS = "guessed-by-somebody-who-mistyped-a-real-token"


@dataclass
class Flow:
    """Everything that people and devices do with secrets, and what was said meanwhile."""

    control: ControlPlane
    folder: Path
    secrets: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    """Everything but what a command was asked to print."""

    @property
    def home(self) -> Path:
        return self.control.settings.home

    def outrider(self, *arguments: str, home: Path | None = None, **more: str) -> Ran:
        every = [*arguments, "-vv", "--home", str(home or self.home)]
        done = ran(cli.run, every, **more)  # type: ignore[arg-type]  # passed on
        name = f"outrider {' '.join(arguments[:2])} ({len(self.said)})"
        self.said[name] = done.err
        if arguments[:2] not in (("auth", "create"), ("device", "enrol-token")):
            self.said[name] += done.out
        return done


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """By everybody, at every level; as `caplog`, but for longer than one test."""
    log, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(log), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    folder = tmp_path_factory.mktemp("flow")
    settings = init_dev(folder / "cp", "north", api_port=0, broker_port=0)
    with everything_logged() as log, running(settings) as control:
        # What the ticker does once it has a broker.
        control.repository.publish({}, encode(DenyList("north", 1)), now_ms())
        done = Flow(control, folder)
        people(done)
        devices(done)
        approval(done)
        wrong(done)
        with Client(access(settings.home)) as client:
            for path in ("events", "audit", "people", "drafts", "/v1/health"):
                done.said[path] = client.bytes(path).decode()
            done.said["audit/export"] = client.bytes("audit/export").decode()
    done.said["log"] = log.getvalue()
    return done


def people(flow: Flow) -> None:
    made = flow.outrider("auth", "create", "ana", "--role", "approver")
    text = made.out.strip()
    flow.secrets |= {"login text": text, "token of ana": decode_login(text).t}
    flow.secrets["operator.token"] = flow.control.settings.operator_token.read_text().strip()
    laptop = flow.folder / "laptop"
    done = flow.outrider("auth", "login", home=laptop, piped=made.out)
    assert done.exit == 0, done.err
    assert "ana is approver" in flow.outrider("auth", "whoami", home=laptop).out


def devices(flow: Flow) -> None:
    text = flow.outrider("device", "enrol-token", "--name", "cam-1").out.strip()
    flow.secrets |= {"enrolment text": text, "enrolment token": decode_token(text).t}
    enrol(text, flow.folder / "agent")
    with pytest.raises(OutriderError, match="A202"):
        enrol(text, flow.folder / "again")


def approval(flow: Flow) -> None:
    bundle = make_bundle(flow.folder / "bundles", "digits", "v1")
    packed(bundle, flow.folder)
    assert flow.outrider("model", "push", str(flow.folder / "digits-v1.bundle")).exit == 0
    plain = (flow.control.settings.keys / create.APPROVER_KEY).read_bytes()
    key = flow.folder / "ana.pem"
    key.write_bytes(
        load_pem_private_key(plain, None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode())
        )
    )
    phrase = flow.folder / "phrase"
    flow.secrets |= {"passphrase": PASSPHRASE, "wrong passphrase": "a wrong passphrase"}
    sign = ("model", "approve", "digits/v1", "--yes", "--key", str(key), "--passphrase-file")
    phrase.write_text("a wrong passphrase")
    assert "OUT-T113" in flow.outrider(*sign, str(phrase), home=flow.folder / "laptop").err
    phrase.write_text(PASSPHRASE)
    done = flow.outrider(*sign, str(phrase), home=flow.folder / "laptop")
    assert done.exit == 0, done.err


def wrong(flow: Flow) -> None:
    flow.secrets["guess"] = GUESS
    flow.control.settings.operator_token.write_text(f"{GUESS}\n")
    for command in (("device", "list"), ("auth", "whoami"), ("auth", "revoke", "ana")):
        assert "OUT-A101" in flow.outrider(*command).err
    flow.control.settings.operator_token.write_text(f"{flow.secrets['operator.token']}\n")
    assert flow.outrider("auth", "revoke", "ana").exit == 0
    assert "OUT-A102" in flow.outrider("device", "list", home=flow.folder / "laptop").err
    broken = flow.folder / "laptop" / "access.json"
    broken.write_text(broken.read_text()[:-1])
    assert flow.outrider("device", "list", home=flow.folder / "laptop").exit == 2


def private_keys(*folders: Path) -> dict[str, str]:
    """The text of each private key, by file."""
    return {
        path.name: "".join(path.read_text().split("-----")[2].split())
        for folder in folders
        for path in sorted([*folder.rglob("*.pem"), *folder.rglob("*.key")])
        if "PRIVATE KEY" in path.read_text()
    }


def found(secret: str, text: str) -> bool:
    """As it is, or in the forms in which it travels."""
    raw = secret.encode()
    forms = {secret, raw.hex(), base64.b64encode(raw).decode().rstrip("=")}
    compact = re.sub(r"\s+", "", text)
    return any("".join(form.split()) in compact for form in forms)


def test_no_secret_is_logged_shown_or_kept_for_later(flow: Flow):
    keys = private_keys(flow.home, flow.folder / "agent")
    assert len(keys) >= 8
    secrets = {**flow.secrets, **keys}
    leaks = [
        f"{name} in {place}"
        for place, text in flow.said.items()
        for name, secret in secrets.items()
        if found(secret, text)
    ]
    assert leaks == []
    # It did listen: to our own words, to the libraries', and to what the commands said.
    log = flow.said["log"]
    assert "failed attempt from 127.0.0.1" in log
    assert "HTTP Request" in log
    assert "failed attempts since the start" in flow.said["/v1/health"]
    assert any("OUT-A101" in text for text in flow.said.values())


@pytest.mark.parametrize(
    "leak", ["token {}", "{}\\n", "b64 {b64}", "header {hex}"], ids=["plain", "line", "b64", "hex"]
)
def test_a_leak_would_be_found(leak: str):
    secret = "a-Secret_of-32-letters-or-more"
    raw = secret.encode()
    text = leak.format(secret, b64=base64.b64encode(raw).decode(), hex=raw.hex())
    assert found(secret, text)
    assert not found(secret, text[:-12])


def test_the_store_keeps_no_token(flow: Flow):
    tokens = ("token of ana", "operator.token", "enrolment token", "login text", "enrolment text")
    files = list(flow.home.glob("store.sqlite*"))
    assert files
    for path in files:
        data = path.read_bytes()
        assert [name for name in tokens if flow.secrets[name].encode() in data] == []


def test_files_with_secrets_are_their_owners(flow: Flow):
    open_to_others = [
        path.name
        for path in (*flow.home.rglob("*"), *(flow.folder / "laptop").rglob("*"))
        if path.is_file()
        and path.stat().st_mode & 0o077
        and any(found(secret, path.read_text("latin-1")) for secret in flow.secrets.values())
    ]
    assert open_to_others == []

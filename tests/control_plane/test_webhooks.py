import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

from control_plane import webhooks
from control_plane.drift.notices import read_secret, signature, trial
from control_plane.webhooks import Secrets, Sender, check, run
from protocol.errors import InvalidRequest
from tests.fakes.hooks import TRUST, Receiver
from tests.fakes.waiting import until

NOW = 1_795_000_000_000
BODY = trial("north", "webhook-1", "test-1", NOW).encode()


def here(_host, _port):
    return ["127.0.0.1"]


@pytest.fixture
def secrets(tmp_path):
    kept = Secrets(tmp_path / "webhooks")
    kept.make("webhook-1")
    return kept


@pytest.fixture
def receiver(tmp_path, monkeypatch):
    with Receiver(tmp_path / "receiver") as made:
        monkeypatch.setenv(TRUST, str(made.authority))
        yield made


def sent(secrets, url, resolve=here, body=BODY, private=True):
    return Sender(secrets, private=private, resolve=resolve).send("webhook-1", url, body, NOW)


def test_a_notice_arrives_with_a_signature_that_its_secret_gives(secrets, receiver):
    assert sent(secrets, receiver.url).why == ""
    (took,) = receiver.took
    assert (took.path, took.body) == ("/notices", BODY)
    assert took.headers["content-type"] == "application/cloudevents+json"
    assert took.headers["host"] == f"localhost:{receiver.port}"
    assert took.headers["webhook-id"] == "north-test-1"
    at_s = int(took.headers["webhook-timestamp"])
    expected = signature(secrets.read("webhook-1"), "north-test-1", at_s, BODY)
    assert took.headers["webhook-signature"] == expected


def test_the_name_is_resolved_once_and_that_address_is_called(secrets, receiver):
    asked = []

    def resolve(host, port):
        """A name that answers otherwise the second time."""
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["203.0.113.1"]

    assert sent(secrets, receiver.url, resolve).why == ""
    assert asked == [("localhost", receiver.port)]


def test_no_proxy_of_the_environment_is_used(secrets, receiver, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert sent(secrets, receiver.url).why == ""


def test_an_address_that_is_not_public_is_not_called(secrets, receiver):
    tried = sent(secrets, receiver.url, private=False)
    assert "no public address" in tried.why
    assert receiver.took == []


def test_a_redirect_is_not_followed(secrets, receiver):
    receiver.answers = (307,)
    receiver.location = f"https://localhost:{receiver.port}/elsewhere"
    assert sent(secrets, receiver.url).why == "it answered 307"
    assert [took.path for took in receiver.took] == ["/notices"]


def test_410_says_that_it_is_gone(secrets, receiver):
    receiver.answers = (410,)
    tried = sent(secrets, receiver.url)
    assert (tried.why, tried.gone) == ("it answered 410", True)


def test_a_certificate_that_nobody_vouches_for_is_refused(secrets, receiver, monkeypatch):
    monkeypatch.delenv(TRUST)
    assert sent(secrets, receiver.url).why.startswith("its certificate is not trusted")
    assert receiver.took == []


def test_a_certificate_of_another_name_is_refused(secrets, receiver):
    url = f"https://other.example:{receiver.port}/"
    assert sent(secrets, url).why.startswith("its certificate is not trusted")


def test_who_does_not_answer_is_left(secrets, receiver, monkeypatch):
    monkeypatch.setattr(webhooks, "WHOLE_S", 0.2)
    receiver.answers = (0,)
    assert sent(secrets, receiver.url).why == "no answer in time"


def test_who_dawdles_is_left_as_well(secrets, tmp_path, monkeypatch):
    """One that never ends its handshake, a byte at a time, each of them in time."""
    monkeypatch.setattr(webhooks, "WHOLE_S", 0.3)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dawdle():
            line, _ = listener.accept()
            with line:
                # The head of a TLS record that announces more than ever comes.
                line.sendall(b"\x16\x03\x03\x40\x00")
                while not over.wait(0.05):
                    try:
                        line.sendall(b"\x02")
                    except OSError:
                        return

        thread = threading.Thread(target=dawdle, daemon=True)
        thread.start()
        tried = sent(secrets, f"https://localhost:{listener.getsockname()[1]}/")
        over.set()
        thread.join(10)
    assert tried.why == "no answer in time"


def test_nobody_there_is_said(secrets):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert sent(secrets, f"https://localhost:{port}/").why == "connection refused"


def test_a_name_that_does_not_resolve_is_said(secrets):
    def resolve(_host, _port):
        raise socket.gaierror(-2, "Name or service not known")

    assert "Name or service not known" in sent(secrets, "https://a.example/", resolve).why


def test_a_resolver_that_does_not_answer_is_left(monkeypatch):
    asked, enough = threading.Event(), threading.Event()

    def hang(*_args, **_more):
        asked.set()
        enough.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        webhooks.resolve("hooks.example.com", 443, within_s=0.01)
    assert asked.wait(60)
    enough.set()


def test_a_notice_that_is_too_large_is_not_sent(secrets, receiver):
    assert sent(secrets, receiver.url, body=b"x" * (256 * 1024 + 1)).why == "it has 262,145 bytes"
    assert receiver.took == []


def test_without_its_secret_nothing_is_sent(tmp_path, receiver):
    tried = sent(Secrets(tmp_path / "none"), receiver.url)
    assert "secret" in tried.why
    assert receiver.took == []


def test_a_secret_is_a_file_that_nobody_else_reads(tmp_path):
    kept = Secrets(tmp_path / "webhooks")
    shown = kept.make("webhook-2")
    path = tmp_path / "webhooks/webhook-2"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert kept.read("webhook-2") == read_secret(shown)
    assert len(read_secret(shown)) == 32
    kept.remove("webhook-2")
    kept.remove("webhook-2")
    assert not path.exists()


def test_an_address_is_looked_at_before_it_is_kept():
    check("https://a.example/", private=False, resolve=lambda *_: ["8.8.8.8"])
    for resolve in (here, lambda *_: [], lambda *_: ["8.8.8.8", "10.0.0.1"], missing):
        with pytest.raises(InvalidRequest) as refused:
            check("https://a.example/", private=False, resolve=resolve)
        assert refused.value.code == "OUT-N301"


def missing(_host, _port):
    raise socket.gaierror(-2, "Name or service not known")


# --- the command ----------------------------------------------------------------------------------


def program(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(text)
    return [sys.executable, str(path), str(tmp_path / "told")]


def test_a_command_gets_the_notice_on_its_input_and_little_of_the_environment(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("OUTRIDER_SECRET", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    command = program(
        tmp_path,
        "import os, sys\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    file.write(sys.stdin.buffer.read())\n"
        "    file.write(' '.join(sorted(os.environ)).encode())\n",
    )
    assert run(command, BODY).why == ""
    said = (tmp_path / "told").read_bytes()
    assert said.startswith(BODY)
    names = said.removeprefix(BODY).decode().split()
    assert {"LANG", "PATH"} <= set(names)
    assert not any("OUTRIDER" in name or name == "HOME" for name in names)


def test_a_command_that_fails_is_said(tmp_path):
    assert run(program(tmp_path, "import sys; sys.exit(3)"), BODY).why == "it ended with 3"
    assert run([str(tmp_path / "missing")], BODY).why.startswith("it cannot be started")


def test_a_command_that_reads_nothing_is_no_fault(tmp_path):
    assert run(program(tmp_path, ""), b"x" * 1_000_000).why == ""


def test_a_hanging_command_is_ended_with_what_it_started(tmp_path):
    command = program(
        tmp_path,
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "time.sleep(600)\n",
    )
    assert run(command, BODY, limit_s=2).why == "it did not end within 2 s"
    child = int((tmp_path / "told").read_text())
    until(lambda: not alive(child))


def alive(process):
    """A zombie is not: nobody but init waits for a grandchild."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"

"""The ways to a runner besides its port: a Unix socket, and an address for other machines."""

import http.client
import json
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from edge_agent.runner.bearer import make_token
from edge_agent.runners import Runners
from edge_agent.runners.listener import bind_path
from protocol.errors import Unavailable
from tests.fakes.callers import ROW, call, inference
from tests.fakes.conditions import eventually
from tests.fakes.takes import take_everything

INFER = "/v2/models/toy/infer"
TOKEN = "abcdefghijklmnop-0123"


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("unix.example", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def version_at(path: Path) -> str:
    connection = Unix(path)
    connection.request("POST", INFER, inference(ROW))
    response = connection.getresponse()
    document = json.loads(response.read())
    assert response.status == 200, document
    connection.close()
    return str(document["model_version"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "infer.sock"


def test_the_socket_answers_like_the_port_whatever_host_is_asked_for(runners, bundles, path):
    runners.promote(runners.start((bundles(),)).id)
    assert version_at(path) == "v1"
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o710


def test_the_socket_goes_from_runner_to_runner(runners, bundles, path):
    old = runners.start((bundles(),)).id
    runners.promote(old)
    kept = Unix(path)
    kept.request("GET", "/v2/health/live")
    kept.getresponse().read()
    runners.promote(runners.start((bundles(version="v2"),)).id)
    runners.drain(old)
    kept.request("POST", INFER, inference(ROW))
    response = kept.getresponse()
    assert (response.status, response.getheader("connection")) == (200, "close")
    response.read()
    take_everything(runners, old)
    assert version_at(path) == "v2"


def test_another_supervisor_takes_the_socket_over(new_runners, bundles, path):
    first = new_runners()
    first.adopt()
    old = first.start((bundles(),)).id
    first.promote(old)
    first.close()
    inode = path.stat().st_ino
    second = new_runners()
    second.adopt()
    assert version_at(path) == "v1"
    second.promote(second.start((bundles(version="v2"),)).id)
    second.drain(old)
    take_everything(second, old)
    assert version_at(path) == "v2"
    assert path.stat().st_ino == inode


def test_what_a_killed_agent_left_is_replaced(new_runners, bundles, path):
    first = new_runners()
    first.adopt()
    view = first.start((bundles(),))
    first.promote(view.id)
    first.close()
    os.kill(view.pid, signal.SIGKILL)
    process = os.pidfd_open(view.pid)
    eventually(lambda: os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    os.close(process)
    path.with_name(".infer.sock.new").touch()
    second = new_runners()
    second.adopt()
    second.promote(second.start((bundles(version="v2"),)).id)
    assert version_at(path) == "v2"
    assert not path.with_name(".infer.sock.new").exists()


def test_two_agents_never_share_a_socket(path):
    path.parent.mkdir()
    with bind_path(path):
        with pytest.raises(Unavailable, match="somebody listens on it") as caught:
            bind_path(path)
        assert caught.value.code == "OUT-N106"
    with bind_path(path):
        pass


def test_a_socket_on_which_nobody_has_time_is_still_somebodys(path, monkeypatch):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(str(path))
        full.listen(0)
        waiting = []
        for _ in range(2):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(str(path))
        with pytest.raises(Unavailable):
            bind_path(path)
        for each in waiting:
            each.close()


def test_a_file_that_is_no_socket_is_not_removed(path):
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(Unavailable, match="is no socket"):
        bind_path(path)
    assert path.read_text() == "precious"


def test_nothing_is_left_bound_where_one_of_them_is_taken(tmp_path, path):
    path.parent.mkdir()
    path.write_text("precious")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runners = Runners(tmp_path / "run", port=port)
    with pytest.raises(Unavailable, match="is no socket"):
        runners.adopt()
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


@pytest.fixture
def token(tmp_path):
    make_token(tmp_path / "token", TOKEN)
    return tmp_path / "token"


def test_other_machines_show_the_token_and_this_one_need_not(new_runners, bundles, token):
    runners = new_runners(listen=("127.0.0.1", 0), token_file=token)
    runners.adopt()
    runners.promote(runners.start((bundles(),)).id)
    port = runners.listens[1]
    assert port != runners.port
    shown = {"Authorization": f"Bearer {TOKEN}", "Host": "device.example"}
    assert call(port, "POST", INFER, inference(ROW), shown)[0] == 200
    status, answer = call(port, "POST", INFER, inference(ROW))
    assert (status, answer["error"][:8]) == (401, "OUT-I112")
    assert call(runners.port, "POST", INFER, inference(ROW))[0] == 200
    # The Host rule holds on loopback as before, token or not.
    assert call(runners.port, "POST", INFER, inference(ROW), shown)[0] == 403


def test_an_address_that_is_no_longer_wanted_closes_with_the_next_version(
    new_runners, bundles, token, caplog
):
    first = new_runners(listen=("127.0.0.1", 0), token_file=token)
    first.adopt()
    old = first.start((bundles(),)).id
    first.promote(old)
    port = first.listens[1]
    first.close()
    second = new_runners()
    second.adopt()
    assert f"127.0.0.1:{port} is closed as soon as another runner serves" in caplog.text
    assert second.listens is None
    second.promote(second.start((bundles(version="v2"),)).id)
    second.drain(old)
    take_everything(second, old)
    with pytest.raises(ConnectionRefusedError):
        call(port, "GET", "/v2")


def test_an_address_that_is_new_waits_until_no_runner_is_left(new_runners, bundles, token, caplog):
    first = new_runners()
    first.adopt()
    first.promote(first.start((bundles(),)).id)
    first.close()
    second = new_runners(listen=("127.0.0.1", 18999), token_file=token)
    second.adopt()
    assert second.listens is None
    assert "127.0.0.1:18999 is listened on when no runner is left" in caplog.text

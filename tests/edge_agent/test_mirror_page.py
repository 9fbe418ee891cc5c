"""The page about mirrors: its nginx serves payloads as devices ask for them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from control_plane.settings import Settings
from edge_agent.asking import Server
from edge_agent.http_source import Arrived, Ended, HttpSource, Wish
from edge_agent.urls import url_of
from protocol.identifiers import Digest
from protocol.payload import FRAME_SIZE, HintEntry, check_lists, frame_digest
from tests.fakes.conditions import eventually
from tests.fakes.mosquitto import free_port
from tests.fakes.origin import Offer, offer, plain_bundle

PAGE = Path(__file__).parents[2] / "docs/how-to/mirror-payloads.md"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

WHOLE = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


class Nobody:
    """A mirror is never told who asks."""

    def server(self) -> Server | None:
        raise AssertionError

    def proof(self, payload: Digest) -> str:
        raise AssertionError


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offer:
    origin = tmp_path_factory.mktemp("origin")
    return offer(plain_bundle(origin / "bundles"), origin / "payloads")


@pytest.fixture(scope="module")
def mirror(offered: Offer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a folder that is a copy of `payloads`."""
    if NGINX is None:
        pytest.skip("there is no nginx on this machine")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    served = folder / "served"
    shutil.copytree(next(iter(offered.payloads.values())).path.parent, served / "payloads")
    server = (
        block("nginx").replace("8080", f"127.0.0.1:{port}").replace("/srv/outrider", f"{served}")
    )
    config = folder / "nginx.conf"
    config.write_text(WHOLE.format(folder=folder, server=server))
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config)])
    url = f"http://127.0.0.1:{port}/payloads/"

    def answers() -> bool:
        assert process.poll() is None, "nginx has ended"
        try:
            return httpx.get(url).status_code < 500
        except httpx.TransportError:
            return False

    try:
        eventually(answers, 60)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def fetched(mirror: str, entry: HintEntry, have: bytes) -> tuple[list[Arrived], Ended]:
    source = HttpSource(Nobody(), lambda: 0, dev=True, timeout_s=60)
    url = url_of(mirror, entry.payload, "", True)
    assert url is not None
    source.begin(Wish(url, entry, have, False))
    found: list[Arrived | Ended] = []

    def ended() -> bool:
        found.extend(source.take()[0])
        return bool(found) and isinstance(found[-1], Ended)

    eventually(ended, 60)
    last = found.pop()
    assert isinstance(last, Ended)
    return [each for each in found if isinstance(each, Arrived)], last


def test_a_payload_comes_whole_from_the_mirror_of_the_page(offered, mirror):
    entry = offered.payloads["model.onnx"].entry
    (lists, *frames), ended = fetched(mirror, entry, b"")
    assert ended.error is None
    digests = check_lists(entry, [lists.data])
    assert [frame_digest(each.data) for each in frames] == list(digests)


def test_only_the_frames_that_are_missing_come_from_the_mirror_of_the_page(offered, mirror):
    encoded = offered.payloads["model.onnx"]
    have = bytearray(b"\1" * encoded.entry.frames)
    have[1] = 0
    (frame,), ended = fetched(mirror, encoded.entry, bytes(have))
    assert ended.error is None
    assert (frame.number, frame.data) == (1, encoded.path.read_bytes()[FRAME_SIZE : 2 * FRAME_SIZE])


def test_what_the_mirror_of_the_page_lacks_is_said_to_be_missing(mirror, offered):
    entry = offered.payloads["model.onnx"].entry
    elsewhere = mirror.replace("/payloads/", "/payloads/elsewhere/")
    frames, ended = fetched(elsewhere, entry, b"")
    assert not frames
    assert ended.error is not None
    assert ended.error.code == "OUT-F108"


def test_the_mirror_of_the_page_packs_nothing_and_takes_nothing(mirror, offered):
    url = f"{mirror}{offered.payloads['model.onnx'].entry.payload}"
    answer = httpx.get(url, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.headers["cache-control"].endswith("immutable")
    assert httpx.head(url).headers["content-length"] == str(len(answer.content))
    assert httpx.put(url, content=b"x").status_code == 403


def test_the_settings_of_the_page_are_settings(tmp_path):
    read = msgspec.yaml.decode(block("yaml"))
    settings = Settings(tmp_path, **{**read, "mirrors": tuple(read["mirrors"])})
    assert settings.payload_urls == ("https://models.example.org/payloads/", "/")
    with pytest.raises(ValueError, match="at most 3 mirrors"):
        Settings(tmp_path, mirrors=tuple(f"https://m{n}.example.org/" for n in range(4)))
    Settings(
        tmp_path,
        mirrors=tuple(f"https://m{n}.example.org/" for n in range(4)),
        serve_payloads=False,
    )

"""The peer: nginx serves the same payloads over TLS, and curl brings them, resumed after cuts."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.linking.namespaces import Side, found

PORT = 8443
MOST_S = 600.0
_START_S = 60.0

CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {home}/pid; error_log {home}/error crit;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{ listen {host}:{port} ssl; root {root};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {certificate}; ssl_certificate_key {key}; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Brought:
    seconds: float
    cpu_s: float
    """Of all curl processes together."""
    tries: int


@contextmanager
def nginx(side: Side, root: Path, home: Path, certificate: Path, key: Path) -> Iterator[int]:
    """Port of an nginx in `side`'s namespace that serves `root`; `home` is made for its files."""
    home.mkdir()
    configuration = home / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            home=home, host=side.address, port=PORT, root=root, certificate=certificate, key=key
        )
    )
    words = side.command(found("nginx"), "-c", configuration, "-p", home)
    process = subprocess.Popen(words)
    try:
        with side.entered():
            _await(process, side.address)
        yield PORT
    finally:
        process.terminate()
        process.wait()


def curl(side: Side, url: str, ca: Path, target: Path, size: int) -> Brought:
    """Bring `url` to `target`, from where the last try ended, until it is whole."""
    words = side.command(
        found("curl"), "-sf", "-C", "-", "--connect-timeout", "10", "--cacert", ca, "-o", target
    )
    before, began = _children_cpu_s(), time.monotonic()
    tries = ended = 0
    while time.monotonic() - began < MOST_S:
        tries += 1
        ended = subprocess.run([*words, url], env=_without_proxies()).returncode
        if ended == 0 and target.stat().st_size == size:
            return Brought(time.monotonic() - began, _children_cpu_s() - before, tries)
    raise SystemExit(f"curl never came to an end; the last one with {ended}")


def versions() -> str:
    """Of both, for the table."""
    curl_says = subprocess.run([found("curl") or "curl", "--version"], capture_output=True).stdout
    nginx_says = subprocess.run([found("nginx") or "nginx", "-v"], capture_output=True).stderr
    numbers = curl_says.split()[1], nginx_says.partition(b"/")[2].split()[0]
    return "nginx {1} + curl {0}".format(*(each.decode() for each in numbers))


def _await(process: subprocess.Popen[bytes], host: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((host, PORT), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("nginx did not start")


def _children_cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}

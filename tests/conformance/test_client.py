"""The conformance suite's command line, on a small repository: what every run of the suite needs.

The suite itself is not part of this tree; `make conformance` runs it.
"""

import functools
import http.server
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from tests.conformance.client import main

ROLES = ("root", "timestamp", "snapshot", "targets")


class Repository:
    """Version 1 of everything, one key, consistent snapshots, one target."""

    def __init__(self, path):
        self.path = path
        self.asked = []
        self.key = CryptoSigner.generate_ed25519()
        self.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        root = Root(expires=self.expires, consistent_snapshot=True)
        for role in ROLES:
            root.add_key(self.key.public_key, role)
        self.root = self.write("1.root.json", root)
        self.publish(1, b"hello")

    def write(self, name, signed, key=None):
        metadata = Metadata(signed)
        metadata.sign(key or self.key)
        (self.path / name).write_bytes(data := metadata.to_bytes())
        return data

    def publish(self, version, content, key=None):
        target = TargetFile.from_data("a/b.txt", content, ["sha256"])
        (self.path / "a").mkdir(exist_ok=True)
        (self.path / f"a/{target.hashes['sha256']}.b.txt").write_bytes(content)
        targets = Targets(version, expires=self.expires, targets={target.path: target})
        self.write(f"{version}.targets.json", targets, key)
        meta = {"targets.json": MetaFile(version)}
        self.write(f"{version}.snapshot.json", Snapshot(version, None, self.expires, meta))
        stamp = Timestamp(version, None, self.expires, MetaFile(version))
        self.write("timestamp.json", stamp)


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "served").mkdir()
    return Repository(tmp_path / "served")


@pytest.fixture
def url(repository):
    class Asked(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            repository.asked.append(self.path.rpartition("/")[2])

    handler = functools.partial(Asked, directory=str(repository.path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def client(tmp_path, repository):
    """Runs one command of a client that knows the repository's first root."""
    (tmp_path / "initial").write_bytes(repository.root)
    (tmp_path / "metadata").mkdir()

    def run(*arguments):
        return main(["--metadata-dir", str(tmp_path / "metadata"), *map(str, arguments)])

    assert run("init", tmp_path / "initial") == 0
    return run


def trusted(tmp_path):
    files = (tmp_path / "metadata").glob("*.json")
    return {file.stem: json.loads(file.read_bytes())["signed"]["version"] for file in files}


def test_a_refresh_asks_in_order_and_keeps_what_is_trusted(client, url, repository, tmp_path):
    assert client("--metadata-url", url, "refresh") == 0
    # A file that is not there is logged twice by the server, once with a reason.
    asked = list(dict.fromkeys(repository.asked))
    assert asked[0] == "2.root.json"
    assert trusted(tmp_path) == dict.fromkeys(ROLES, 1)
    repository.asked.clear()
    assert client("--metadata-url", url, "refresh") == 0
    assert "1.snapshot.json" not in repository.asked


def test_what_verified_before_a_fault_is_kept_and_the_fault_is_not(
    client, url, repository, tmp_path
):
    assert client("--metadata-url", url, "refresh") == 0
    repository.publish(2, b"evil", CryptoSigner.generate_ed25519())
    assert client("--metadata-url", url, "refresh") == 1
    assert trusted(tmp_path) == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}


def test_a_target_is_verified_and_not_fetched_twice(client, url, repository, tmp_path):
    (tmp_path / "got").mkdir()
    options = ("--metadata-url", url, "--target-base-url", url, "--target-dir", tmp_path / "got")
    download = functools.partial(client, *options)
    assert download("--target-name", "a/b.txt", "download") == 0
    assert [file.read_bytes() for file in (tmp_path / "got").iterdir()] == [b"hello"]
    repository.asked.clear()
    assert download("--target-name", "a/b.txt", "download") == 0
    assert not [name for name in repository.asked if name.endswith(".b.txt")]
    assert download("--target-name", "a/none", "download") == 1
    next(iter((repository.path / "a").iterdir())).write_bytes(b"other")
    next(iter((tmp_path / "got").iterdir())).unlink()
    assert download("--target-name", "a/b.txt", "download") == 1
    assert list((tmp_path / "got").iterdir()) == []


def test_what_is_no_root_is_refused_at_once(client, tmp_path, repository):
    changed = json.loads(repository.root)
    changed["signed"]["version"] = 2
    (tmp_path / "bad").write_text(json.dumps(changed))
    assert client("init", tmp_path / "bad") == 1

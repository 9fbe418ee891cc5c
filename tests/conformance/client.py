"""The command line of the public TUF conformance suite, on this agent's trust code.

    client.py --metadata-dir D init ROOT
    client.py --metadata-dir D --metadata-url U refresh
    client.py ... --target-name P --target-base-url T --target-dir X download

What is tested is what a device runs: `edge_agent.metadata.Client` with its limits and its cache in
memory, started from the first root each time; `edge_agent.clock.Clock` for expiry; files written
with `edge_agent.durable`. What differs from a device, because the suite asks for it:

- Files come by HTTP GET when they are needed. A device is offered retained messages.
- Each role that verifies counts at once. A device accepts whole sets (`edge_agent.trust`).
- Any delegation is followed. A device knows the roles `models` and `rollouts`, and asks both.
- The high-water marks, which outlive a lost cache, are left out: the suite lets `targets` go back
  under the same keys once the snapshot's are new, and a device that trusted the later one does not.
- The wall clock is believed without synchronisation: `faketime` sets it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.parse import quote, unquote
from urllib.request import urlopen

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from edge_agent import durable
from edge_agent.clock import Clock
from edge_agent.metadata import Client, first_root

_TIMEOUT_S: Final = 20.0
_BLOCK: Final = 64 * 1024


class Folder:
    """`<role>.json` as the suite wants them, and in `roots/` the chain from the first root on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._roots = path / "roots"

    def begin(self, root: bytes) -> None:
        """Raises TUF's `RepositoryError` and `ValueError` for what is no root."""
        self._roots.mkdir(parents=True, exist_ok=True)
        durable.replace(self._roots / str(first_root(root)), root)

    def roots(self) -> dict[int, bytes]:
        numbered = {int(path.name): path for path in self._roots.iterdir() if path.name.isdecimal()}
        return {number: numbered[number].read_bytes() for number in sorted(numbered)}

    def roles(self) -> dict[str, bytes]:
        files = (path for path in self._path.glob("*.json") if path.name != "root.json")
        return {unquote(path.name.removesuffix(".json")): path.read_bytes() for path in files}

    def keep(self, roots: Mapping[int, bytes], roles: Mapping[str, bytes]) -> None:
        for number, data in roots.items():
            durable.replace(self._roots / str(number), data)
        durable.replace(self._path / "root.json", roots[max(roots)])
        for role, data in roles.items():
            durable.replace(self._path / f"{quote(role, '')}.json", data)

    @property
    def clock(self) -> Path:
        return self._path / "clock"


class Web(FetcherInterface):
    """HTTP GET; roots that are at hand are not asked for again."""

    def __init__(self, base: str, roots: Mapping[int, bytes]) -> None:
        self._at_hand = {f"{base}{number}.root.json": data for number, data in roots.items()}

    def _fetch(self, url: str) -> Iterator[bytes]:
        if url in self._at_hand:
            return iter((self._at_hand[url],))
        try:
            response = urlopen(url, timeout=_TIMEOUT_S)
        except HTTPError as error:
            raise DownloadHTTPError(str(error), error.code) from error
        return iter(lambda: response.read(_BLOCK), b"")


class Session:
    """One run of the client, from what the folder has."""

    def __init__(self, folder: Folder, url: str) -> None:
        roots = folder.roots()
        base = url if url.endswith("/") else f"{url}/"
        self._folder = folder
        self._web = Web(base, roots)
        self._client = Client(self._web, roots[min(roots)], folder.roles(), base=base)
        clock = Clock(folder.clock, trust_wall=True)
        self._client.judge_expiry_at(datetime.fromtimestamp(clock.now_ms() / 1000, UTC))

    def refresh(self) -> None:
        try:
            self._client.refresh()
        finally:
            self._folder.keep(self._client.roots, self._client.cache)

    def download(self, names: Sequence[str], base: str, directory: Path) -> None:
        """Raises `DownloadError`, also for a name that nobody lists, and `RepositoryError`."""
        self.refresh()
        for name in names:
            try:
                target = self._client.get_targetinfo(name)
            finally:
                self._folder.keep(self._client.roots, self._client.cache)
            if target is None:
                raise DownloadError(f"{name} is not listed")
            self._store(target, base, directory / quote(name, ""))

    def _store(self, target: TargetFile, base: str, path: Path) -> None:
        if path.exists() and _is(target, path.read_bytes()):
            return
        folder, slash, name = target.path.rpartition("/")
        if self._client.trusted.root.consistent_snapshot:
            name = f"{next(iter(target.hashes.values()))}.{name}"
        url = f"{base.rstrip('/')}/{folder}{slash}{name}"
        data = self._web.download_bytes(url, target.length)
        target.verify_length_and_hashes(data)
        durable.replace(path, data)


def _is(target: TargetFile, data: bytes) -> bool:
    try:
        target.verify_length_and_hashes(data)
    except RepositoryError:
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="the agent as a TUF client")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    told = parser.parse_args(arguments)
    folder = Folder(told.metadata_dir)
    try:
        if told.command == "init":
            folder.begin(told.root.read_bytes())
        elif told.command == "refresh":
            Session(folder, told.metadata_url).refresh()
        else:
            session = Session(folder, told.metadata_url)
            session.download(told.target_name, told.target_base_url, told.target_dir)
    except (RepositoryError, DownloadError, OSError, ValueError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A supervisor that exists to be killed: `python -m tests.fakes.supervisor RUN PORT PATH...`.

Serves the bundles at the given paths, says so in one line of JSON, and waits.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from edge_agent.runners import Load, Runners
from protocol.bundle import decode_index
from protocol.identifiers import digest_of


def load_of(path: Path) -> Load:
    index = (path / "index.json").read_bytes()
    manifest = (path / "manifest.json").read_bytes()
    return Load(decode_index(index).model, digest_of(index), digest_of(manifest), path)


def main() -> None:
    run, port, *paths = sys.argv[1:]
    runners = Runners(Path(run), port=int(port))
    runners.adopt()
    standby = runners.start(tuple(load_of(Path(path)) for path in paths))
    runners.promote(standby.id)
    print(json.dumps({"port": runners.port, "runner": standby.id, "pid": standby.pid}), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()

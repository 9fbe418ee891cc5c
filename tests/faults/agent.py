"""Real agents for faults: `python -m tests.faults.agent` starts one per line of its input.

A line is JSON: `home`, `port`, `log` (operations), `output` (stderr), `environment`, `broker`,
`place` (`[where, kind, what, nth, fault]` or null). Each agent is a process of its own, forked
from this one so that it need not import everything again; from there on it is
`edge_agent.daemon`. Its process id is answered in one line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_agent import daemon, wiring
from edge_agent.settings import DEVELOPMENT
from tests.faults import interpose
from tests.faults.operations import Operation

NONE: Final = "-"
"""Neither an address besides loopback nor a token for it."""


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries them
    for line in sys.stdin:
        agent = os.fork()
        if not agent:
            become(json.loads(line))
        print(agent, flush=True)


def become(given: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    output, null = os.open(given["output"], appended, 0o600), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.update(given["environment"])
    place = given["place"]
    if place is not None:
        where, kind, what, nth, fault = place
        place = interpose.Place(Operation(where, kind, what), nth, fault)
    home = Path(given["home"])
    log = os.open(given["log"], appended | os.O_CLOEXEC, 0o600)
    interpose.install(interpose.Watch(home, log, place))
    # Cells are many: what a development fleet waits for is waited for even less.
    faster = replace(
        DEVELOPMENT,
        turn=0.05,
        checkpoint=0.2,
        window=0.4,
        resend=0.5,
        reconnect=0.3,
        frame_timeout=1.0,
        want=1.0,
    )
    setattr(wiring, "DEVELOPMENT", faster)  # noqa: B010 - a constant, but of this process only
    arguments = (str(home), str(given["port"]), given["broker"], NONE, NONE, "0")
    code = 1
    try:
        code = daemon.main(arguments)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()

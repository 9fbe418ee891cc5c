"""The real decoder, which says how much memory decoding took beyond a decoder that has begun.

Run as a module in the place of `edge_agent.decoder`; bytes are written to the file `PEAK`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from coding.decoding import resume
from edge_agent.decoder import main
from tests.fakes.peak import peak_of

COMMAND: Final = (sys.executable, "-m", "tests.fakes.measured_decoder")


if __name__ == "__main__":
    with peak_of(os.getpid()) as peak:
        status = main(sys.argv[1:], lambda: resume)
        Path(os.environ["PEAK"]).write_text(str(peak()))
    sys.exit(status)

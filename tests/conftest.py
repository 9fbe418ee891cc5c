"""Property tests draw the same examples in every run, so that a change that passes here passes
elsewhere. `make properties` draws others: what it finds becomes an `@example`."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("others", print_blob=True)
settings.load_profile(os.environ.get("OUTRIDER_EXAMPLES", "same"))

"""Property tests draw the same examples in every run, so that a change that passes here passes
elsewhere. `make properties` draws others: what it finds becomes an `@example`. How long an example
takes says more about the machine than about the code."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("others", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("OUTRIDER_EXAMPLES", "same"))

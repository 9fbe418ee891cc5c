"""Rollouts of before keep the conditions and waves that were the default when they started.

Specs are stored without what is as usual, and what is usual has changed: without this, a rollout
would seem to have had other rules than it was judged by.
"""

from __future__ import annotations

import json
from typing import Any, Final

import sqlite_utils

_THEN: Final[dict[str, Any]] = {
    "waves": [{"percent": 100.0}],
    "soak_s": 0.0,
    "error_condition": {
        "phases": ["failed", "rolled_back", "silent"],
        "operator": ">",
        "percent": 10.0,
    },
    "success_condition": {"phases": ["healthy"], "operator": ">=", "percent": 95.0},
    # There were no scores.
    "gates": dict.fromkeys(
        ("error_rate", "out_of_contract", "latency", "class_mix", "confidence", "accuracy")
    ),
}


def migrate(db: sqlite_utils.Database) -> None:
    for id, spec in db.execute("SELECT id, spec FROM rollout").fetchall():
        said = json.dumps(_THEN | json.loads(spec), separators=(",", ":"), sort_keys=True)
        db.execute("UPDATE rollout SET spec = ? WHERE id = ?", (said, id))

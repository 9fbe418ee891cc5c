"""Every certificate that was issued to a device, devices that were retired, pins of tokens."""

from __future__ import annotations

import sqlite_utils


def migrate(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE certificate (
            serial TEXT PRIMARY KEY,          -- hexadecimal
            device TEXT NOT NULL,             -- rows outlive everything: a CRL is made from them
            fingerprint TEXT NOT NULL,
            public_key TEXT NOT NULL,         -- PEM
            not_after_ms INTEGER NOT NULL,
            issued_ms INTEGER NOT NULL,
            revoked_ms INTEGER,
            reason TEXT NOT NULL DEFAULT ''
        ) WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX certificate_device ON certificate (device, issued_ms)")
    db.execute("CREATE INDEX certificate_key ON certificate (public_key)")
    db.execute(
        "CREATE INDEX certificate_revoked ON certificate (not_after_ms) "
        "WHERE revoked_ms IS NOT NULL"
    )
    # `published` of a retired device is -1 once its document is withdrawn.
    db.execute("ALTER TABLE device ADD COLUMN retired_ms INTEGER")
    db.execute("CREATE INDEX device_retired ON device (id) WHERE retired_ms IS NOT NULL")
    db.execute("ALTER TABLE token ADD COLUMN pins TEXT NOT NULL DEFAULT '{}'")

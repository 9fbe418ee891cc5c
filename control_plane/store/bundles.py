"""The catalogue: which model versions there are and how far their approval is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from control_plane.store.table import Row, Slice, Table, cut, dump, load
from protocol.identifiers import Digest, ModelName, Version

BundleState = Literal["draft", "approved", "revoked", "rejected", "withdrawn"]
"""`rejected` (by an approver) and `withdrawn` (by an operator): no draft of it is open."""

CLOSED: Final = ("rejected", "withdrawn")
_STATE = "coalesce(closed, state)"
_COLUMNS = f"digest, model, version, {_STATE}, size_bytes, pushed_ms, card, why"


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One variant: digest of its manifest and of its reference profile."""

    digest: Digest
    profile: Digest


@dataclass(frozen=True, slots=True)
class BundleRow:
    """One model version; `digest` is its index's."""

    digest: Digest
    model: ModelName
    version: Version
    size_bytes: int
    pushed_ms: int
    state: BundleState = "draft"
    manifests: tuple[ManifestRow, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    """Of the person who brought it into its state."""

    @property
    def reference(self) -> str:
        return f"{self.model}/{self.version}"


class Bundles(Table):
    def put(self, bundle: BundleRow) -> None:
        """Insert it. The same bundle again changes nothing; its state is `set_state`'s matter.

        Raises `sqlite3.IntegrityError` if the version exists with another digest.
        """
        with self._write() as connection:
            added = self._do(
                "INSERT INTO bundle (digest, model, version, state, size_bytes, pushed_ms, card) "
                "VALUES (?,?,?,?,?,?,?) ON CONFLICT (digest) DO NOTHING",
                (
                    bundle.digest,
                    bundle.model,
                    bundle.version,
                    bundle.state,
                    bundle.size_bytes,
                    bundle.pushed_ms,
                    dump(bundle.card),
                ),
            )
            if added:
                connection.executemany(
                    "INSERT INTO manifest (bundle, position, digest, profile) VALUES (?, ?, ?, ?)",
                    [
                        (bundle.digest, position, each.digest, each.profile)
                        for position, each in enumerate(bundle.manifests)
                    ],
                )

    def set_state(self, digest: Digest, state: BundleState, why: str = "") -> bool:
        """Whether it was in another state before. A reason for the same state is kept too."""
        closed = state if state in CLOSED else None
        sql = f"UPDATE bundle SET state = ?, closed = ?, why = ? WHERE digest = ? AND {_STATE} <> ?"
        values = ("draft" if closed else state, closed, why, digest, state)
        with self._write():
            changed = self._do(sql, values) > 0
            if why and not changed:
                self._do("UPDATE bundle SET why = ? WHERE digest = ?", (why, digest))
            return changed

    def forget(self, digest: Digest) -> None:
        """Remove a version that was withdrawn, so that its name is free; others stay."""
        self._do("DELETE FROM bundle WHERE digest = ? AND closed = 'withdrawn'", (digest,))

    def get(self, digest: Digest) -> BundleRow | None:
        row = self._one(f"SELECT {_COLUMNS} FROM bundle WHERE digest = ?", (digest,))
        return self._bundle(row) if row else None

    def version(self, model: ModelName, version: Version) -> BundleRow | None:
        row = self._one(
            f"SELECT {_COLUMNS} FROM bundle WHERE model = ? AND version = ?", (model, version)
        )
        return self._bundle(row) if row else None

    def by_manifest(self, prefix: str) -> BundleRow | None:
        """The bundle with a variant of this digest, whole or the first hex digits of it.

        None when there is none, or more than one variant that begins like that. Of several
        bundles with the same variant, the one pushed last.
        """
        start = prefix if prefix.startswith("sha256-") else f"sha256-{prefix}"
        found = self._all(
            "SELECT DISTINCT digest FROM manifest WHERE digest >= ? AND digest < ? || 'g' LIMIT 2",
            (start, start),
        )
        if len(found) != 1:
            return None
        row = self._one(
            f"SELECT {_COLUMNS} FROM bundle WHERE digest IN "
            "(SELECT bundle FROM manifest WHERE digest = ?) ORDER BY pushed_ms DESC, digest",
            (found[0][0],),
        )
        return self._bundle(row) if row else None

    def variants(self, model: ModelName) -> dict[Digest, frozenset[Digest]]:
        """Per bundle of a model the digests of its variants' manifests."""
        rows = self._all(
            "SELECT m.bundle, m.digest FROM manifest m JOIN bundle b ON b.digest = m.bundle "
            "WHERE b.model = ?",
            (model,),
        )
        found: dict[Digest, set[Digest]] = {}
        for bundle, manifest in rows:
            found.setdefault(bundle, set()).add(manifest)
        return {bundle: frozenset(manifests) for bundle, manifests in found.items()}

    def models(self) -> tuple[ModelName, ...]:
        return tuple(row[0] for row in self._all("SELECT DISTINCT model FROM bundle ORDER BY 1"))

    def page(
        self, model: ModelName | None = None, after: tuple[str | int, ...] | None = None,
        limit: int = 50,
    ) -> Slice[BundleRow]:  # fmt: skip
        """By model, then newest first. Key: (model, pushed_ms, digest)."""
        name, pushed_ms, digest = after or ("", 2**62, "")
        rows = self._all(
            f"SELECT {_COLUMNS} FROM bundle WHERE (? IS NULL OR model = ?) AND "
            "(model > ? OR (model = ? AND (pushed_ms < ? OR (pushed_ms = ? AND digest > ?)))) "
            "ORDER BY model, pushed_ms DESC, digest LIMIT ?",
            (model, model, name, name, pushed_ms, pushed_ms, digest, limit + 1),
        )
        found = [self._bundle(row) for row in rows]
        return cut(found, limit, lambda each: (each.model, each.pushed_ms, each.digest))

    def count(self, model: ModelName | None = None) -> int:
        return self._number(
            "SELECT count(*) FROM bundle WHERE ? IS NULL OR model = ?", (model, model)
        )

    def in_state(self, state: BundleState) -> tuple[BundleRow, ...]:
        rows = self._all(
            f"SELECT {_COLUMNS} FROM bundle WHERE {_STATE} = ? ORDER BY pushed_ms, digest", (state,)
        )
        return tuple(self._bundle(row) for row in rows)

    def _bundle(self, row: Row) -> BundleRow:
        digest, model, version, state, size_bytes, pushed_ms, card, why = row
        manifests = self._all(
            "SELECT digest, profile FROM manifest WHERE bundle = ? ORDER BY position", (digest,)
        )
        return BundleRow(
            digest,
            model,
            version,
            size_bytes,
            pushed_ms,
            state,
            tuple(ManifestRow(*each) for each in manifests),
            load(card, dict[str, Any]),
            why,
        )

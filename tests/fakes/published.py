"""A control plane without an API: pushes bundles of the toy model for devices that say what they
have and can decode."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from control_plane.blobs import Blobs
from control_plane.catalog import layout
from control_plane.deltas import Deltas, Making
from control_plane.encode import making
from control_plane.push import Catalogue, push
from control_plane.settings import Settings
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.store.bundles import BundleRow
from protocol.identifiers import Digest
from protocol.payload import KNOWN_FEATURES, names_of
from protocol.reported import ModelState, ReportedState
from tests.fakes.bundles import BundleOnDisk, make_bundle

NOW_MS = 1_795_000_000_000
MODEL = "toy"


@dataclass
class Origin:
    """`settings.home` is made; `told` has the progress of the last push."""

    settings: Settings
    make: Making = making.make
    told: list[tuple[int, int, str]] = field(default_factory=list)
    store: Store = field(init=False)
    blobs: Blobs = field(init=False)
    repository: Repository = field(init=False)
    deltas: Deltas = field(init=False)

    def __post_init__(self) -> None:
        home = self.settings
        self.store = Store(home.store)
        self.blobs = Blobs(home.blobs)
        self.repository = Repository.create_dev(home.tuf, home.keys, home.fleet, NOW_MS)
        self.restart()

    def restart(self) -> None:
        """As another process: what was only remembered is gone."""
        self.deltas = Deltas(
            self.store,
            self.blobs,
            self.settings,
            lambda: NOW_MS,
            self.make,
        )

    def bundle(self, version: str, scale: float = 1.0, **more: object) -> BundleOnDisk:
        """Close scales make weights that are close."""
        folder = self.settings.home / "made"
        return make_bundle(
            folder,
            MODEL,
            version,
            **{"features": 300, "scale": scale, **more},  # type: ignore[arg-type]
        )

    def push(self, bundle: BundleOnDisk) -> BundleRow:
        blobs: dict[Digest, bytes | Path] = {
            member.digest: bundle.path / member.path for member in bundle.variant.members
        }
        blobs[bundle.manifest] = (bundle.path / "manifest.json").read_bytes()
        place = self.settings.home / f"{bundle.version}.bundle"
        laid = layout.write(place, (bundle.path / "index.json").read_bytes(), blobs)
        to = Catalogue(self.settings, self.store, self.blobs, self.repository, self.deltas)
        self.told.clear()
        return push(laid, to, NOW_MS, lambda *each: self.told.append(each), who="ana")

    def hear(
        self, name: str, runs: Digest | None = None, features: int = KNOWN_FEATURES, order: int = 1
    ) -> None:
        """A device says what it can decode, and which bundle it runs."""
        id = f"{self.settings.fleet}-{name}"
        if not self.store.devices.is_member(id):
            self.store.devices.enrol(id, {}, None, NOW_MS)
        models = {MODEL: ModelState(current=runs, serving=runs)} if runs else {}
        state = ReportedState(order, "0.1", features=names_of(features), models=models)
        self.store.devices.put_state(id, state, NOW_MS)

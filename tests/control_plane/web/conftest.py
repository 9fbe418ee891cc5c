"""A whole API with real store, repository and certificates, without broker and ticker."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from control_plane.blobs import Blobs
from control_plane.deltas import Deltas
from control_plane.fleet.authority import Authority
from control_plane.fleet.enrolment import Enrolment
from control_plane.init import init_dev
from control_plane.settings import Settings
from control_plane.signing import create
from control_plane.signing.create import dev_approver_keys
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.web.app import create_app
from control_plane.web.parts import PartHealth, Parts
from control_plane.web.work import Work
from protocol.codec import encode
from protocol.enrolment import Broker
from protocol.identifiers import digest_of
from protocol.plan import DenyList
from protocol.reported import ModelState, ReportedState
from tests.fakes.bundles import BundleOnDisk, make_bundle
from tests.fakes.operator import packed, signature
from tests.fakes.waiting import until

NOW_MS = 1_795_000_000_000
BASE = "/v1/fleets/north"


@dataclass
class Api:
    """`get("devices")` is below the fleet; a leading slash is absolute."""

    parts: Parts
    client: TestClient
    folder: Path
    wakes: list[None]
    clock: list[int]
    health: dict[str, PartHealth] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return self.parts.store

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        where = path if path.startswith("/") else f"{BASE}/{path}"
        answer: httpx.Response = self.client.request(method, where, **more)
        return answer

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.call("GET", path, params=query)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.call("POST", path, json=body if body is not None else {}, **more)

    def put(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.call("PUT", path, json=body, **more)

    def patch(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.call("PATCH", path, json=body, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.call("DELETE", path, **more)

    # --- what most tests begin with ---------------------------------------------------------------

    def bundle(self, version: str = "v1", model: str = "digits", **more: Any) -> BundleOnDisk:
        """A bundle of its own content, as it would lie on a device."""
        return make_bundle(self.folder / "bundles", model, version, **more)

    def packed(self, bundle: BundleOnDisk) -> bytes:
        """The tar that an operator pushes."""
        return packed(bundle, self.folder)

    def push(self, bundle: BundleOnDisk, **more: Any) -> httpx.Response:
        """The operation, once it has ended."""
        answer = self.call("POST", "bundles", content=self.packed(bundle), **more)
        assert answer.status_code == 202, answer.text
        place = answer.headers["location"]
        until(lambda: self.get(place).json()["state"] in ("succeeded", "failed"))
        return self.get(place)

    def pushed(self, version: str = "v1", model: str = "digits", **more: Any) -> BundleOnDisk:
        bundle = self.bundle(version, model, **more)
        assert self.push(bundle).json()["state"] == "succeeded"
        return bundle

    def sign(self, reference: str, key: str = create.APPROVER_KEY) -> httpx.Response:
        """What an approver does: verify, sign, send. `key` is a file among the dev keys."""
        model, _, version = reference.partition("/")
        path = f"models/{model}/versions/{version}"
        draft = self.get(f"{path}/draft").json()
        return self.post(f"{path}/signatures", self.signature(draft, key))

    def signature(self, draft: Any, key: str = create.APPROVER_KEY) -> dict[str, Any]:
        """The body that adds this key's signature to a draft."""
        trust = self.get("tuf").json()
        return signature(trust, draft, self.parts.settings, self.folder, self.clock[0], key)

    def approved(self, version: str = "v1", model: str = "digits", **more: Any) -> BundleOnDisk:
        """Pushed, and signed by as many as must."""
        bundle = self.pushed(version, model, **more)
        for key in dev_approver_keys(self.parts.settings.keys):
            answer = self.sign(f"{model}/{version}", key.name)
            assert answer.status_code == 201, answer.text
            if answer.json()["complete"]:
                break
        self.publish()
        return bundle

    def tick_by_itself(self) -> None:
        """From now on what is woken up publishes, as the ticker would within a moment."""
        self.parts = replace(self.parts, wake=self.publish)
        app: Any = self.client.app
        app.state.parts = self.parts

    def publish(self) -> None:
        """What the ticker does with the metadata."""
        deny = encode(DenyList("north", 1))
        self.parts.repository.publish({}, deny, self.clock[0])

    def enrol(self, name: str, **labels: str) -> None:
        certificate = digest_of(name.encode())
        self.store.devices.enrol(f"north-{name}", labels, certificate, self.clock[0])

    def report(self, name: str, order: int = 1, **models: ModelState) -> None:
        """The device says that this is its state."""
        state = ReportedState(order, "0.1", models=models)
        self.store.devices.put_state(f"north-{name}", state, self.clock[0])


@pytest.fixture(scope="session")
def new_home(tmp_path_factory):
    """Keys take time, so they are made once and copied."""
    return init_dev(tmp_path_factory.mktemp("new") / "home", "north", now_ms=NOW_MS)


@pytest.fixture(scope="session")
def quorum_home(tmp_path_factory):
    """Of a fleet in which two of three approvers sign."""
    home = tmp_path_factory.mktemp("quorum") / "home"
    return init_dev(home, "north", now_ms=NOW_MS, approvers=("ana", "bo", "cy"))


@pytest.fixture
def api(tmp_path, new_home):
    settings = replace(new_home, home=tmp_path / "home")
    shutil.copytree(new_home.home, settings.home)
    store = Store(settings.store)
    wakes: list[None] = []
    clock = [NOW_MS]
    health: dict[str, PartHealth] = {"api": PartHealth(True), "broker": PartHealth(True)}
    work = Work(store, lambda: clock[0])
    parts = _parts(settings, store, work, wakes, clock, health)
    token = settings.operator_token.read_text().strip()
    with TestClient(
        create_app(parts),
        raise_server_exceptions=False,
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        made = Api(parts, client, tmp_path, wakes, clock, health)
        made.publish()
        yield made
    work.stop()
    store.close()


def _parts(
    settings: Settings,
    store: Store,
    work: Work,
    wakes: list[None],
    clock: list[int],
    health: dict[str, PartHealth],
) -> Parts:
    repository = Repository.open(settings.tuf, settings.keys, settings.fleet)
    enrolment = Enrolment(
        settings.fleet,
        Authority(settings.ca, settings.fleet),
        store,
        "https://127.0.0.1:8400",
        Broker("127.0.0.1", 8883),
        lambda: repository.roots()[1],
        dev=True,
    )
    blobs = Blobs(settings.blobs)
    return Parts(
        settings=settings,
        store=store,
        blobs=blobs,
        repository=repository,
        enrolment=enrolment,
        work=work,
        deltas=Deltas(store, blobs, settings, lambda: clock[0]),
        now_ms=lambda: clock[0],
        wake=lambda: wakes.append(None),
        health=lambda: health,
    )

"""The control plane's side of a measurement: its enrolment and its API for real, a publisher that
says once what a broker should retain. Everything listens in the namespace that it is made in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control_plane.blobs import Blobs
from control_plane.broker import Broker, Certificates
from control_plane.deltas import Deltas
from control_plane.encode import Encoded
from control_plane.fleet.authority import Authority
from control_plane.fleet.enrolment import Enrolment
from control_plane.init import init_dev
from control_plane.link import Link
from control_plane.mosquitto import control_identity
from control_plane.settings import Settings
from control_plane.signing.repository import Repository
from control_plane.store import Store
from control_plane.store.payloads import EncodedPayload
from control_plane.web.app import create_app
from control_plane.web.parts import Parts
from control_plane.web.server import ApiServer, listen
from control_plane.web.work import Work
from edge_agent.enrol import device_key, settle
from edge_agent.identity import FOLDER, KEY
from protocol import enrolment
from protocol.identifiers import digest_of
from protocol.link import Address
from protocol.payload import LISTS_SUFFIX
from tests.fakes.device_keys import csr

FLEET: Final = "local"
BROKER: Final = 8883
API: Final = 8400
_CONFIRMED_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Origin:
    host: str
    parts: Parts

    @property
    def settings(self) -> Settings:
        return self.parts.settings

    @property
    def authority(self) -> Authority:
        return Authority(self.settings.ca, FLEET)

    def enrol(self, home: Path, name: str) -> None:
        """What enrolment leaves on a device, in `home`."""
        folder = home / FOLDER
        folder.mkdir(parents=True)
        key, now_ms = device_key(folder / KEY), self.parts.now_ms()
        token = enrolment.decode_token(self.parts.enrolment.create_token(now_ms)).t
        request = enrolment.EnrolRequest(token, csr(key), name)
        answer = self.parts.enrolment.enrol(request, now_ms)
        settle(
            folder,
            answer,
            key,
            digest_of(answer.root.encode()),
            url=f"https://{self.host}:{API}",
            api_ca=self.authority.certificate("api-ca").read_text(),
        )

    def put(self, model: str, payloads: Sequence[Encoded]) -> None:
        """The API serves them from now on."""
        self.settings.payloads.mkdir(exist_ok=True)
        for each in payloads:
            copy_payload(each, self.settings.payloads)
            path = str((self.settings.payloads / each.path.name).relative_to(self.settings.home))
            # Whose file it is makes no difference to who reads the payload.
            file = each.entry.payload
            row = EncodedPayload(model, file, each.entry, path, self.parts.now_ms())
            self.parts.store.payloads.put(row)

    def publish(self, retained: Mapping[str, bytes]) -> None:
        """Returns when the broker has confirmed all of it."""
        control = control_identity(FLEET)
        address = Address(self.host, BROKER, self.authority.control)
        link = Link(address, control, on_message=lambda *_: None, on_state=lambda *_: None)
        link.start()
        while not link.connected:
            time.sleep(0.01)
        for topic, data in retained.items():
            link.publish(topic, data, retain=True)
        if not link.confirmed(_CONFIRMED_S):
            raise SystemExit("the broker does not confirm what is published")
        link.stop()


def copy_payload(payload: Encoded, folder: Path) -> None:
    """As mirrors are made: the payload and its frame lists, under their own names."""
    for path in (payload.path, payload.path.with_name(payload.path.name + LISTS_SUFFIX)):
        shutil.copy(path, folder)


@contextmanager
def origin(directory: Path, host: str) -> Iterator[Origin]:
    """Broker and API on `host`. Raises `OSError`, `OutriderError`."""
    settings = init_dev(directory / "home", FLEET, hosts=[host], api_port=API, broker_port=BROKER)
    store = Store(settings.store)
    work = Work(store, _now_ms)
    authority = Authority(settings.ca, FLEET)
    repository = Repository.open(settings.tuf, settings.keys, FLEET)
    blobs = Blobs(settings.blobs)
    parts = Parts(
        settings=settings,
        store=store,
        blobs=blobs,
        repository=repository,
        enrolment=Enrolment(
            FLEET,
            authority,
            store,
            f"https://{host}:{API}",
            enrolment.Broker(host, BROKER),
            lambda: repository.roots()[1],
        ),
        work=work,
        deltas=Deltas(store, blobs, settings, _now_ms),
        now_ms=_now_ms,
        wake=lambda: None,
        health=dict,
    )
    certificates = Certificates(
        authority.certificate("server"),
        authority.key("server"),
        authority.certificate("device-ca"),
    )
    broker = Broker(directory / "broker", FLEET, certificates, host=host, port=BROKER)
    api = ApiServer(
        create_app(parts), listen(host, API), authority.certificate("api"), authority.key("api")
    )
    try:
        broker.start()
        api.start()
        yield Origin(host, parts)
    finally:
        api.stop()
        broker.stop()
        work.stop()
        store.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

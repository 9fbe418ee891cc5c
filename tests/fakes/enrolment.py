"""Tokens and devices in dictionaries, with the atomicity that the real store has."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from control_plane.store.certificates import Certificate
from protocol.device import Pin
from protocol.errors import InvalidRequest
from protocol.identifiers import split_device_id


@dataclass(frozen=True, slots=True)
class FakeToken:
    labels: Mapping[str, str]
    name: str | None
    expires_ms: int
    used_ms: int | None = None
    pins: Mapping[str, Pin] = field(default_factory=dict)


@dataclass
class FakeTokens:
    kept: dict[str, FakeToken] = field(default_factory=dict)

    def create(
        self,
        hash: str,
        labels: Mapping[str, str],
        name: str | None,
        expires_ms: int,
        pins: Mapping[str, Pin] | None = None,
    ) -> None:
        self.kept[hash] = FakeToken(dict(labels), name, expires_ms, pins=dict(pins or {}))

    def get(self, hash: str) -> FakeToken | None:
        return self.kept.get(hash)

    def consume(self, hash: str, now_ms: int) -> FakeToken | None:
        token = self.kept.get(hash)
        if token is None or token.used_ms is not None or token.expires_ms <= now_ms:
            return None
        self.kept[hash] = replace(token, used_ms=now_ms)
        return self.kept[hash]


@dataclass(frozen=True, slots=True)
class FakeDevice:
    id: str
    labels: Mapping[str, str]
    certificate: str | None
    pins: Mapping[str, Pin] = field(default_factory=dict)
    retired_ms: int | None = None


@dataclass
class FakeDevices:
    kept: dict[str, FakeDevice] = field(default_factory=dict)

    def get(self, name: str) -> FakeDevice | None:
        near = (each for id, each in self.kept.items() if split_device_id(id)[1] == name)
        return self.kept.get(name) or next(near, None)

    def enrol(
        self,
        id: str,
        labels: Mapping[str, str],
        certificate: str | None,
        now_ms: int,
        pins: Mapping[str, Pin] | None = None,
    ) -> object:
        if id in self.kept:
            raise InvalidRequest("OUT-A203", f"{split_device_id(id)[1]} is taken")
        self.kept[id] = FakeDevice(id, dict(labels), certificate, dict(pins or {}))
        return id

    def certify(self, id: str, certificate: str, now_ms: int) -> object:
        self.kept[id] = replace(self.kept[id], certificate=certificate)
        return id

    def retire(self, id: str, now_ms: int) -> bool:
        was_in = self.kept[id].retired_ms is None
        if was_in:
            self.kept[id] = replace(self.kept[id], retired_ms=now_ms)
        return was_in


@dataclass
class FakeCertificates:
    kept: dict[str, Certificate] = field(default_factory=dict)

    def add(self, certificate: Certificate) -> None:
        self.kept[certificate.serial] = certificate

    def of(self, device: str) -> tuple[Certificate, ...]:
        own = [each for each in self.kept.values() if each.device == device]
        return tuple(sorted(own, key=lambda each: (-each.issued_ms, each.serial)))

    def owners(self, public_key: str) -> tuple[str, ...]:
        return tuple({c.device: None for c in self.kept.values() if c.public_key == public_key})

    def revoke(
        self, device: str, now_ms: int, reason: str, *, but_keys: tuple[str, ...] = ()
    ) -> int:
        meant = [
            each
            for each in self.of(device)
            if each.revoked_ms is None and each.public_key not in but_keys
        ]
        for each in meant:
            self.kept[each.serial] = replace(each, revoked_ms=now_ms, reason=reason)
        return len(meant)


@dataclass
class FakeEnrolmentStore:
    tokens: FakeTokens = field(default_factory=FakeTokens)
    devices: FakeDevices = field(default_factory=FakeDevices)
    certificates: FakeCertificates = field(default_factory=FakeCertificates)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        with self.lock:
            tokens, devices, certificates = self.tokens, self.devices, self.certificates
            before = copy.copy(tokens.kept), copy.copy(devices.kept), copy.copy(certificates.kept)
            try:
                yield
            except BaseException:
                tokens.kept, devices.kept, certificates.kept = before
                raise

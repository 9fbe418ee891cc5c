"""Tokens and devices in dictionaries, with the atomicity that the real store has."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from protocol.errors import InvalidRequest
from protocol.identifiers import split_device_id


@dataclass(frozen=True, slots=True)
class FakeToken:
    labels: Mapping[str, str]
    name: str | None
    expires_ms: int
    used_ms: int | None = None


@dataclass
class FakeTokens:
    kept: dict[str, FakeToken] = field(default_factory=dict)

    def create(
        self, hash: str, labels: Mapping[str, str], name: str | None, expires_ms: int
    ) -> None:
        self.kept[hash] = FakeToken(dict(labels), name, expires_ms)

    def get(self, hash: str) -> FakeToken | None:
        return self.kept.get(hash)

    def consume(self, hash: str, now_ms: int) -> FakeToken | None:
        token = self.kept.get(hash)
        if token is None or token.used_ms is not None or token.expires_ms <= now_ms:
            return None
        self.kept[hash] = replace(token, used_ms=now_ms)
        return self.kept[hash]


@dataclass
class FakeDevices:
    kept: dict[str, tuple[Mapping[str, str], str | None]] = field(default_factory=dict)

    def get(self, name: str) -> object | None:
        return next((each for each in self.kept if name in (each, split_device_id(each)[1])), None)

    def enrol(
        self, id: str, labels: Mapping[str, str], certificate: str | None, now_ms: int
    ) -> object:
        if id in self.kept:
            raise InvalidRequest("OUT-A203", f"{split_device_id(id)[1]} is taken")
        self.kept[id] = (labels, certificate)
        return id


@dataclass
class FakeEnrolmentStore:
    tokens: FakeTokens = field(default_factory=FakeTokens)
    devices: FakeDevices = field(default_factory=FakeDevices)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        with self.lock:
            before = copy.copy(self.tokens.kept), copy.copy(self.devices.kept)
            try:
                yield
            except BaseException:
                self.tokens.kept, self.devices.kept = before
                raise

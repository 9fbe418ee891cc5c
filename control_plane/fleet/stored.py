"""What identity asks of a store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from control_plane.store.certificates import Certificate
from protocol.device import Pin
from protocol.identifiers import DeviceId, Digest, ModelName


class StoredToken(Protocol):
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def pins(self) -> Mapping[ModelName, Pin]: ...
    @property
    def name(self) -> str | None: ...
    @property
    def expires_ms(self) -> int: ...
    @property
    def used_ms(self) -> int | None: ...


class TokenStore(Protocol):
    def create(
        self,
        hash: str,
        labels: Mapping[str, str],
        name: str | None,
        expires_ms: int,
        pins: Mapping[ModelName, Pin] | None = None,
    ) -> None: ...

    def get(self, hash: str) -> StoredToken | None: ...

    def consume(self, hash: str, now_ms: int) -> StoredToken | None:
        """Atomic: of two who try, one gets it. None when it is unknown, used or expired."""


class StoredDevice(Protocol):
    @property
    def id(self) -> DeviceId: ...
    @property
    def retired_ms(self) -> int | None: ...


class DeviceStore(Protocol):
    def get(self, name: str) -> StoredDevice | None: ...

    def enrol(
        self,
        id: DeviceId,
        labels: Mapping[str, str],
        certificate: str | None,
        now_ms: int,
        pins: Mapping[ModelName, Pin] | None = None,
    ) -> object:
        """Raises `InvalidRequest` OUT-A203 when there is, or was, a device of this id."""

    def certify(self, id: DeviceId, certificate: Digest, now_ms: int) -> object:
        """Name another certificate in its document."""


class CertificateStore(Protocol):
    def add(self, certificate: Certificate) -> None: ...
    def of(self, device: DeviceId) -> tuple[Certificate, ...]: ...
    def owners(self, public_key: str) -> tuple[DeviceId, ...]: ...
    def revoke(
        self, device: DeviceId, now_ms: int, reason: str, *, but_keys: tuple[str, ...] = ()
    ) -> int: ...


class EnrolmentStore(Protocol):
    @property
    def tokens(self) -> TokenStore: ...
    @property
    def devices(self) -> DeviceStore: ...
    @property
    def certificates(self) -> CertificateStore: ...

    def write(self) -> AbstractContextManager[Any]:
        """One transaction around everything inside."""

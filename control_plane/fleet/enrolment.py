"""Letting devices in: one-time tokens out, certificates for those who bring one back."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from control_plane.fleet.authority import Authority, fingerprint, public_key
from protocol.device import MAX_LABELS
from protocol.enrolment import (
    TOKEN_LIFE_MS,
    Broker,
    EnrolAnswer,
    EnrolRequest,
    Token,
    encode_token,
)
from protocol.errors import InvalidRequest
from protocol.identifiers import (
    FleetName,
    device_id,
    digest_of,
    label_key,
    label_value,
    local_name,
)
from protocol.wording import duration

SECRET_BYTES: Final = 32
_NAME_TRIES: Final = 32


class StoredToken(Protocol):
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def name(self) -> str | None: ...
    @property
    def expires_ms(self) -> int: ...
    @property
    def used_ms(self) -> int | None: ...


class TokenStore(Protocol):
    def create(
        self, hash: str, labels: Mapping[str, str], name: str | None, expires_ms: int
    ) -> None: ...

    def get(self, hash: str) -> StoredToken | None: ...

    def consume(self, hash: str, now_ms: int) -> StoredToken | None:
        """Atomic: of two who try, one gets it. None when it is unknown, used or expired."""


class DeviceStore(Protocol):
    def get(self, name: str) -> object | None: ...

    def enrol(
        self, id: str, labels: Mapping[str, str], certificate: str | None, now_ms: int
    ) -> object:
        """Raises `InvalidRequest` OUT-A203 when there is a device of this id."""


class EnrolmentStore(Protocol):
    @property
    def tokens(self) -> TokenStore: ...
    @property
    def devices(self) -> DeviceStore: ...

    def write(self) -> AbstractContextManager[Any]:
        """One transaction around everything inside."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Safe to use from many threads at once, if the store is."""

    fleet: FleetName
    authority: Authority
    store: EnrolmentStore
    api: str
    """Address that goes into tokens, https://host:port."""
    broker: Broker
    root: Callable[[], bytes]
    """root.json that a new device starts from."""
    dev: bool = False

    def create_token(
        self, now_ms: int, *, labels: Mapping[str, str] | None = None, name: str | None = None
    ) -> str:
        """Text for people. Only the hash of its secret is kept; it lives for 24 h.

        Raises `InvalidRequest` OUT-S120 for a label or name that is none, OUT-A203 for a name
        that is taken.
        """
        chosen = dict(labels or {})
        try:
            for key, value in chosen.items():
                label_value(value)
                if label_key(key) == "id" or key.startswith(("fact/", "runs/")):
                    raise ValueError(f"label {key} is set by the control plane")
            if len(chosen) > MAX_LABELS:
                raise ValueError(f"at most {MAX_LABELS} labels")
            if name is not None:
                local_name(name)
        except ValueError as error:
            raise InvalidRequest("OUT-S120", str(error)) from error
        if name is not None and self.store.devices.get(name) is not None:
            raise InvalidRequest("OUT-A203", f"{name} is taken")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        self.store.tokens.create(_hash(secret), chosen, name, now_ms + TOKEN_LIFE_MS)
        authority = base64.b64encode(self.authority.api_ca_der).decode()
        return encode_token(Token(self.api, secret, digest_of(self.root()), authority))

    def enrol(self, request: EnrolRequest, now_ms: int) -> EnrolAnswer:
        """Take the token and make the device, both or neither.

        Raises `InvalidRequest`: OUT-A210 (certificate request), OUT-A201 (token expired), OUT-A202
        (unknown or used), OUT-A203 (name taken). None of them uses up the token.
        """
        # Cheap and safe to tell anybody; so a broken request does not reach the store.
        public_key(request.csr.encode())
        hashed = _hash(request.token)
        with self.store.write():
            token = self.store.tokens.consume(hashed, now_ms)
            if token is None:
                raise self._refused(hashed, now_ms)
            if token.name is not None and request.name not in (None, token.name):
                raise InvalidRequest("OUT-A202", f"it is for {token.name}, not {request.name}")
            device = device_id(self.fleet, token.name or request.name or self._free_name())
            certificate = self.authority.sign_csr(request.csr.encode(), device, now_ms)
            self.store.devices.enrol(device, token.labels, fingerprint(certificate), now_ms)
        return EnrolAnswer(
            device=device,
            fleet=self.fleet,
            certificate=certificate.decode(),
            broker_ca=self.authority.broker_ca.decode(),
            broker=self.broker,
            root=self.root().decode(),
            dev=self.dev,
            labels=dict(token.labels),
        )

    def _refused(self, hashed: str, now_ms: int) -> InvalidRequest:
        known = self.store.tokens.get(hashed)
        if known is None:
            return InvalidRequest("OUT-A202", "this control plane did not make it")
        if known.used_ms is not None:
            return InvalidRequest("OUT-A202", "it was used")
        ago = duration((now_ms - known.expires_ms) / 1000)
        return InvalidRequest("OUT-A201", f"{ago} ago; tokens live 24 h and enrol one device")

    def _free_name(self) -> str:
        for _ in range(_NAME_TRIES):
            name = f"dev-{secrets.token_hex(2)}"
            if self.store.devices.get(name) is None:
                return name
        raise InvalidRequest("OUT-A203", "no generated name is free", do="give one with --name")


def _hash(secret: str) -> str:
    return digest_of(secret.encode())

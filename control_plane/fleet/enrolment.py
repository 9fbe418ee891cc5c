"""Letting devices in, and keeping them in: tokens out, certificates for who brings one back."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.fleet.authority import Authority, public_key
from control_plane.fleet.certificates import key_text, recorded
from control_plane.fleet.renewal import renew
from control_plane.fleet.stored import EnrolmentStore
from protocol.device import MAX_LABELS, Pin
from protocol.enrolment import (
    TOKEN_LIFE_MS,
    Broker,
    EnrolAnswer,
    EnrolRequest,
    OfflineAnswer,
    OfflineRequest,
    RenewAnswer,
    RenewRequest,
    Token,
    encode_token,
)
from protocol.errors import InvalidRequest
from protocol.identifiers import (
    DeviceId,
    FleetName,
    ModelName,
    device_id,
    digest_of,
    label_key,
    label_value,
    local_name,
)
from protocol.wording import duration

SECRET_BYTES: Final = 32
_NAME_TRIES: Final = 32


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
        self,
        now_ms: int,
        *,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        pins: Mapping[ModelName, Pin] | None = None,
    ) -> str:
        """Text for people. Only the hash of its secret is kept; it lives for 24 h.

        Raises `InvalidRequest` OUT-S120 for a label or name that is none, OUT-A203 for a name
        that is taken.
        """
        chosen = dict(labels or {})
        _check(chosen, name)
        if name is not None and self.store.devices.get(name) is not None:
            raise InvalidRequest("OUT-A203", f"{name} is taken")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        self.store.tokens.create(_hash(secret), chosen, name, now_ms + TOKEN_LIFE_MS, pins)
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
            name = token.name or request.name
            device, certificate = self._admit(request.csr, name, token.labels, token.pins, now_ms)
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

    def renew(self, request: RenewRequest, now_ms: int) -> RenewAnswer:
        """The next certificate, and where everything is by now. Errors as of `renewal.renew`."""
        return RenewAnswer(
            certificate=renew(self.authority, self.store, request, now_ms).decode(),
            broker_ca=self.authority.broker_ca.decode(),
            api_ca=self.authority.api_ca.decode(),
            broker=self.broker,
            url=self.api,
        )

    def enrol_offline(
        self, request: OfflineRequest, labels: Mapping[str, str], now_ms: int
    ) -> OfflineAnswer:
        """Admit a device whose request an operator brought: the operator is its token.

        Once only. Raises `InvalidRequest` OUT-A210 for a key that a device of the fleet has
        already, besides what is wrong with the request; OUT-S120 for labels; OUT-A203 (name taken).
        """
        chosen = dict(labels)
        _check(chosen, request.name)
        key = key_text(public_key(request.csr.encode()))
        with self.store.write():
            for id in self.store.certificates.owners(key):
                owner = self.store.devices.get(id)
                if owner is not None and owner.retired_ms is None:
                    raise InvalidRequest(
                        "OUT-A210",
                        f"its key is that of {id}: the request was answered already",
                        do=f"if that answer was lost: outrider device retire {id}",
                    )
            device, certificate = self._admit(request.csr, request.name, chosen, {}, now_ms)
        root = self.root()
        return OfflineAnswer(
            device=device,
            fleet=self.fleet,
            certificate=certificate.decode(),
            broker_ca=self.authority.broker_ca.decode(),
            broker=self.broker,
            root=root.decode(),
            url=self.api,
            api_ca=self.authority.api_ca.decode(),
            root_digest=digest_of(root),
            dev=self.dev,
            labels=chosen,
        )

    def _admit(
        self,
        csr: str,
        name: str | None,
        labels: Mapping[str, str],
        pins: Mapping[ModelName, Pin],
        now_ms: int,
    ) -> tuple[DeviceId, bytes]:
        """Make the device and its first certificate (PEM). Inside a transaction."""
        device = device_id(self.fleet, name or self._free_name())
        pem = self.authority.sign_csr(csr.encode(), device, now_ms)
        certificate = recorded(pem, device, now_ms)
        self.store.devices.enrol(device, labels, certificate.fingerprint, now_ms, pins)
        self.store.certificates.add(certificate)
        return device, pem

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


def _check(labels: Mapping[str, str], name: str | None) -> None:
    """Raises `InvalidRequest` OUT-S120."""
    try:
        for key, value in labels.items():
            label_value(value)
            if label_key(key) == "id" or key.startswith(("fact/", "runs/")):
                raise ValueError(f"label {key} is set by the control plane")
        if len(labels) > MAX_LABELS:
            raise ValueError(f"at most {MAX_LABELS} labels")
        if name is not None:
            local_name(name)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error


def _hash(secret: str) -> str:
    return digest_of(secret.encode())

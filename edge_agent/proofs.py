"""How this device reads payloads from its control plane: which server that is, and the proof of
who asks."""

from __future__ import annotations

import base64
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.asking import Server
from edge_agent.identity import Identity
from edge_agent.renew import signing_key
from protocol.identifiers import Digest
from protocol.payload import payload_proof_bytes

SCHEME: Final = "Outrider-Device"


class Proofs:
    """`follow` comes from one thread, `proof` from another."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._last: tuple[Digest, str] | None = None

    def follow(self, identity: Identity) -> None:
        """Renewal may have told where the control plane is now."""
        self._identity = identity

    def server(self) -> Server | None:
        return self._identity.server

    def proof(self, payload: Digest) -> str:
        """It opens one payload to this device, at any time: so one is enough for all requests.

        Raises `InvalidRequest` OUT-D403 if this device's key cannot be read.
        """
        last = self._last
        if last is not None and last[0] == payload:
            return last[1]
        device = self._identity.device
        key = signing_key(self._identity.folder)
        signature = key.sign(payload_proof_bytes(device, payload), ec.ECDSA(hashes.SHA256()))
        said = f"{SCHEME} {device}:{base64.b64encode(signature).decode()}"
        self._last = (payload, said)
        return said

"""What a person is given to call a control plane: a name, a token, and the text that carries it.

The text names the control plane (address, fleet, certificate authority) and its root of trust, so
whoever has it takes nothing on faith; the token in it says who they are.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass
from typing import Final

from control_plane.roles import LOCAL
from protocol.codec import decode, encode
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import Digest, FleetName, digest, fleet_name

TOKEN_BYTES: Final = 32
MAX_TEXT: Final = 8 * 1024
"""Letters, checked before anything is parsed."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TAKEN: Final = frozenset({LOCAL, "ticker", "gate", "device", "control-plane", "outrider"})
"""Who else makes changes: the audit trail must not mix them up."""
_ADDRESS: Final = re.compile(
    r"https://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{32,128}")


@dataclass(frozen=True, slots=True)
class Login:
    """One-letter names on the wire, as in enrolment tokens: it is also shown as a QR code."""

    u: str
    """Address of the control plane, https://host:port."""
    t: str
    """The token."""
    f: FleetName
    c: str = ""
    """The certificate authority of its API: DER, base64; "" for those that the system trusts."""
    r: Digest | None = None
    """Digest of root.json; None while the fleet has no root of trust."""

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.u):
            raise ValueError(f"the address is https://host:port, got {self.u!r:.80}")
        if not _TOKEN.fullmatch(self.t):
            raise ValueError("a token is 32 to 128 letters of base64url")
        fleet_name(self.f)
        base64.b64decode(self.c, validate=True)
        if self.r is not None:
            digest(self.r)

    def __repr__(self) -> str:
        """Without the token: what is printed or logged by mistake gives nobody access."""
        return f"Login(u={self.u!r}, f={self.f!r})"

    @property
    def authority(self) -> bytes:
        """DER; empty for those that the system trusts."""
        return base64.b64decode(self.c, validate=True)


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def person_name(text: str) -> str:
    """A name that the audit trail can tell from all others. Raises `ValueError`."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"a small letter, then at most 31 of a-z, 0-9 and -, got {text!r:.80}")
    if text in _TAKEN:
        raise ValueError(f"{text} is not a person's name here: choose another")
    return text


def encode_login(login: Login) -> str:
    return base64.urlsafe_b64encode(encode(login)).decode().rstrip("=")


def decode_login(text: str) -> Login:
    """From what people paste: whitespace anywhere. Raises `InvalidRequest` OUT-S120."""
    compact = "".join(text[: 2 * MAX_TEXT].split())
    try:
        data = base64.b64decode(
            compact.encode("ascii") + b"=" * (-len(compact) % 4), altchars=b"-_", validate=True
        )
        return decode(data, Login, limit=MAX_TEXT)
    # Neither what was given nor what is wrong with it is repeated: it may be a secret.
    except (ValueError, binascii.Error, PeerError):
        raise InvalidRequest(
            "OUT-S120",
            "this is not the text of a login",
            do="an admin makes one: outrider auth create > FILE",
        ) from None

"""One question to the control plane over HTTPS, to exactly the server that this device may trust.

The certificate authority is given, none of the system's is believed. Certificates are checked
against trusted time where there is one, never against the system clock. An answer has at most
`MAX_ANSWER` bytes and comes within a bounded time, however slowly it trickles.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final

from protocol.codec import decode
from protocol.enrolment import MAX_ANSWER
from protocol.errors import InvalidRequest, OutriderError, PeerError, TrustError, Unavailable
from protocol.problems import CATALOGUE

TIMEOUT_S: Final = 30.0
_WHOLE: Final = 4
"""Timeouts within which the whole answer must have come."""
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl` has no name for."""


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    """https://host:port, for people."""
    host: str
    port: int
    authority: str | bytes
    """PEM text, or DER."""


def ask(
    server: Server,
    path: str,
    body: bytes,
    *,
    now_ms: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """POST `body`; the answer's bytes. `now_ms` is trusted time; None does not check times.

    Raises `InvalidRequest` and `Unavailable` in the control plane's own words where they are of
    the catalogue; `TrustError` OUT-T118 for another server, or one whose certificate has expired;
    `Unavailable` OUT-N104 if there is none; `PeerError` for an answer that makes no sense;
    `ValueError` for an authority that cannot be read.
    """
    context = trusting(server.authority)
    connection = http.client.HTTPSConnection(
        server.host, server.port, timeout=timeout_s, context=context
    )
    try:
        connection.connect()
        require_valid(connection.sock, now_ms)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        status = response.status
        data = _read(response, time.monotonic() + _WHOLE * timeout_s)
    except ssl.SSLCertVerificationError as error:
        raise TrustError("OUT-T118", error.verify_message) from error
    except (OSError, http.client.HTTPException, socket.gaierror) as error:
        raise Unavailable("OUT-N104", words(error), place=server.url) from error
    finally:
        connection.close()
    if status not in (http.client.OK, http.client.CREATED):
        raise _refusal(status, data)
    return data


def trusting(authority: str | bytes | None) -> ssl.SSLContext:
    """Exactly this authority, or those of the system for None, and the host name checked.

    Times of certificates are not: that is for `require_valid`. Raises `ValueError` for an
    authority that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if authority is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=authority)
    except ssl.SSLError as error:
        raise ValueError("the certificate authority cannot be read") from error
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def require_valid(connection: Any, now_ms: int | None, whose: str = "the control plane's") -> None:
    """Raise `TrustError` if the server's certificate has expired at `now_ms`.

    Trusted time is a lower bound, so "not yet valid" would say nothing.
    """
    if now_ms is None:
        return
    certificate = connection.getpeercert() or {}
    if now_ms / 1000 > ssl.cert_time_to_seconds(str(certificate["notAfter"])):
        raise TrustError("OUT-T118", f"{whose} certificate has expired")


def _read(response: http.client.HTTPResponse, deadline_s: float) -> bytes:
    parts: list[bytes] = []
    left = MAX_ANSWER + 1
    while left > 0 and (part := response.read1(left)):
        parts.append(part)
        left -= len(part)
        if time.monotonic() > deadline_s:
            raise TimeoutError("the answer takes too long")
    return b"".join(parts)


def words(error: Exception) -> str:
    """What a connection failed of, in few words."""
    return (error.strerror if isinstance(error, OSError) else str(error)) or (
        str(error) or type(error).__name__
    )


def _refusal(status: int, data: bytes) -> OutriderError:
    """The control plane's problem, in its own words where it is one of the catalogue."""
    try:
        body = decode(data, dict[str, Any], limit=MAX_ANSWER)
    except PeerError:
        body = {}
    code, detail = body.get("code"), str(body.get("detail", ""))[:300]
    if isinstance(code, str) and code in CATALOGUE:
        kind = Unavailable if status in (429, 503) else InvalidRequest
        return kind(code, detail, do=str(body.get("help", ""))[:300])
    if status >= 500 or status == 429:
        return Unavailable("OUT-N104", f"the control plane answered {status}")
    return PeerError("OUT-N210", f"the control plane answered {status} {detail}".strip())

"""Enrolment and renewal without network: a request file goes to an operator, an answer comes back.

Both files hold nothing secret. What makes the answer's root.json trusted is its digest, which the
operator tells the technician on another way than the stick's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_agent import durable, renew
from edge_agent.clock import Clock
from edge_agent.enrol import device_key, make_csr, require_name, settle, unenrolled
from edge_agent.identity import KEY, Identity, load
from protocol.codec import T, decode, encode
from protocol.enrolment import (
    MAX_ANSWER,
    REQUEST_FILE,
    EnrolAnswer,
    OfflineAnswer,
    OfflineRequest,
    RenewAnswer,
)
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import digest

_NAMELESS: Final = "device"


def write_request(home: Path, to: Path, name: str | None = None) -> Path:
    """A request to be enrolled; the key is made if there is none, and stays. The file's path.

    Raises `InvalidRequest`: OUT-D404 (enrolled already), OUT-S120 (a name that is none, no folder).
    """
    folder = unenrolled(home)
    if name is not None:
        require_name(name)
    _require_folder(to)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    request = OfflineRequest(make_csr(device_key(folder / KEY)), name)
    return _write(to, name or _NAMELESS, request)


def take_answer(home: Path, file: Path, root_digest: str) -> Identity:
    """Enrol with an operator's answer to `write_request`.

    Raises `InvalidRequest`: OUT-D404, OUT-D403 (no request was made here), OUT-S110 (no such
    file), OUT-S120 (a digest that is none); `TrustError` OUT-T108 (another root.json than the
    digest's); `PeerError` for an answer to somebody else, or none.
    """
    folder = unenrolled(home)
    try:
        digest(root_digest)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"--root-digest: {error}") from error
    answer = _read(file, OfflineAnswer)
    if not (folder / KEY).exists():
        do = "outrider-agent enrol --csr-to DIR"
        raise InvalidRequest("OUT-D403", "this device has made no request", do=do)
    enrolled = EnrolAnswer(
        answer.device,
        answer.fleet,
        answer.certificate,
        answer.broker_ca,
        answer.broker,
        answer.root,
        answer.dev,
        answer.labels,
    )
    key = device_key(folder / KEY)
    return settle(folder, enrolled, key, root_digest, url=answer.url, api_ca=answer.api_ca)


def write_renewal(home: Path, to: Path) -> Path:
    """A request for the next certificate, proven by the present one's key. The file's path.

    Raises `InvalidRequest` OUT-D403 (not enrolled), OUT-S120 (no folder).
    """
    identity = load(home)
    _require_folder(to)
    asked = renew.request(identity)
    request = OfflineRequest(asked.csr, device=asked.device, proof=asked.proof)
    return _write(to, identity.local, request)


def take_renewal(home: Path, file: Path) -> Identity:
    """Put the next certificate in the place of the present one. A running agent sees it.

    Only the certificate is taken: nothing proves who wrote the rest of the file. Raises like
    `take_answer`, and `PeerError` for a certificate that is not this device's next one.
    """
    return renew.adopt(home, _read(file, RenewAnswer), trusted_ms(load(home)), proven=False)


def trusted_ms(identity: Identity) -> int:
    """Trusted time, without a running agent."""
    home = identity.folder.parent
    return Clock(home / "clock.json", trust_wall=identity.dev).now_ms()


def _require_folder(to: Path) -> None:
    if not to.is_dir():
        raise InvalidRequest("OUT-S120", f"--csr-to: {to} is no folder")


def _write(to: Path, name: str, request: OfflineRequest) -> Path:
    path = to / f"{name}{REQUEST_FILE}"
    durable.replace(path, encode(request) + b"\n")
    return path


def _read(file: Path, into: type[T]) -> T:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_ANSWER + 1)
    except OSError as error:
        raise InvalidRequest("OUT-S110", f"no answer in {file}") from error
    try:
        return decode(data, into, limit=MAX_ANSWER)
    except PeerError as error:
        raise InvalidRequest("OUT-S120", f"{file.name}: {error.why}") from error

"""A caller of the control plane's API: thin calls that return JSON or raise what the API said.

Paths are relative to the fleet (`devices`, `rollouts/digits-7`); one that starts with `/` is
absolute. A POST carries an idempotency key, so that repeating it after a broken connection does
nothing twice.
"""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from protocol.errors import Failed, OutriderError, Unavailable
from protocol.problems import CATALOGUE

TIMEOUT_S: Final = 30.0
PAUSES_S: Final = (0.3, 1.0)
"""Between tries, when no connection is made."""
BLOCK: Final = 64 * 1024
SHOWN: Final = 76
"""Columns of what was given that an error repeats."""

Blocks = Iterator[bytes]
Progress = Callable[[int, int], None]
"""`(done, total)` in the operation's or the file's unit."""


class Answered(OutriderError):
    """A problem that the control plane answered with; `document` is its JSON unchanged."""

    def __init__(self, code: str, why: str, do: str, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        selector = self.document.get("selector") if code == "OUT-S101" else None
        super().__init__(code, why, do=do, place="selector" if selector else "")
        if isinstance(selector, str):
            self.excerpt = _marked(selector, self.document.get("errors"))


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller needs; `control_plane.access` finds it."""

    url: str
    fleet: str
    token: str = field(repr=False)
    """What is printed or logged by mistake gives nobody access."""
    ca: Path | str | None = None
    """CA of the API's certificate: its file, or its PEM text; None: those of the system."""


class Client:
    """One connection pool; use as a context manager or close it."""

    def __init__(
        self,
        access: Access,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.access = access
        self._http = httpx.Client(
            base_url=access.url,
            headers={"Authorization": f"Bearer {access.token}"},
            verify=_trusting(access.ca),
            timeout=timeout_s,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- calls ----------------------------------------------------------------------------------

    def get(self, path: str, **query: object) -> Any:
        return self._json("GET", path, query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        return self._json("POST", path, query, body, {"Idempotency-Key": new_key()})

    def put(self, path: str, body: object, *, if_match: str | None = None) -> Any:
        return self._json("PUT", path, {}, body, {"If-Match": if_match} if if_match else {})

    def patch(self, path: str, body: object, *, if_match: str | None = None) -> Any:
        return self._json("PATCH", path, {}, body, {"If-Match": if_match} if if_match else {})

    def delete(self, path: str, *, if_match: str | None = None) -> Any:
        return self._json("DELETE", path, {}, None, {"If-Match": if_match} if if_match else {})

    def bytes(self, path: str) -> bytes:
        """A body as it is: TUF metadata, a file."""
        return self._send("GET", path, {}, None, {}).content

    def blocks(self, path: str) -> Blocks:
        """A body block by block as it comes, unpacked by nobody: whoever reads it knows how much
        they want and stops there. Raises like `bytes`."""
        url = f"/v1/fleets/{self.access.fleet}/{path}"
        plain = {"Accept-Encoding": "identity"}
        try:
            with self._http.stream("GET", url, headers=plain) as answer:
                if answer.is_error:
                    answer.read()
                    raise problem_of(_document(answer))
                yield from answer.iter_raw(BLOCK)
        except httpx.TransportError as error:
            raise Unavailable("OUT-N104", _reason(error), place=self.access.url) from error

    def items(self, path: str, **query: object) -> Iterator[Any]:
        """All items of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, **{**query, "cursor": cursor})
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def upload(
        self,
        path: str,
        file: Path,
        progress: Progress | None = None,
        *,
        kind: str = "application/x-tar",
    ) -> Any:
        """POST a file as the body, block by block; returns what it is answered with."""
        size = file.stat().st_size

        def blocks() -> Iterator[bytes]:
            done = 0
            with file.open("rb") as source:
                while block := source.read(BLOCK):
                    yield block
                    done += len(block)
                    if progress:
                        progress(done, size)

        headers = {
            "Content-Type": kind,
            "Content-Length": str(size),
            "Idempotency-Key": new_key(),
        }
        return self._send("POST", path, {}, blocks, headers).json()

    def wait(
        self,
        operation: Mapping[str, Any],
        progress: Progress | None = None,
        *,
        limit_s: float = 600,
        look_s: float = 0.2,
    ) -> Any:
        """The result of an operation, once it has succeeded. Raises the problem it failed with."""
        deadline = time.monotonic() + limit_s
        current: Mapping[str, Any] = operation
        while True:
            if progress and current["total"]:
                progress(current["done"], current["total"])
            if current["state"] == "succeeded":
                return current["result"]
            if current["state"] == "failed":
                raise problem_of(current["problem"])
            if time.monotonic() > deadline:
                raise Failed("OUT-D313", f"{operation['id']} is still {current['state']}")
            time.sleep(look_s)
            current = self.get(f"operations/{operation['id']}")

    # --- one request ----------------------------------------------------------------------------

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        answer = self._send(method, path, query, body, headers or {})
        return answer.json() if answer.content else None

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: object,
        headers: Mapping[str, str],
    ) -> httpx.Response:
        """`body` is JSON, or a function that makes the blocks of a file for each try."""
        asked = {k: _text(v) for k, v in query.items() if v is not None}
        where = path if path.startswith("/") else f"/v1/fleets/{self.access.fleet}/{path}"
        started = time.monotonic()
        pauses = iter(PAUSES_S)
        tries = 0
        while True:
            tries += 1
            sent: dict[str, Any] = {}
            if callable(body):
                sent["content"] = body()
            elif body is not None:
                sent["json"] = body
            try:
                answer = self._http.request(method, where, params=asked, headers=headers, **sent)
            except httpx.TransportError as error:
                pause = next(pauses, None)
                if pause is None or not isinstance(error, httpx.ConnectError):
                    tried = "1 try" if tries == 1 else f"{tries} tries"
                    why = f"{_reason(error)}, {tried} in {time.monotonic() - started:.0f} s"
                    raise Unavailable("OUT-N104", why, place=self.access.url) from error
                time.sleep(pause)
                continue
            if answer.is_error:
                raise problem_of(_document(answer))
            return answer


def _trusting(ca: Path | str | None) -> ssl.SSLContext:
    if isinstance(ca, Path):
        return ssl.create_default_context(cafile=ca)
    # Without any text: those that the system trusts.
    return ssl.create_default_context(cadata=ca or None)


def problem_of(document: Mapping[str, Any]) -> Answered:
    """The error that a problem document says; a code we do not know keeps its words."""
    code = str(document.get("code", ""))
    why = str(document.get("detail", ""))
    if code in CATALOGUE:
        return Answered(code, why, str(document.get("help", "")), document)
    said = ": ".join(part for part in (code, str(document.get("title", "")), why) if part)
    return Answered("OUT-S160", said, str(document.get("help", "")), document)


def _marked(selector: str, errors: Any) -> tuple[str, ...]:
    """The selector and a caret under the place, both cut to what fits on a screen."""
    try:
        offset = int(errors[0]["offset"])
    except (IndexError, KeyError, TypeError, ValueError):
        return (selector[:SHOWN],)
    start = max(0, offset - SHOWN + 8)
    return selector[start : start + SHOWN], " " * (offset - start) + "^"


def new_key() -> str:
    return secrets.token_hex(16)


def segment(name: str) -> str:
    """A name as one level of a path."""
    return quote(name, safe="")


def _document(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and "code" in body:
        return body
    return {"title": f"HTTP {answer.status_code} that is not from a control plane"}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer"
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not signed by this control plane's CA"
    return "connection refused" if "refused" in text.lower() else text or type(error).__name__

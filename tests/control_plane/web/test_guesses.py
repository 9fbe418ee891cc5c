"""Guessing tokens against the whole API, from several addresses."""

from __future__ import annotations

import logging

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.testclient import TestClient

from control_plane.people import decode_login
from control_plane.web.attempts import Limits
from protocol.enrolment import decode_token

MOST = 5
LIMITS = Limits(most=MOST, most_together=20, window_s=600.0)
GUESS = "wrong-" + "x" * 40


class Callers:
    """The same application, called from any address."""

    def __init__(self, api) -> None:
        self._app = api.client.app
        self.token = api.client.headers["authorization"].removeprefix("Bearer ")

    def call(
        self, address: str, token: str | None, method: str = "GET", path: str = "devices", **more
    ) -> httpx.Response:
        client = TestClient(self._app, client=(address, 40_000), raise_server_exceptions=False)
        sent = {"Authorization": f"Bearer {token}"} if token is not None else {}
        where = path if path.startswith("/") else f"/v1/fleets/north/{path}"
        answer: httpx.Response = client.request(method, where, headers=sent, **more)
        return answer

    def guess(self, address: str, times: int = MOST) -> list[int]:
        return [self.call(address, f"{GUESS}{n}").status_code for n in range(times)]


@pytest.fixture
def callers(api) -> Callers:
    api.parts.attempts.limits = LIMITS
    return Callers(api)


def test_after_so_many_wrong_tokens_an_address_must_wait(callers: Callers):
    assert callers.guess("192.0.2.7", MOST + 2) == [401] * MOST + [429, 429]
    refused = callers.call("192.0.2.7", GUESS)
    assert refused.json()["code"] == "OUT-A103"
    assert 0 < int(refused.headers["retry-after"]) <= LIMITS.window_s / MOST
    assert refused.json()["help"].startswith("wait ")


def test_the_right_token_is_not_even_looked_at_meanwhile(callers: Callers):
    callers.guess("192.0.2.7")
    assert callers.call("192.0.2.7", callers.token).status_code == 429


def test_nobody_is_locked_out_by_guesses_from_elsewhere(callers: Callers):
    for number in range(40):
        callers.guess(f"198.51.100.{number}", 2)
    assert callers.call("192.0.2.7", callers.token).status_code == 200
    # But while so many guess, a single wrong one makes its address wait.
    assert callers.guess("192.0.2.8", 2) == [401, 429]
    assert callers.call("192.0.2.7", callers.token).status_code == 200


def test_addresses_of_one_ipv6_customer_are_one(callers: Callers):
    for number in range(MOST):
        callers.guess(f"2001:db8:1:2::{number:x}", 1)
    assert callers.guess("2001:db8:1:2:aaaa::1", 1) == [429]
    assert callers.guess("2001:db8:1:3::1", 1) == [401]


def test_a_request_without_a_token_is_refused_and_not_counted(callers: Callers, api):
    answers = {callers.call("192.0.2.7", None).status_code for _ in range(3 * MOST)}
    assert answers == {401}
    assert api.parts.attempts.failures == 0


def test_a_forbidden_request_is_no_wrong_token(callers: Callers, api):
    made = api.post("people", {"name": "eva", "role": "viewer"}).json()["login"]
    eva = decode_login(made).t
    for _ in range(2 * MOST):
        assert callers.call("192.0.2.7", eva, "POST", "tokens", json={}).status_code == 403
    assert api.parts.attempts.failures == 0


def test_what_needs_no_token_is_answered_whoever_waits(callers: Callers):
    callers.guess("192.0.2.7")
    for path in ("/v1/health", "/problems/OUT-A103", "/openapi.json"):
        assert callers.call("192.0.2.7", GUESS, path=path).status_code == 200


def certificate_request() -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def enrolling(callers: Callers, address: str, token: str, name: str) -> httpx.Response:
    body = {"token": token, "csr": certificate_request(), "name": name}
    return callers.call(address, None, "POST", "/v1/enrol", json=body)


def test_wrong_enrolment_tokens_count_and_a_name_that_is_taken_does_not(callers: Callers, api):
    api.enrol("cam-1")
    good = decode_token(api.post("tokens", {}).json()["token"]).t
    for _ in range(2 * MOST):
        assert enrolling(callers, "192.0.2.7", good, "cam-1").json()["code"] == "OUT-A203"
    answers = [
        enrolling(callers, "192.0.2.7", f"{GUESS}{n}", "cam-2").status_code for n in range(MOST + 1)
    ]
    assert answers == [403] * MOST + [429]
    assert enrolling(callers, "192.0.2.7", good, "cam-2").status_code == 429
    assert enrolling(callers, "192.0.2.8", good, "cam-2").status_code == 201


def test_wrong_proofs_of_a_device_count(callers: Callers, api):
    body = {"device": "north-cam-1", "csr": certificate_request(), "proof": "cHJvb2Y="}
    answers = [
        callers.call("192.0.2.7", None, "POST", "/v1/renew", json=body) for _ in range(MOST + 1)
    ]
    assert [each.json()["code"] for each in answers] == ["OUT-A211"] * MOST + ["OUT-A103"]
    assert api.parts.attempts.failures == MOST


def test_wrong_tokens_are_counted_and_logged_without_them(callers: Callers, api, caplog):
    with caplog.at_level(logging.DEBUG):
        callers.guess("192.0.2.7", MOST + 3)
        callers.call("192.0.2.9", GUESS, path="/v1/fleets/north/a%0A2026 forged line")
    assert (api.parts.attempts.failures, api.parts.attempts.refusals) == (MOST + 1, 3)
    said = [each for each in caplog.messages if "failed attempt from" in each]
    assert len(said) == MOST + 1
    assert "192.0.2.7: GET '/v1/fleets/north/devices'" in said[0]
    assert "it waits for" in said[MOST - 1]
    assert all("\n" not in each for each in said)
    assert GUESS not in caplog.text

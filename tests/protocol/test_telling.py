import pytest

from protocol.errors import InvalidRequest, OutriderError, TrustError, Unavailable
from protocol.problems import CATALOGUE
from protocol.telling import WIDTH, document, told

URL = "https://cp:8400"


def marked() -> OutriderError:
    error = InvalidRequest("OUT-S120", "unknown field soak_time", do="the field is called soak")
    error.place = "canary.yaml:6"
    error.excerpt = ("6 | - {soak_time: 24h}", "       ^^^^^^^^^")
    return error


@pytest.mark.parametrize(
    "error, lines",
    [
        pytest.param(
            TrustError("OUT-T103", "got sha256-01bb7e4f; discarded"),
            [
                "error[OUT-T103]: payload does not give the signed digest",
                "  why: got sha256-01bb7e4f; discarded",
                "  do:  nothing: the next payload is tried; if it repeats: broker ACLs",
            ],
            id="title, reason, remedy",
        ),
        pytest.param(
            Unavailable("OUT-N104", "connection refused, 3 tries in 12 s", place=URL),
            [
                "error[OUT-N104]: control plane not reachable: https://cp:8400",
                "  why: connection refused, 3 tries in 12 s",
                "  do:  start it: outrider up; or check the address",
            ],
            id="with a place",
        ),
        pytest.param(
            InvalidRequest("OUT-S110", "no model named digit", do="a similar name: digits"),
            ["error[OUT-S110]: no model named digit", "  do:  a similar name: digits"],
            id="the reason says it all",
        ),
        pytest.param(
            marked(),
            [
                "error[OUT-S120]: canary.yaml:6: unknown field soak_time",
                "  6 | - {soak_time: 24h}",
                "         ^^^^^^^^^",
                "  do:  the field is called soak",
            ],
            id="with the line that is wrong",
        ),
        pytest.param(
            InvalidRequest("OUT-S150"),
            ["error[OUT-S150]: there is no control plane here", "  do:  outrider init --dev"],
            id="no reason needed",
        ),
    ],
)
def test_an_error_is_told_in_the_agreed_form(error, lines):
    assert list(told(error)) == lines


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_problem_fits_on_a_screen(code):
    lines = told(OutriderError(code, "because " * 30))
    assert lines[0].startswith(f"error[{code}]: ")
    assert all(len(line) <= WIDTH for line in lines)


def test_programs_get_problem_details():
    assert document(Unavailable("OUT-N104", "connection refused", place=URL)) == {
        "type": "/problems/OUT-N104",
        "status": 503,
        "code": "OUT-N104",
        "title": "Control plane not reachable",
        "help": "start it: outrider up; or check the address",
        "detail": "https://cp:8400: connection refused",
    }
    assert "detail" not in document(InvalidRequest("OUT-S150"))

"""The closed list of what a bundle may choose about its session."""

import pytest

from protocol.errors import NotUnderstood, PeerError
from protocol.members import Policy, SessionOptions, member_document, pretty


def policy(session: str) -> Policy:
    return member_document(b'{"session": %s}' % session.encode(), Policy)


def test_without_options_it_has_the_measured_defaults():
    assert policy("{}").session == SessionOptions() == SessionOptions(1, False, "auto", "all")


@pytest.mark.parametrize(
    "options",
    [
        SessionOptions(intra_op_threads=8),
        SessionOptions(2, True, "on", "none"),
        SessionOptions(prepacking="off", graph_optimization="extended"),
    ],
)
def test_options_travel_with_the_policy(options):
    assert member_document(pretty(Policy(session=options)), Policy).session == options


@pytest.mark.parametrize(
    "session, names",
    [
        pytest.param(
            '{"use_ort_model_bytes_directly": true}', "session.use_ort", id="one of ORT's"
        ),
        pytest.param('{"inter_op_threads": 2}', "session.inter_op_threads", id="not on the list"),
        pytest.param('{"prepacking": "sometimes"}', "session.prepacking:sometimes", id="value"),
        pytest.param('{"graph_optimization": "99"}', "session.graph_optimization:99", id="level"),
    ],
)
def test_what_is_not_on_the_list_refuses_the_bundle(session, names):
    with pytest.raises(NotUnderstood) as caught:
        policy(session)
    assert caught.value.names[0].startswith(names)


@pytest.mark.parametrize(
    "session",
    [
        '{"intra_op_threads": 0}',
        '{"intra_op_threads": 9}',
        '{"memory_arena": "yes"}',
        '{"prepacking": 1}',
        "[]",
        "null",
        "7",
    ],
)
def test_what_has_not_the_form_is_refused(session):
    with pytest.raises(PeerError):
        policy(session)

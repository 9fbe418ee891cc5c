import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.web.cursors import after, cursor
from protocol.errors import InvalidRequest

KEYS = st.lists(st.one_of(st.text(), st.integers()), min_size=1, max_size=3)


@given(key=KEYS, listed=st.tuples(st.text(), st.none() | st.text()))
def test_a_cursor_gives_back_its_key_in_the_list_it_was_made_for(key, listed):
    assert after(cursor(key, *listed), *listed) == tuple(key)


@given(key=KEYS, one=st.text(), other=st.text())
def test_a_cursor_of_another_filter_is_refused(key, one, other):
    if one == other:
        return
    with pytest.raises(InvalidRequest) as refused:
        after(cursor(key, "devices", one), "devices", other)
    assert refused.value.code == "OUT-S130"


def test_no_cursor_begins_the_list():
    assert after(None, "devices") is None
    assert after("", "devices") is None


def packed(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("%%%", id="not base64"),
        pytest.param("AAAA", id="not JSON"),
        pytest.param(packed([1, 2]), id="not an object"),
        pytest.param(packed({"k": [1]}), id="without a hash"),
        pytest.param(packed({"k": "a", "h": ""}), id="key is no list"),
        pytest.param(packed({"k": [{"a": 1}], "h": ""}), id="key of objects"),
        pytest.param(packed({"k": [True], "h": ""}), id="key of booleans"),
        pytest.param(packed(["[" * 500]), id="too long"),
        pytest.param("é", id="not ASCII"),
    ],
)
def test_what_is_not_a_cursor_is_refused_not_a_fault(text):
    with pytest.raises(InvalidRequest) as refused:
        after(text, "devices")
    assert refused.value.code == "OUT-S130"


@given(text=st.text(min_size=1))
def test_no_text_but_a_cursor_is_taken_and_none_is_a_fault(text):
    with pytest.raises(InvalidRequest) as refused:
        after(text, "devices")
    assert refused.value.code == "OUT-S130"

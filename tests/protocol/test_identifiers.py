"""Names are checked where they are constructed, and no name can leave its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import identifiers as ids

HEX = "a" * 64


@pytest.mark.parametrize(
    "check, value",
    [
        (ids.fleet_name, "north"),
        (ids.fleet_name, "f" * 32),
        (ids.local_name, "cam-0117"),
        (ids.model_name, "digits_v2-x"),
        (ids.version_name, "1.0.0-rc1"),
        (ids.digest, f"sha256-{HEX}"),
        (ids.label_key, "fact/ram_mb"),
        (ids.label_value, "ü" * 64),
    ],
)
def test_a_name_in_its_form_is_returned_as_it_is(check, value):
    assert check(value) == value


@pytest.mark.parametrize(
    "check, value",
    [
        (ids.fleet_name, ""),
        (ids.fleet_name, "North"),
        (ids.fleet_name, "no-hyphen"),
        (ids.fleet_name, "f" * 33),
        (ids.local_name, "-cam"),
        (ids.local_name, "cam/../x"),
        (ids.local_name, "#"),
        (ids.model_name, "a/b"),
        (ids.model_name, "+"),
        (ids.version_name, "v 1"),
        (ids.version_name, "../v1"),
        (ids.digest, f"sha256:{HEX}"),
        (ids.digest, f"sha256-{HEX.upper()}"),
        (ids.digest, f"sha256-{HEX}\n"),
        (ids.label_key, "Site"),
        (ids.label_value, "ü" * 65),
        (ids.split_device_id, "cam"),
        (ids.model_version, "digits"),
    ],
)
def test_anything_else_is_refused_with_the_form_it_should_have(check, value):
    with pytest.raises(ValueError, match=r"\S"):
        check(value)


@given(
    st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True),
)
def test_a_device_id_splits_into_what_it_was_made_of(fleet, local):
    assert ids.split_device_id(ids.device_id(fleet, local)) == (fleet, local)

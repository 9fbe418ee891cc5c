import pytest

from control_plane.roles import ALLOWS, PERMISSIONS, ROLES, Principal
from protocol.errors import InvalidRequest

TABLE = {
    "viewer": "read",
    "technician": "read service",
    "operator": "read service operate",
    "approver": "read approve",
    "admin": "read service operate approve administer",
}


@pytest.mark.parametrize("permission", PERMISSIONS)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_the_table_says(role, permission):
    eva = Principal("eva", role)
    if permission in TABLE[role].split():
        eva.require(permission, "north")
        return
    with pytest.raises(InvalidRequest) as refused:
        eva.require(permission, "north")
    assert refused.value.code == "OUT-A204"
    assert f"role {role} may not do this: eva is {role} in fleet north" == refused.value.why
    assert refused.value.do.startswith("ask ")


def test_every_role_and_every_permission_is_used():
    assert set(ALLOWS) == set(ROLES) == set(TABLE)
    assert frozenset().union(*ALLOWS.values()) == set(PERMISSIONS)


def test_who_rolls_out_does_not_approve_and_the_other_way_round():
    assert "approve" not in ALLOWS["operator"]
    assert "operate" not in ALLOWS["approver"]

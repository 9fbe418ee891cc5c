"""Who may do what in a fleet: five roles over five permissions, and nothing finer.

    viewer      read
    technician  read, service             stand in front of devices
    operator    read, service, operate    push versions, roll out, pin, deny, retire
    approver    read, approve             sign what may run; roll out nothing
    admin       everything                people, keys, what was done by whom

Approving needs a key that approvers trust as well: the role only lets its signature in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from protocol.errors import InvalidRequest

Permission = Literal["read", "service", "operate", "approve", "administer"]
Role = Literal["viewer", "technician", "operator", "approver", "admin"]

PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)
ROLES: Final[tuple[Role, ...]] = get_args(Role)
ALLOWS: Final[dict[Role, frozenset[Permission]]] = {
    "viewer": frozenset({"read"}),
    "technician": frozenset({"read", "service"}),
    "operator": frozenset({"read", "service", "operate"}),
    "approver": frozenset({"read", "approve"}),
    "admin": frozenset(PERMISSIONS),
}
LOCAL: Final = "local"
"""Whoever may read the control plane's own folder on its machine."""

_WHOM: Final[dict[Permission, str]] = {
    "read": "an admin",
    "service": "a technician or an operator",
    "operate": "an operator",
    "approve": "an approver",
    "administer": "an admin",
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, once their token was found valid."""

    name: str
    role: Role

    def require(self, permission: Permission, fleet: str, what: str = "do this") -> None:
        """`what` completes "may not …". Raises `InvalidRequest` OUT-A204."""
        if permission not in ALLOWS[self.role]:
            raise InvalidRequest(
                "OUT-A204",
                f"role {self.role} may not {what}: {self.name} is {self.role} in fleet {fleet}",
                do=f"ask {_WHOM[permission]}",
            )

"""TUF metadata that was offered and is not trusted yet: bounded, by name, any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tuf.api.exceptions import RepositoryError

from edge_agent.metadata import LIMITS, MAX_ROOT, ROLES, behind, follows
from protocol.errors import PeerError
from protocol.topics import Topics

ROOTS_AHEAD: Final = 16
"""Roots kept beyond the next one; a chain longer than that arrives in steps."""


class Offers:
    """The newest message of each topic. Roots are named `root/<n>`."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._offered: dict[str, bytes] = {}
        self._refused = False
        """Whether something was refused that came with the newest timestamp."""

    def __len__(self) -> int:
        return len(self._offered)

    def put(
        self, topic: str, data: bytes, root_version: int, trusted: Mapping[str, bytes]
    ) -> tuple[bool, bool]:
        """`(whether it is TUF metadata of use, whether it is worth a try)`.

        Raises `PeerError` if it is too large.
        """
        name = self._name_of(topic, root_version)
        if name is None:
            return False, False
        limit = LIMITS.get(name, MAX_ROOT)
        if len(data) > limit:
            raise PeerError("OUT-N211", f"{name}: {len(data):,} bytes, at most {limit:,}")
        if not data or trusted.get(name) == data:
            # Cleared, or what is trusted anyway. A repeated old timestamp takes no newer one back,
            # unless that one brought what was refused: then the fleet is where it was.
            before = self._offered.get(name)
            ahead = name == "timestamp" and data and before and follows(before, data)
            if not ahead or self._refused:
                self._offered.pop(name, None)
            return True, False
        new = self._offered.get(name) != data
        if new and name == "timestamp":
            self._refused = False
        self._offered[name] = data
        return True, new

    def doubt(self) -> None:
        """What the newest timestamp stands for was refused, in part or whole."""
        self._refused = True

    def roles(self) -> dict[str, bytes]:
        return {name: data for name, data in self._offered.items() if name in LIMITS}

    def roots(self) -> dict[int, bytes]:
        return {
            int(name.removeprefix("root/")): data
            for name, data in self._offered.items()
            if name.startswith("root/")
        }

    def drop(self, name: str) -> bool:
        return self._offered.pop(name, None) is not None

    def drop_roles(self) -> None:
        for name in self.roles():
            del self._offered[name]

    def settle(self, root_version: int, accepted: Mapping[str, bytes] | None = None) -> None:
        """Forget what is trusted by now. With a set accepted, its timestamp is settled too: one
        of equal version, yet different bytes, was not trusted and is not waited for."""
        for number in self.roots():
            if number <= root_version:
                del self._offered[f"root/{number}"]
        if accepted is not None:
            self._offered.pop("timestamp", None)
            for name in [n for n, data in self.roles().items() if accepted.get(n) == data]:
                del self._offered[name]

    def wanted(self, trusted: Mapping[str, bytes]) -> tuple[str, ...]:
        """Topics that the newest offered timestamp needs and that are not at hand."""
        stamp = self._offered.get("timestamp")
        if stamp is None:
            return ()
        if not trusted and "snapshot" not in self._offered:
            missing = tuple(role for role in ROLES[1:] if role not in self._offered)
        else:
            held = {
                role: [each[role] for each in (self._offered, trusted) if role in each]
                for role in ROLES
            }
            try:
                missing = behind(stamp, held)
            except RepositoryError:
                return ()
        return tuple(self._topics.tuf(role) for role in missing)

    def _name_of(self, topic: str, root_version: int) -> str | None:
        for role in ROLES:
            if topic == self._topics.tuf(role):
                return role
        following = root_version + 1
        for number in range(following, following + ROOTS_AHEAD):
            if topic == self._topics.root(number):
                return f"root/{number}"
        return None

"""What approvers say of a bundle: the signed `custom` of one target of role models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from protocol.bundle import Needs
from protocol.identifiers import Digest, ModelName, Version


@dataclass(frozen=True, slots=True)
class Approved:
    """`custom` of a target `models/<model>/<version>`: what approvers say of one bundle."""

    state: Literal["approved", "revoked"] = "approved"
    on_device: Literal["stop", "fallback", "report"] = "fallback"
    """What a device that runs it does once it is revoked."""
    needs: Needs = Needs()
    capture: tuple[str, ...] = ()
    audit_head: str = ""
    must_understand: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApprovedBundle:
    """One target of role `models`, with its name and the digest of its index."""

    model: ModelName
    version: Version
    digest: Digest
    terms: Approved = Approved()

    @property
    def revoked(self) -> bool:
        return self.terms.state == "revoked"


Approvals = Mapping[Digest, ApprovedBundle]

"""The 38 attacks on what a device trusts: who tries what, and how it must end.

In every row the device goes on with what it trusted before, unless the row says what else it may
believe; and with the next honest word it believes what a device does that was never lied to.

Long because it is one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.attacks import forgeries
from tests.attacks.row import Row
from tests.fakes.fleet_trust import DAY_MS, START_MS
from tests.fakes.siege import MODEL, Retained, Siege

Ending = Literal["refused", "bounded", "works", "accepted risk"]

NETWORK: Final = "the network or the broker, no key"
ONLINE: Final = "the online keys: rollouts, snapshot, timestamp"
ONE_APPROVER: Final = "the online keys and one approver's key"
GONE_APPROVER: Final = "the online keys, one approver's key and one that was replaced"
ONE_HOLDER: Final = "one root holder's key"
DISK: Final = "the network, and the device lost files in a power cut"
NOBODY: Final = "nothing: this must work"


@dataclass(frozen=True, slots=True)
class Attack:
    number: int
    name: str
    has: str
    tries: str
    ending: Ending
    says: str
    forge: Callable[[Siege], Retained]
    """What the device is told after the preparations."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Problem codes that the device reports, by what it refuses."""
    holds: Callable[[Siege], bool] = lambda siege: True
    """What must be so afterwards, besides."""
    recovery: Callable[[Siege], None] = lambda siege: None
    """What people do before the truth can be told."""

    @property
    def row(self) -> Row:
        outcome = f"{self.ending}: {self.says}"
        codes = ", ".join(f"`{code}`" for code in dict.fromkeys(self.refused.values()))
        test = f"edge_agent/test_trust_matrix.py::test_attack[{self.number}]"
        return Row(
            f"{self.number}. {self.name}",
            self.has,
            self.tries,
            f"{outcome} ({codes})" if codes else outcome,
            test,
        )


METADATA_WRONG: Final = {"metadata": "OUT-T101"}
METADATA_APART: Final = {"metadata": "OUT-T109"}
TOO_LARGE: Final = {"metadata": "OUT-N211"}
METADATA_EXPIRED: Final = {"metadata": "OUT-T121"}

ATTACKS: Final = (
    Attack(
        1,
        "Old timestamp",
        NETWORK,
        "an older timestamp beside newer metadata",
        "refused",
        "versions never go back",
        lambda siege: forgeries.behind(siege, "timestamp"),
        METADATA_WRONG,
    ),
    Attack(
        2,
        "Old publication",
        NETWORK,
        "everything as it was before a revocation: metadata, plan, document",
        "refused",
        "the revocation stays known",
        forgeries.whole_old_publication,
        METADATA_WRONG | {"document": "OUT-T102"},
        forgeries.revoked_v1,
    ),
    Attack(
        3,
        "Freeze",
        NETWORK,
        "nothing new for four days",
        "bounded",
        "nothing new starts (`OUT-T122`) once the timestamp has expired; returns do",
        forgeries.frozen,
        holds=lambda siege: (
            siege.heads_for() == (siege.v1, "OUT-T122")
            and siege.heads_for(siege.v1) == (siege.v1, "")
        ),
    ),
    Attack(
        4,
        "Freeze of a new device",
        NETWORK,
        "metadata of four days ago as the first that it ever sees",
        "refused",
        "it trusts nothing yet",
        forgeries.frozen_for_a_newcomer,
        METADATA_EXPIRED,
        lambda siege: not siege.device.trust.known,
    ),
    Attack(
        5,
        "Old snapshot mixed in",
        NETWORK,
        "the snapshot of one publication, the rest of the next",
        "refused",
        "only whole sets are trusted",
        forgeries.mixed("snapshot"),
        METADATA_APART,
    ),
    Attack(
        6,
        "Old approvals mixed in",
        NETWORK,
        "models of one publication, the rest of the next",
        "refused",
        "only whole sets are trusted",
        forgeries.mixed("models"),
        METADATA_APART,
    ),
    Attack(
        7,
        "Old plans mixed in",
        NETWORK,
        "rollouts of one publication, the rest of the next",
        "refused",
        "only whole sets are trusted",
        forgeries.mixed("rollouts"),
        METADATA_APART,
    ),
    Attack(
        8,
        "Tampered timestamp",
        NETWORK,
        "a timestamp with another version in it",
        "refused",
        "its signature does not fit",
        forgeries.tampered("timestamp"),
        METADATA_WRONG,
    ),
    Attack(
        9,
        "Tampered approvals",
        NETWORK,
        "models with another version in it",
        "refused",
        "its digest is not the one of the snapshot",
        forgeries.tampered("models"),
        METADATA_APART,
    ),
    Attack(
        10,
        "Oversized timestamp",
        NETWORK,
        "a timestamp filled up beyond its limit",
        "refused",
        "its size is looked at before it is kept",
        forgeries.oversized("timestamp"),
        TOO_LARGE,
    ),
    Attack(
        11,
        "Oversized approvals",
        NETWORK,
        "models filled up beyond 2 MiB",
        "refused",
        "its size is looked at before it is kept",
        forgeries.oversized("models"),
        TOO_LARGE,
    ),
    Attack(
        12,
        "Another fleet's metadata",
        "the keys of another fleet",
        "a complete, well signed set of that fleet",
        "refused",
        "trust begins with the root of the enrolment",
        forgeries.another_fleet,
        METADATA_WRONG,
        forgeries.not_approved,
    ),
    Attack(
        13,
        "Emptied cache",
        DISK,
        "older metadata after the trusted set was lost",
        "refused",
        "high-water marks are a file of their own",
        forgeries.emptied_cache,
        METADATA_WRONG,
        forgeries.nothing_lost,
    ),
    Attack(
        14,
        "Unapproved model",
        ONLINE,
        "a bundle in models, signed by no approver (0 of 2)",
        "refused",
        "online keys approve nothing",
        forgeries.unapproved_model,
        METADATA_WRONG,
        forgeries.not_approved,
    ),
    Attack(
        15,
        "One of three approvers",
        ONE_APPROVER,
        "a bundle in models with one signature",
        "refused",
        "two must sign",
        forgeries.one_of_three,
        METADATA_WRONG,
        forgeries.not_approved,
    ),
    Attack(
        16,
        "One signature twice",
        ONE_APPROVER,
        "the same signature two times",
        "refused",
        "a key counts once",
        forgeries.the_same_signature_twice,
        METADATA_WRONG,
        forgeries.not_approved,
    ),
    Attack(
        17,
        "Older approvals",
        ONLINE,
        "a new snapshot that points at an older models, before a revocation",
        "refused",
        "versions of models never go back",
        forgeries.older_approvals,
        METADATA_WRONG,
        forgeries.revoked_v1,
    ),
    Attack(
        18,
        "Approvals left out",
        ONLINE,
        "a snapshot without models",
        "refused",
        "a role never leaves the snapshot",
        forgeries.approvals_left_out,
        METADATA_WRONG,
    ),
    Attack(
        19,
        "A version that nobody made",
        ONLINE,
        "a snapshot that names version 1,000,000 of models",
        "refused",
        "only the version at hand counts, and the lie is gone with the next honest snapshot",
        forgeries.a_version_that_is_not_there,
        METADATA_APART,
    ),
    Attack(
        20,
        "Approval by role rollouts",
        ONLINE,
        "`models/…` as a target of rollouts",
        "bounded",
        "the entry is not looked at: that role lists `rollouts/…` only",
        forgeries.rollouts_lists_models,
        holds=forgeries.not_approved,
    ),
    Attack(
        21,
        "Own delegation",
        ONLINE,
        "targets that names the online key as the only approver",
        "refused",
        "root holders sign targets",
        forgeries.own_delegation,
        METADATA_WRONG,
        forgeries.not_approved,
    ),
    Attack(
        22,
        "Expired plans kept alive",
        "the online key of snapshot and timestamp",
        "a fresh timestamp over rollouts that expired",
        "refused",
        "each role expires by itself",
        forgeries.expired_rollouts,
        METADATA_EXPIRED,
    ),
    Attack(
        23,
        "Expired approvals kept alive",
        ONLINE,
        "a fresh timestamp over models that expired",
        "bounded",
        "nothing new starts (`OUT-T121`); returns do",
        lambda siege: forgeries.kept_fresh(siege, days=91),
        holds=lambda siege: (
            siege.heads_for() == (siege.v1, "OUT-T121")
            and siege.heads_for(siege.v1) == (siege.v1, "")
        ),
    ),
    Attack(
        24,
        "Old plan listed again",
        ONLINE,
        "the plan of last week, listed and signed today",
        "bounded",
        "the plan is refused: it has a version of its own, and the device a mark",
        forgeries.old_plan_listed_again,
        {f"plan-{MODEL}": "OUT-T106"},
        lambda siege: siege.orders.plans[MODEL].number == 2,
    ),
    Attack(
        25,
        "Revoked approver",
        GONE_APPROVER,
        "a bundle in models with both signatures",
        "refused",
        "whom root holders removed does not count",
        forgeries.revoked_approver,
        METADATA_WRONG,
        forgeries.not_approved,
    ),
    Attack(
        26,
        "Approvers replaced, list forgotten",
        "nothing: a ceremony went wrong",
        "a ceremony that does not sign models again",
        "refused",
        "the old set stays in force until the list is signed",
        forgeries.forgotten_list,
        METADATA_APART,
    ),
    Attack(
        27,
        "Own root",
        ONE_HOLDER,
        "a root with the attacker's keys, signed by one holder of two",
        "refused",
        "two holders of the old root must sign the next",
        forgeries.own_root,
        METADATA_WRONG,
        lambda siege: siege.device.trust.root_version == 1,
    ),
    Attack(
        28,
        "Root withheld",
        NETWORK,
        "root 3 without root 2",
        "refused",
        "roots are followed one by one",
        forgeries.gap,
        METADATA_WRONG,
        lambda siege: siege.device.trust.root_version == 1,
    ),
    Attack(
        29,
        "Root out of turn",
        NETWORK,
        "root 3 on the topic of root 2",
        "refused",
        "a root says which it is",
        forgeries.out_of_turn,
        METADATA_WRONG,
        lambda siege: siege.device.trust.root_version == 1,
    ),
    Attack(
        30,
        "Unknown time",
        NETWORK,
        "metadata of today for a device whose clock says 1970",
        "works",
        "it learns the time from what is signed",
        forgeries.unknown_time,
        holds=lambda siege: siege.device.clock.now_ms() == START_MS,
    ),
    Attack(
        31,
        "Approvers replaced",
        NOBODY,
        "all three approvers are others",
        "works",
        "the new ones approve and revoke",
        forgeries.new_approvers,
        holds=forgeries.revoked_v1,
    ),
    Attack(
        32,
        "Five roots while away",
        NOBODY,
        "all keys are replaced five times while the device is offline",
        "works",
        "it follows all roots at once",
        forgeries.five_rotations,
        holds=lambda siege: siege.device.trust.root_version == 6 and forgeries.revoked_v1(siege),
    ),
    Attack(
        33,
        "Versions at the end of their range",
        ONLINE + ", until they are replaced",
        "versions of 2^52, so that nothing can follow",
        "works",
        "with new online keys versions begin anew",
        forgeries.fast_forward,
        holds=lambda siege: siege.device.trust.state().timestamp < 2**52,
    ),
    Attack(
        34,
        "Pin back",
        NOBODY,
        "an operator pins a device to an older version that is still approved",
        "works",
        "older metadata is refused, older bundles are not",
        forgeries.pinned_back,
        holds=lambda siege: siege.heads_for() == (siege.v1, ""),
    ),
    Attack(
        35,
        "Month-old stick",
        NOBODY,
        "a stick with metadata of 30 days ago for a device without a link",
        "works",
        "signatures, thresholds and versions count as ever; only freshness does not",
        forgeries.month_old_stick,
        holds=lambda siege: forgeries.revoked_v1(siege) and siege.orders.plans[MODEL].number == 2,
    ),
    Attack(
        36,
        "Hidden revocation",
        ONLINE,
        "a fresh timestamp for two months over the list from before a revocation",
        "accepted risk",
        "until that list expires, 90 days after it was signed (23)",
        lambda siege: forgeries.kept_fresh(siege, days=60),
        holds=lambda siege: not forgeries.revoked_v1(siege) and siege.heads_for() == (siege.v1, ""),
    ),
    Attack(
        37,
        "Older list for a new device",
        ONLINE,
        "the same, for a device that has just been enrolled",
        "accepted risk",
        "until that list expires, 90 days after it was signed",
        forgeries.older_list_for_a_newcomer,
        holds=lambda siege: not forgeries.revoked_v1(siege) and siege.heads_for() == (siege.v1, ""),
    ),
    Attack(
        38,
        "The year 2040",
        ONLINE,
        "a timestamp issued in 2040, for a device without a clock",
        "bounded",
        "trusted time goes to where approvals expire and no further; new online keys tell it anew",
        forgeries.year_2040,
        holds=lambda siege: siege.device.clock.now_ms() == START_MS + 90 * DAY_MS,
        recovery=forgeries.new_online_keys,
    ),
)

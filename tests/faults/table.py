"""Every operation of an update, one row each: what does it, and what holds if it never happens.

An operation is a write, rename, fsync or deletion, a commit of the outbox, the start or end of a
process, a request to a runner, or a step of the update machine. `before` is what must be true after
a crash just before it. The journeys of `tests.faults.world` are the reference: a test traces them
and fails where an operation has no row here, or a row has no operation.

Each row is crashed in each way of `faults_of`; `make crash-matrix` does so with real processes.

Long because it is a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.faults.interpose import Fault
from tests.faults.operations import ON_DISK, TAKES_ROOM, Kind, Operation
from tests.faults.world import Journey

FAULTS: Final[tuple[Fault, ...]] = ("kill", "cut", "half", "zeros", "full", "runner")
MEANING: Final[dict[Fault, str]] = {
    "kill": "SIGKILL of the agent",
    "cut": "power cut; nothing survives that was not synced",
    "half": "power cut; names survive, half of what was not synced, or of the file written last",
    "zeros": "power cut; names survive, zeros instead of what was not synced, or of the last file",
    "full": "the disk is full for a moment",
    "runner": "SIGKILL of the runner that is asked",
}


@dataclass(frozen=True, slots=True)
class Row:
    module: str
    """Who does it."""
    operation: Operation
    before: str
    journey: Journey = "update"
    """Where it is met."""
    nth: int = 1
    """The how manieth time it is met there: names are shared."""

    @property
    def name(self) -> str:
        """Each is there once in its journey."""
        return f"{self.operation}{f' ({self.nth})' if self.nth > 1 else ''}"


def faults_of(row: Row) -> tuple[Fault, ...]:
    kind = row.operation.kind
    found: list[Fault] = ["kill", "cut"]
    if kind in ON_DISK:
        found += ["half", "zeros"]
    if kind in TAKES_ROOM:
        found.append("full")
    if kind == "ask":
        found.append("runner")
    return tuple(found)


def _rows(
    module: str,
    where: str,
    *entries: tuple[Kind, str, str],
    journey: Journey = "update",
    nth: int = 1,
) -> Iterator[Row]:
    for kind, what, before in entries:
        yield Row(f"edge_agent.{module}", Operation(where, kind, what), before, journey, nth)


def _slot(where: str, write: str, *, journey: Journey = "update", nth: int = 1) -> Iterator[Row]:
    """A journal's older slot is overwritten in place and synced."""
    torn = "torn or not, it has no valid checksum or is whole: one of both generations counts"
    yield from _rows(
        "disk",
        where,
        ("write", "a journal slot", write),
        ("fsync", "a journal slot", torn),
        journey=journey,
        nth=nth,
    )


def _replaced(where: str, folder: str, file: str, old: str, *, module: str) -> Iterator[Row]:
    """`edge_agent.durable.replace`: beside, fsync, rename, fsync of the folder."""
    new = f"{file}, new"
    yield from _rows(
        module,
        where,
        ("create", new, old),
        ("write", new, f"{old}; nobody reads the new file"),
        ("fsync", new, f"{old}; nobody reads the new file"),
        ("rename", new, f"{old}; nobody reads the new file"),
    )


def _beside(
    file: str, gone: str, where: str = "message", *, journey: Journey = "update"
) -> Iterator[Row]:
    """`edge_agent.contents.keep`: whole or not at all, durable only with Stage."""
    new = f"{file}, new of a partial bundle"
    yield from _rows(
        "fetch",
        where,
        ("create", new, gone),
        ("write", new, gone),
        ("rename", new, f"{gone}, or wrong bytes that are hashed before they count"),
        journey=journey,
    )


AGAIN = "it is asked for again"
STILL_A = "A goes on, or starts again; B is tried again"
SAME = "the same step is decided again"
PARKED = "B answers; A, parked, ends with its agent or is drained next time"
BACK = "B is given up; A is parked and answers again, or is started"
SPENT = "what was written down before counts; the next message writes anew"

ROWS: Final[tuple[Row, ...]] = (
    # --- an agent starts --------------------------------------------------------------------------
    *_rows(
        "trust", "start", ("mkdir", "tuf", "nothing was there, nothing is lost"), journey="first"
    ),
    *_rows(
        "orders",
        "start",
        ("mkdir", "documents", "nothing was there, nothing is lost"),
        journey="first",
    ),
    *_rows(
        "disk",
        "start",
        ("mkdir", "state", "nothing was there, nothing is lost"),
        ("mkdir", "bundles", "nothing was there, nothing is lost"),
        ("sync folder", "home", "the folder is made again"),
        journey="first",
    ),
    *_rows(
        "disk",
        "start",
        ("sync folder", "home", "the folder is made again"),
        journey="first",
        nth=2,
    ),
    *_rows("act", "Sync", ("step", "", "nothing was decided yet")),
    *_rows(
        "disk",
        "Sync",
        ("sync all", "state", "what a killed agent wrote may be lost: nothing relied on it yet"),
        ("sync all", "bundles", "the same for bundles"),
    ),
    *_rows("outbox_file", "models", ("commit", "outbox", "the outbox is as it was")),
    # --- A, which is committed, serves ------------------------------------------------------------
    *_rows("act", "Activate", ("step", "", "A is not served yet: it is started again")),
    *_slot("Activate", "A's load is not counted, nor has it happened"),
    *_rows(
        "runners.child", "Activate", ("start", "a runner", "A's load is counted; it starts again")
    ),
    *_rows(
        "runners.pool",
        "Activate",
        ("ask", "load", "a runner that serves nobody ends with its agent; A starts again"),
        ("ask", "promote", "a runner that serves nobody ends with its agent; A starts again"),
    ),
    *_rows("act", "Mark", ("step", "", "A's loads stay counted; it settles again")),
    *_slot("Mark", "A's loads stay counted; it settles again"),
    # --- trust and orders arrive ------------------------------------------------------------------
    *_replaced("orders", "tuf", "trusted.json", "the older set is trusted", module="trust"),
    *_rows(
        "trust",
        "orders",
        ("sync folder", "tuf", "either set is trusted: marks are not ahead of it"),
    ),
    *_replaced("orders", "tuf", "marks.json", "the older marks hold", module="marks"),
    *_rows("marks", "orders", ("sync folder", "tuf", "older or newer marks hold"), nth=2),
    *_replaced("orders", "tuf", "marks.copy.json", "the marks themselves hold", module="marks"),
    *_rows(
        "marks", "orders", ("sync folder", "tuf", "marks and copy differ: the next mends"), nth=3
    ),
    *_replaced(
        "orders", "", "clock.json", "the older floor; what is trusted raises it", module="clock"
    ),
    *_rows("clock", "orders", ("sync folder", "home", "older or newer floor")),
    *_replaced(
        "orders",
        "documents",
        "document.dsse",
        f"the older document, or none: {AGAIN}",
        module="orders",
    ),
    *_replaced(
        "orders", "documents", "deny.json", f"the older list, or none: {AGAIN}", module="orders"
    ),
    *_replaced("orders", "documents", "plan", f"the older plan, or none: {AGAIN}", module="orders"),
    *_rows("orders", "orders", ("sync folder", "documents", f"older or newer, or none: {AGAIN}")),
    # --- bytes are counted before they are spent --------------------------------------------------
    *_replaced("message", "", "budget.json", SPENT, module="budget"),
    *_rows("budget", "message", ("sync folder", "home", SPENT)),
    # --- B is fetched -----------------------------------------------------------------------------
    *_rows("act", "Fetch", ("step", "", "nothing is lost but time")),
    *_rows(
        "disk",
        "Fetch",
        ("create", "a journal slot", "no journal and no bundles: nothing was ever here"),
        ("sync folder", "state", "the slots are made again"),
        journey="first",
    ),
    *_slot("Fetch", "a slot of the wrong size is made again", journey="first"),
    *_slot("Fetch", "no journal and no bundles: nothing was ever here", journey="first", nth=3),
    *_rows("fetch", "fetch", ("mkdir", "a partial bundle", "B is not begun")),
    *_beside("index.json", "the index is fetched again"),
    *_beside("manifest.json", "the manifest is fetched again"),
    *_beside("frame lists", "the lists are fetched again"),
    *_beside("hint", "without a broker nothing is known of this file"),
    *_rows(
        "siblings",
        "worker",
        ("link", "a member of a partial bundle", "the member is linked again, or fetched"),
    ),
    *_rows(
        "partial",
        "message",
        ("create", "payload of a partial bundle", "frames are hashed again, and fetched"),
        ("write", "payload of a partial bundle", "frames are hashed again, and fetched"),
    ),
    *_rows(
        "decode",
        "worker",
        (
            "create",
            "a member, being decoded of a partial bundle",
            "the payload is there, or is fetched again",
        ),
        ("write", "a member, being decoded of a partial bundle", "it is decoded again"),
        (
            "rename",
            "a member, being decoded of a partial bundle",
            "a member has its name only with the right bytes, and is hashed again",
        ),
    ),
    *_rows(
        "partial",
        "worker",
        ("unlink", "payload of a partial bundle", "a payload too many: Stage removes it"),
        ("unlink", "frame lists of a partial bundle", "lists too many: Stage removes them"),
    ),
    *_rows(
        "members",
        "worker",
        ("unlink", "hint of a partial bundle", "a hint too many: Stage removes it"),
    ),
    # --- B gets its name --------------------------------------------------------------------------
    *_rows("act", "Stage", ("step", "", "B is complete; " + SAME)),
    *_rows(
        "disk",
        "Stage",
        ("fsync", "a member of a partial bundle", "what is not synced is fetched again"),
        ("fsync", "index.json of a partial bundle", "the same"),
        ("fsync", "manifest.json of a partial bundle", "the same"),
        ("sync folder", "a partial bundle", "names of members may be lost, and fetched again"),
        ("rename", "a partial bundle", "B has no name; " + SAME),
        ("sync folder", "bundles", "B is complete under either name"),
    ),
    # --- B is tried -------------------------------------------------------------------------------
    *_rows("act", "Probe", ("step", "", "B is here and untried")),
    *_slot("Probe", "B's load is not counted, nor has it happened"),
    *_rows("runners.child", "Probe", ("start", "a runner", "B's load is counted; " + STILL_A)),
    *_rows(
        "runners.pool",
        "Probe",
        ("ask", "load", STILL_A),
        ("ask", "probe", STILL_A),
    ),
    *_rows("act", "Activate", ("step", "", STILL_A), nth=2),
    *_rows("runners.pool", "Activate", ("ask", "promote", STILL_A), nth=2),
    *_rows("act", "Park", ("step", "", "A and B answer; A is parked next time")),
    *_rows("runners.pool", "Park", ("ask", "park", "A and B answer; A is parked next time")),
    *_rows("act", "Mark", ("step", "", "a tenth of the trial is run again"), nth=3),
    *_slot("Mark", "a tenth of the trial is run again", nth=3),
    # --- B is committed ---------------------------------------------------------------------------
    *_rows("act", "Commit", ("step", "", "A is current; B's trial goes on, or B is tried again")),
    *_slot("Commit", "A is current; B's trial goes on, or B is tried again"),
    *_rows("act", "Drain", ("step", "", PARKED)),
    *_rows("runners.pool", "Drain", ("ask", "drain", PARKED)),
    *_rows("act", "Report", ("step", "", "the outcome is in the journal, and is reported")),
    *_rows(
        "buffer", "Report", ("commit", "outbox", "the outcome is in the journal, and is reported")
    ),
    *_rows("act", "Collect", ("step", "", "what nobody refers to stays a while longer")),
    *_slot("Collect", "the older generation still names it: nothing is deleted"),
    *_rows(
        "disk",
        "Collect",
        ("unlink", "a member of a bundle", "what is left does not verify, and is deleted"),
        ("unlink", "index.json of a bundle", "the same"),
        ("unlink", "manifest.json of a bundle", "the same"),
        ("rmdir", "a bundle", "an empty folder is deleted"),
    ),
    # --- a bad B ----------------------------------------------------------------------------------
    *_rows("act", "Reject", ("step", "", "B's trial goes on, and fails again"), journey="bad"),
    *_slot("Reject", "B's trial goes on, and fails again", journey="bad"),
    *_rows("act", "Activate", ("step", "", BACK), journey="bad", nth=3),
    *_rows("runners.pool", "Activate", ("ask", "promote", BACK), journey="bad", nth=3),
    *_rows("act", "Drain", ("step", "", "A answers, and B still"), journey="bad"),
    *_rows("runners.pool", "Drain", ("ask", "drain", "A answers, and B still"), journey="bad"),
    *_slot("Probe", "B is tried, and fails again", journey="unfit", nth=2),
    *_rows(
        "runners.pool",
        "Probe",
        ("kill", "a runner", "its runner ends with its agent; B is tried, and fails again"),
        journey="unfit",
    ),
    # --- A is damaged -----------------------------------------------------------------------------
    *_rows("act", "Rollback", ("step", "", SAME), journey="rollback"),
    *_slot("Rollback", SAME, journey="rollback"),
    # --- B comes as a delta, over HTTP ------------------------------------------------------------
    *_beside("frame lists", "the lists are fetched again", "fetch", journey="delta"),
    *_rows(
        "partial",
        "fetch",
        ("create", "payload of a partial bundle", "frames are hashed again, and fetched"),
        ("write", "payload of a partial bundle", "frames are hashed again, and fetched"),
        journey="delta",
    ),
    *_rows(
        "siblings",
        "worker",
        ("link", "a base of a partial bundle", "it is linked again, while A is here"),
        journey="delta",
    ),
    *_rows(
        "decoding",
        "worker",
        ("start", "a decoder", "the payload is there, and is decoded"),
        journey="delta",
    ),
    *_rows(
        "refusals",
        "fetch",
        (
            "create",
            "a refusal of a partial bundle",
            "what is no delta is decoded, and refused, again",
        ),
        journey="delta",
    ),
    *_rows(
        "partial",
        "fetch",
        ("unlink", "payload of a partial bundle", "it is refused: Stage removes it"),
        ("unlink", "a member, growing of a partial bundle", "Stage removes it"),
        ("unlink", "frame lists of a partial bundle", "Stage removes them"),
        journey="delta",
    ),
    *_rows(
        "decoding",
        "worker",
        ("start", "a decoder", "the payload is there, and is decoded"),
        journey="delta",
        nth=2,
    ),
    *_rows(
        "decode",
        "worker",
        (
            "rename",
            "a member, growing of a partial bundle",
            "what was decoded is hashed, and has its name then",
        ),
        journey="delta",
    ),
    *_rows(
        "members",
        "worker",
        ("unlink", "a base of a partial bundle", "a link too many: Stage removes it"),
        journey="delta",
    ),
    *_rows(
        "disk",
        "Stage",
        ("unlink", "a refusal of a partial bundle", "B is complete; " + SAME),
        journey="delta",
    ),
    # --- counts and reports -----------------------------------------------------------------------
    *_rows("runners.pool", "counts", ("ask", "take", "the runner keeps its counts"), nth=2),
    *_rows(
        "buffer",
        "counts",
        ("commit", "outbox", "the runner repeats what is not acknowledged"),
        nth=2,
    ),
    *_rows("buffer", "report", ("commit", "outbox", "the state is reported again")),
    *_rows(
        "buffer", "message", ("commit", "outbox", "what was confirmed is sent again, and known")
    ),
)

STEPS_SIMULATED_ONLY: Final = frozenset(
    {"Degrade", "DropPrevious", "Kill", "Remember", "Rescue", "Resume", "Stop", "Unload", "Wait"}
)
"""Steps of no reference journey: `test_simulated` crashes them over simulated files."""


def cells() -> tuple[tuple[Row, Fault], ...]:
    return tuple((row, fault) for row in ROWS for fault in faults_of(row))

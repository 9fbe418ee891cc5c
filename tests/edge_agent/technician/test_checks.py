"""What doctor makes of what it found: case by case."""

from dataclasses import replace

import pytest

from edge_agent.technician.checks import (
    Findings,
    Golden,
    Kept,
    Outbox,
    Report,
    Unit,
    examine,
    lines,
)
from edge_agent.technician.status import LinkStatus
from protocol.reported import BufferState, Progress, Refused, TrustState
from tests.fakes.attended import DAY_MS, NOW_MS, STABLE, STATE, STATUS

TRUST = TrustState(3, 40, 40, 5, 13, 39, "2026-11-20T15:06:40Z")
WELL = Findings(
    NOW_MS,
    STATUS,
    certificate_until_ms=NOW_MS + 55 * DAY_MS,
    golden=(Golden("digits/v2", "answered", 3.2),),
    trust=TRUST,
    marks_intact=True,
    free_bytes=1_200_000_000,
    clock="synchronised",
    port=8500,
    folder="/var/lib/outrider of outrider, mode 0700",
    unit=Unit(True, True, True),
)
OFF = replace(
    WELL, status=None, golden=None, kept=(Kept("digits/v2", True),), outbox=Outbox("", 118, 21_000)
)


def of_state(**changes):
    return replace(WELL, status=replace(STATUS, state=replace(STATE, **changes)))


def of_model(**changes):
    return of_state(models={"digits": replace(STABLE, **changes)})


def with_link(why):
    return replace(WELL, status=replace(STATUS, link=LinkStatus(False, "mq.example:8883", 0, why)))


def test_a_device_that_is_well_passes_every_check():
    report = examine(WELL)
    assert {check.result for check in report.checks} == {"ok"}
    assert (report.exit, list(lines(report))[-1]) == (0, "all is well")


CASES = {
    # name of the check, finding, result, what is said of it, exit
    "no working model": ("model", of_model(serving=None), "FAIL", "no working model", 1),
    "no model assigned": ("model", of_state(models={}), "warn", "none is assigned", 8),
    "a model that answers wrongly": (
        "model", replace(WELL, golden=(Golden("digits/v2", "differs", why="OUT-D301 3 of 32"),)),
        "FAIL", "OUT-D301 3 of 32", 1,
    ),
    "a model that cannot be asked now": (
        "model", replace(WELL, golden=(Golden("digits/v2", "busy"),)), "skip", "busy", 0,
    ),
    "lost marks": ("trust", replace(WELL, marks_intact=False), "FAIL", "high-water marks", 1),
    "expired trust": (
        "trust", replace(WELL, trust=replace(TRUST, fresh_until="2026-11-14T00:00:00Z")),
        "warn", "expired 14 Nov", 8,
    ),
    "nothing trusted yet": ("trust", replace(WELL, trust=TrustState(1)), "warn", "nothing is", 8),
    "damaged metadata": (
        "trust", replace(OFF, trust=None, trust_why="what was trusted is damaged"), "FAIL",
        "damaged", 1,
    ),
    "a clock that drifts": ("clock", replace(WELL, clock="floor"), "warn", "not synchronised", 8),
    "a clock that nobody set": ("clock", replace(WELL, clock_unset=True), "FAIL", "OUT-T120", 1),
    "a certificate that is over": (
        "cert", replace(WELL, certificate_until_ms=NOW_MS - 1), "FAIL", "expired 18 Nov 2026", 1,
    ),
    "a certificate that is nearly over": (
        "cert", replace(WELL, certificate_until_ms=NOW_MS + 5 * DAY_MS), "warn", "in 5 d", 8,
    ),
    "no network": ("link", with_link("No route to host"), "warn", "No route to host", 8),
    "a broker that refuses": (
        "link", with_link("TLS: certificate revoked"), "FAIL", "OUT-N101 mq.example:8883", 1,
    ),
    "something that waits": (
        "fetch", of_model(waiting="OUT-T122", waiting_detail="30 h ago"), "warn", "OUT-T122", 8,
    ),
    "something on its way": (
        "fetch", of_model(phase="fetching", progress=Progress(7, 19)), "ok", "7 of 19 frames", 0,
    ),
    "no link to fetch over": ("fetch", with_link("away"), "skip", "needs the link", 8),
    "a broken buffer": (
        "buffer", of_state(refused=(Refused("buffer", "OUT-D502", "malformed"),)), "FAIL",
        "OUT-D502 malformed", 1,
    ),
    "a full buffer": (
        "buffer", of_state(buffer=BufferState(9, 31_000_000, 32_000_000)), "warn",
        "counts stay", 8,
    ),
    "little room": ("disk", replace(WELL, free_bytes=150_000_000), "warn", "150 MB free", 8),
    "no room": ("disk", replace(WELL, free_bytes=9_000_000), "FAIL", "9.00 MB free", 1),
    "a folder of somebody else": (
        "folder", replace(WELL, folder_wrong=("it belongs to root",)), "FAIL", "root", 1,
    ),
    "a service that does not start again": (
        "service", replace(WELL, unit=Unit(True, True, False)), "warn", "with the machine", 8,
    ),
    "no service": ("service", replace(WELL, unit=Unit(False)), "skip", "install-service", 0),
    "no systemd": ("service", replace(WELL, unit=None), "skip", "no systemd", 0),
    "no agent": ("agent", OFF, "FAIL", "not running", 1),
    "no identity": ("agent", replace(OFF, enrolled="nothing in x"), "FAIL", "not enrolled", 1),
    "without an agent, a whole model": ("model", OFF, "ok", "digits/v2 is whole", 1),
    "without an agent, a damaged model": (
        "model", replace(OFF, kept=(Kept("digits/v2", False),)), "FAIL", "damaged on disk", 1,
    ),
    "without an agent, a large model": (
        "model", replace(OFF, kept=(Kept("digits", None),)), "skip", "when it starts", 1,
    ),
    "without an agent, a sound buffer": ("buffer", OFF, "ok", "118 records", 1),
    "without an agent, a damaged buffer": (
        "buffer", replace(OFF, outbox=Outbox("malformed")), "FAIL", "OUT-D502 malformed", 1,
    ),
    "without an agent, a port in use": (
        "port", replace(OFF, port_used_by="another"), "FAIL", "8500 is in use", 1,
    ),
    "without an agent, a runner": (
        "port", replace(OFF, port_used_by="runner"), "ok", "goes on answering", 1,
    ),
    "without an agent, the link": ("link", OFF, "skip", "not running", 1),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_finding_is_judged_and_says_what_to_do(case):
    name, found, result, said, code = CASES[case]
    report = examine(found)
    mine = [check for check in report.checks if check.name == name]
    match = [check for check in mine if check.result == result and said in check.detail]
    assert match, mine
    assert report.exit == code
    assert all(check.do for check in report.checks if check.result in ("warn", "FAIL"))


@pytest.mark.parametrize("case", CASES)
def test_every_check_is_there_whatever_was_found_and_fits_the_screen(case):
    report = examine(CASES[case][1])
    assert {check.name for check in report.checks} == {
        "agent", "model", "trust", "clock", "cert", "link", "fetch", "buffer", "disk", "port",
        "folder", "service",
    }  # fmt: skip
    assert all(len(line) <= 80 for line in lines(report))


def test_a_report_counts_what_is_wrong():
    report = examine(replace(WELL, clock="floor", free_bytes=1, marks_intact=False))
    assert (report.failed, report.warnings, report.exit) == (2, 1, 1)
    assert list(lines(report))[-1] == "2 failed, 1 warning"
    assert Report(()).exit == 0

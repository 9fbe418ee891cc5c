"""What a technician reads, case by case: the device knows it, or the page does not say it.

Long because every line of the page has its cases.
"""

from dataclasses import replace

import pytest

from edge_agent.technician.page import page, summary
from edge_agent.technician.status import (
    Answers,
    LinkStatus,
    RenewalStatus,
    Status,
    TrialStatus,
    full_at_ms,
)
from protocol.bundle import Facts
from protocol.identifiers import digest_of
from protocol.reported import (
    BufferState,
    DriftState,
    Guards,
    LocalPin,
    ModelState,
    Note,
    Outcome,
    Progress,
    Refused,
    ReportedState,
    TrustState,
)

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NOW_MS = 1_795_000_000_000  # 18 Nov 2026 11:06:40 UTC
V1, V2, V3 = digest_of(b"v1"), digest_of(b"v2"), digest_of(b"v3")

STABLE = ModelState(
    current=V2,
    previous=V1,
    serving=V2,
    target=V2,
    origin="stable",
    plan_number=31,
    since_ms=NOW_MS - 15 * DAY_MS,
    returns_to=V1,
)
CONNECTED = LinkStatus(True, "mq.example:8883", NOW_MS - 6 * DAY_MS)
LOST = LinkStatus(False, "mq.example:8883", NOW_MS - 9 * DAY_MS - 4 * HOUR_MS, "no route to host")
DENIED = Note("OUT-D310", "confidence 0.31, was 0.97", definite=True, activated=True)
ROLLED_BACK = Outcome(
    7, "digits", V3, "rolled_back", "OUT-D310", "confidence 0.31, was 0.97 (1,180 answers)"
)


def reported(**changes: object) -> ReportedState:
    state = ReportedState(
        1,
        "0.1",
        facts=Facts(arch="aarch64"),
        models={"digits": STABLE},
        trust=TrustState(fresh_until="2026-11-20T15:06:40Z"),
        buffer=BufferState(118, 21_000, 32_000_000),
        clock="synchronised",
        disk_free_bytes=1_200_000_000,
    )
    return replace(state, **changes)  # type: ignore[arg-type]  # a table


def status(state: ReportedState, **changes: object) -> Status:
    said = Status(
        "north-cam-0117",
        "north",
        NOW_MS,
        state,
        CONNECTED,
        {V1: "digits/v1", V2: "digits/v2", V3: "digits/v3"},
        certificate_until_ms=NOW_MS + 55 * DAY_MS,
    )
    return replace(said, **changes)  # type: ignore[arg-type]  # a table


def model(**changes: object) -> ReportedState:
    return reported(models={"digits": replace(STABLE, **changes)})  # type: ignore[arg-type]


ON_TRIAL = {
    "trials": {"digits": TrialStatus(0.01, 0, 1, 1800.0, 720.0, 0.0047)},
    "answers": {"digits": Answers(1180, 0, 0.0034)},
}
TRIAL_STATE = {
    "serving": V3, "target": V3, "phase": "probation", "origin": "rollout", "rollout": "digits-7",
    "returns_to": V2, "guards": Guards("active", 3, 1180, 4, 10),
}  # fmt: skip

CASES = {
    "normal": (
        status(reported(), answers={"digits": Answers(593_280, 0, 0.0031, 412.0)}),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
answers     412/min   p95 3.1 ms   errors 0 of 593,280 since it was loaded
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        nothing to do
""",
    ),
    "inputs as usual": (
        status(model(drift=DriftState(2.1999, "pixels_3", 15.4, 412, settled=True))),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
drift       none (evidence 2.1, alarm at 15.4)
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        nothing to do
""",
    ),
    "inputs drifted": (
        status(
            model(
                drift=DriftState(
                    18.2, "pixels_3", 15.4, 412, settled=True, since_ms=NOW_MS - 15 * DAY_MS
                )
            ),
            answers={"digits": Answers(593_280, 0, 0.0031, 412.0)},
        ),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
answers     412/min   p95 3.1 ms   errors 0 of 593,280 since it was loaded
drift       pixels_3 since 3 Nov 11:06 UTC (evidence 18.2, alarm at 15.4)
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        nothing to do
""",
    ),
    "learning what is usual": (
        status(model(drift=DriftState(0.4, "pixels_3", 15.4, 12))),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
drift       learning what is usual: 12 of 60 windows
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        nothing to do
""",
    ),
    "no link": (
        status(
            reported(
                trust=TrustState(fresh_until="2026-11-14T11:06:40Z"),
                buffer=BufferState(13_104, 4_100_000, 32_000_000),
            ),
            link=LOST,
        ),
        8,
        """\
! cam-0117: digits/v2 runs normally; no link for 9 d 4 h
why         plan 31: stable     returns to digits/v1
link        mq.example:8883 no route to host
buffer      13,104 records, 4.10 of 32.0 MB
clock       synchronised
trust       expired 14 Nov: nothing new can start, all else goes on
cert        12 Jan 2027       disk   1.20 GB free
next        give it network for a minute, or: outrider-agent install --from
""",
    ),
    "never had a link": (
        status(reported(models={}, trust=TrustState()), link=LinkStatus(False, "mq:8883")),
        8,
        """\
! cam-0117: no model is assigned
link        mq:8883 not connected yet
buffer      118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  nothing yet
cert        12 Jan 2027       disk   1.20 GB free
next        an operator starts a rollout that includes this device
""",
    ),
    "fetching": (
        status(model(phase="fetching", target=V3, progress=Progress(7, 19), origin="pin")),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         pinned by an operator     returns to digits/v1
coming      digits/v3, fetching, 7 of 19 frames
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        nothing to do
""",
    ),
    "probation": (
        status(
            model(
                serving=V3,
                target=V3,
                returns_to=V2,
                origin="rollout",
                rollout="digits-7",
                phase="probation",
                guards=Guards("active", 3, 640, 4, 10),
            ),
            answers={"digits": Answers(640, 0, 0.0034)},
        ),
        8,
        """\
* cam-0117: digits/v3 on probation, 4 of 10 marks, within limits
why         plan 31: rollout digits-7     returns to digits/v2
answers     p95 3.4 ms   errors 0 of 640 since it was loaded
limits      640 answers   confidence and classes: active
if broken   digits/v2 returns by itself, also offline
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        wait: it stays, or the one before returns by itself
""",
    ),
    "rolled back": (
        status(model(notes={V3: DENIED}, last=ROLLED_BACK)),
        8,
        """\
! cam-0117: digits/v3 failed here; digits/v2 runs again
why         OUT-D310 confidence 0.31, was 0.97 (1,180 answers)
deny        digits/v3 will not start here again; an operator lifts this:
            outrider device allow cam-0117 digits/v3
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        tell an operator; nothing is to be done here
""",
    ),
    "denied long ago": (
        status(model(notes={V3: DENIED})),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
why not     digits/v3: OUT-D310 confidence 0.31, was 0.97
deny        digits/v3 will not start here again; an operator lifts this:
            outrider device allow cam-0117 digits/v3
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        nothing to do
""",
    ),
    "no working model": (
        status(
            reported(
                models={
                    "digits": ModelState(
                        target=V3, origin="stable", plan_number=31, notes={V3: DENIED}
                    )
                }
            )
        ),
        1,
        """\
! cam-0117: no working model for digits
why         plan 31: stable
why not     digits/v3: OUT-D310 confidence 0.31, was 0.97
deny        digits/v3 will not start here again; an operator lifts this:
            outrider device allow cam-0117 digits/v3
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        look at the lines above
""",
    ),
    "unexercised": (
        status(model(committed_unexercised=True, since_ms=NOW_MS - 40_000)),
        8,
        """\
* cam-0117: digits/v2 runs since 11:06 UTC (40 s), too little traffic yet
why         plan 31: stable     returns to digits/v1
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        look at its answers: there were too few to judge it by
""",
    ),
    "refused documents": (
        status(reported(refused=(Refused("plan digits", "OUT-T106", "number 30 is older"),))),
        8,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
refused     plan digits: OUT-T106 number 30 is older
next        nothing: the last verified one stays in force
""",
    ),
    "waiting": (
        status(
            model(
                target=V3,
                phase="waiting",
                waiting="OUT-D201",
                waiting_detail="needs 48.0 MB, 31.5 MB free",
            )
        ),
        8,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d); digits/v3
  waits
why         plan 31: stable     returns to digits/v1
waiting     OUT-D201 needs 48.0 MB, 31.5 MB free
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        free space on the device
""",
    ),
    "development, clock unknown": (
        status(
            reported(dev=True, clock="floor", trust=TrustState()),
            versions={},
            certificate_until_ms=0,
        ),
        0,
        f"""\
* cam-0117: {V2[7:15]} runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to {V1[7:15]}
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       not synchronised  trust  nothing yet
cert        unknown           disk   1.20 GB free
dev mode    local keys, short intervals, no thrash guard: not for production
next        nothing to do
""",
    ),
    "the way back is not on this disk": (
        status(model(return_needs_download=True, origin="technician")),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         pinned here     returns to digits/v1, which needs a download
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027       disk   1.20 GB free
next        nothing to do
""",
    ),
    "certificate about to expire": (
        status(
            reported(),
            certificate_until_ms=NOW_MS + 5 * DAY_MS,
            renewal=RenewalStatus(
                3, NOW_MS - 5 * DAY_MS, "OUT-N104", "control plane not reachable", urgent=True
            ),
        ),
        8,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
! cam-0117: certificate expires in 5 d, renewal failed 3 times
why         OUT-N104 control plane not reachable since 13 Nov
after       the link closes; answers go on, records are kept
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        23 Nov 2026       disk   1.20 GB free
next        outrider-agent enrol --renew --csr-to /media/usb
""",
    ),
    "certificate expired, the control plane says no": (
        status(
            reported(),
            link=LOST,
            certificate_until_ms=NOW_MS - 5 * DAY_MS,
            renewal=RenewalStatus(1, NOW_MS - DAY_MS, "OUT-A212", "it was retired", urgent=True),
        ),
        8,
        """\
! cam-0117: digits/v2 runs normally; no link for 9 d 4 h
why         plan 31: stable     returns to digits/v1
! cam-0117: certificate expired 13 Nov 2026, renewal failed once
why         OUT-A212 it was retired since 17 Nov
after       the link is closed; answers go on, records are kept
link        mq.example:8883 no route to host
buffer      118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        expired 13 Nov 2026  disk   1.20 GB free
next        enrol it under a new name: outrider device enrol-token
""",
    ),
    "certificate about to expire, nothing tried yet": (
        status(
            reported(),
            certificate_until_ms=NOW_MS + 5 * DAY_MS,
            renewal=RenewalStatus(urgent=True),
        ),
        8,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
! cam-0117: certificate expires in 5 d
after       the link closes; answers go on, records are kept
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        23 Nov 2026       disk   1.20 GB free
next        nothing: it is being renewed; give it network
""",
    ),
    "renewal failed, with months to go": (
        status(reported(), renewal=RenewalStatus(2, NOW_MS - DAY_MS, "OUT-N104", "refused")),
        0,
        """\
* cam-0117: digits/v2 runs normally since 3 Nov 11:06 UTC (15 d)
why         plan 31: stable     returns to digits/v1
link        connected 6 d     buffer 118 records, 21.0 kB of 32.0 MB
clock       synchronised      trust  fresh for 2 d 4 h
cert        12 Jan 2027, renewal failed 2 times: OUT-N104  disk   1.20 GB free
next        nothing to do
""",
    ),
    "clock unset": (
        status(reported(clock="floor", trust=TrustState()), link=LOST, clock_unset=True),
        8,
        """\
! cam-0117: digits/v2 runs normally; no link for 9 d 4 h
why         plan 31: stable     returns to digits/v1
link        mq.example:8883 no route to host
buffer      118 records, 21.0 kB of 32.0 MB
clock       OUT-T120 not set: no time service, no signed time yet
trust       nothing yet
cert        12 Jan 2027       disk   1.20 GB free
next        sudo timedatectl set-ntp true
""",
    ),
    "starting": (
        Status("north-cam-0117", "north", NOW_MS, ReportedState(0, "0.1")),
        8,
        """\
* cam-0117: starting
next        look again in a second
""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_page(name):
    said, exit, lines = CASES[name]
    shown = page(said)
    assert "\n".join(shown.lines) + "\n" == lines
    assert shown.exit == exit
    assert max(map(len, shown.lines)) <= 80


@pytest.mark.parametrize(
    "other, exit",
    [
        pytest.param(STABLE, 0, id="both normal"),
        pytest.param(replace(STABLE, committed_unexercised=True), 8, id="one needs a look"),
        pytest.param(ModelState(), 1, id="one has nothing, which is worse"),
    ],
)
def test_the_worst_model_decides(other, exit):
    looks = replace(STABLE, committed_unexercised=exit == 1)
    assert page(status(reported(models={"a": looks, "b": other}))).exit == exit


def test_words_of_any_length_stay_on_the_screen():
    long = " ".join(["words"] * 60)
    state = model(waiting="OUT-D201", waiting_detail=long, target=V3)
    shown = page(status(replace(state, refused=(Refused("plan", "OUT-T106", long),)), link=LOST))
    assert max(map(len, shown.lines)) <= 80


def test_the_age_of_a_link_is_not_what_trusted_time_has_jumped_by():
    link = LinkStatus(True, "mq:8883")
    assert link.lasting(100.0, 108.0, NOW_MS).since_ms == NOW_MS - 8000
    assert link.lasting(100.0, 108.0, 5000).since_ms == 0
    assert link.lasting(None, 108.0, NOW_MS) == link


# --- what is measured against what is allowed -----------------------------------------------------


def test_a_trial_is_shown_with_what_was_measured_and_what_is_allowed():
    shown = page(status(model(**TRIAL_STATE), **ON_TRIAL))
    assert shown.exit == 8
    assert shown.lines[0] == "* cam-0117: digits/v3 on probation, 12 of 30 min, within limits"
    assert "limits      errors 0 of 1 %   p95 3.4 of 4.7 ms   crashes 0 of 1" in shown.lines
    assert "watched     1,180 answers   confidence and classes: active" in shown.lines
    assert "if broken   digits/v2 returns by itself, also offline" in shown.lines


def test_without_a_version_to_compare_with_there_is_no_limit_for_latency():
    trials = {"digits": TrialStatus(0.01, 1, 3, 3.0, 1.0)}
    answers = {"digits": Answers(99, 1, 0.0034)}
    shown = page(status(model(**TRIAL_STATE), trials=trials, answers=answers))
    assert "limits      errors 1 of 1 %   p95 3.4 ms   crashes 1 of 3" in shown.lines
    assert ", 1 of 3 s, within limits" in shown.lines[0]


def test_without_a_link_it_says_when_it_tries_again_and_how_long_detail_is_kept():
    lost = replace(LOST, next_try_s=42.7)
    shown = page(status(reported(), link=lost, detail_until_ms=NOW_MS + 38 * DAY_MS))
    text = "\n".join(shown.lines)
    assert "link        mq.example:8883 no route to host; next try in 42 s" in shown.lines
    assert "full detail until about 26 Dec" in text
    assert "then hours merge, counts stay" in " ".join(text.split())


@pytest.mark.parametrize(
    "before, used, elapsed_s, full_ms",
    [
        (0, 1_000, 3600.0, NOW_MS + 9 * HOUR_MS),
        (0, 1_000, 599.0, 0),  # too short a time to tell
        (1_000, 1_000, 3600.0, 0),  # it does not grow
        (1_000, 500, 3600.0, 0),  # it was emptied meanwhile
        (0, 10_000, 3600.0, 0),  # it is full
        (9_999, 9_999, 3600.0, 0),
        (0, 1, 100 * 86_400.0, 0),  # not in this century
    ],
)
def test_how_long_detail_is_kept_follows_from_how_the_buffer_filled(
    before, used, elapsed_s, full_ms
):
    assert full_at_ms(before, used, 10_000, elapsed_s, NOW_MS) == full_ms


def test_a_pin_of_this_device_is_why_with_who_until_when_and_what_for():
    pin = LocalPin(V2, NOW_MS + 13 * DAY_MS, "wrong labels", "tom")
    shown = page(status(model(origin="technician", pinned=pin)))
    why = " ".join("\n".join(shown.lines).split())
    assert "pinned here by tom until 1 Dec 11:06 UTC (wrong labels)" in why


def test_the_summary_is_the_headline_without_the_name():
    assert summary(status(reported())).startswith("digits/v2 runs normally since")
    assert summary(status(reported(models={}))) == "no model is assigned"
    assert summary(status(reported(facts=Facts()))) == "starting"

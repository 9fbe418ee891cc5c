"""The ten invariants of the architecture, each as a check of what a soak run observed.

Pure. A check returns what is wrong, in words; nothing means that the invariant held as far as it
can be seen from outside. What cannot be seen here (a thief with the online keys, say) has tests
of its own; each docstring says how far this one looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from tests.soak.evidence import Evidence, Span

SLACK_S: Final = 0.15
"""Between what a process does and when that is seen."""
MEMORY_BYTES: Final = 400_000_000
"""Of a supervisor or a runner with a model of 5 kB, whatever it was sent. They take about 80 MB."""
QUIET_MESSAGES: Final = 30
PER_WISH: Final = 20
PER_RESTART: Final = 60
"""Messages to everybody: in a run without wishes, for each wish, and each time that a control
plane or a broker comes back and compares what is retained. No number of devices is in it."""
WANT_S: Final = 5.0
"""In a development fleet a device may ask this often for a payload that does not come."""

Check = Callable[[Evidence], Iterator[str]]


def only_approved(seen: Evidence) -> Iterator[str]:
    """1: who answers names an approved version, and computes what its bytes compute."""
    yield from seen.wrong
    for version in sorted(seen.versions.keys() - seen.approved):
        yield f"{version} answered {seen.versions[version]} times, and nobody approved it"
    for slot, held in (("serves", seen.model.serving), ("committed", seen.model.current)):
        if held is not None and held not in seen.approved:
            yield f"the device {slot} {held}, and nobody approved it"


def always_a_model(seen: Evidence) -> Iterator[str]:
    """2: requests fail only with the runner that they were in, or while neither agent nor runner
    was there to listen; in the end the model answers and nothing revoked or denied is served."""
    if not seen.answered:
        yield "no request was answered at all"
    excused = [*_deaths(seen), *_nobody_listens(seen)]
    for failure in seen.failures:
        if not any(span.meets(failure.began, failure.ended) for span in excused):
            yield f"failed at {failure.began:.3f} to {failure.ended:.3f}: {failure.why}"
    if not seen.answers_now:
        yield "the model does not answer in the end"
    if seen.model.serving is None:
        yield "the device says that it serves nothing"
    elif seen.model.serving in seen.revoked | seen.denied:
        yield f"{seen.model.serving} is served, which is revoked or denied"
    yield from seen.surprises


def counted_once(seen: Evidence) -> Iterator[str]:
    """3: stored is what the device counted; and that is what the application got, but for what
    died with a runner before it was committed, or with an outbox that the device reports lost."""
    if seen.conflicts:
        yield f"{seen.conflicts} records came with two contents"
    if seen.held:
        yield f"{seen.held} records are still not confirmed"
    most = seen.answered + len(seen.failures)
    if seen.stored > most:
        yield f"{seen.stored} answers are stored, {most} were given: counted twice"
    if seen.loss_said:
        return
    if seen.stored != seen.counted:
        yield f"{seen.stored} answers are stored, the device counted {seen.counted}"
    least = seen.answered - lost_at_most(seen)
    if seen.stored < least:
        yield f"{seen.stored} answers are stored, at least {least} must be"


def nothing_goes_back(seen: Evidence) -> Iterator[str]:
    """4: versions of trust, plan and document only rise, whatever messages came twice, late or
    damaged; and in the end the device is where the last wish that was confirmed wants it."""
    highest: dict[str, int] = {}
    for sample in seen.samples:
        for name, version in sample.versions.items():
            if version and version < highest.get(name, 0):
                yield f"{name} went from {highest[name]} back to {version}"
            highest[name] = max(version, highest.get(name, 0))
    yield from seen.forgotten
    if not seen.agreed:
        yield "the control plane does not show what the device says of itself"
    model = seen.model
    if model.serving != seen.wanted:
        last = model.last[1] if model.last[0] == seen.wanted else ""
        if not (model.reasons.get(seen.wanted) or model.waiting or last):
            yield f"{seen.wanted} is wanted, {model.serving} is served, and no reason is given"
    elif model.current != model.serving:
        yield f"{model.serving} is served and still not committed"


def bounded_publishing(seen: Evidence) -> Iterator[str]:
    """5: messages to everybody follow from wishes and restarts; frames are published again only
    after a restart, or when a device misses them, once for all."""
    told = sum(count for kind, count in seen.published.items() if kind != "frames")
    most = QUIET_MESSAGES + PER_WISH * seen.wishes + PER_RESTART * seen.restarts
    if told > most:
        yield f"{told} messages to everybody, at most {most} were expected"
    again = seen.restarts + int(seen.lasted_s / WANT_S)
    if seen.frame_bytes > seen.payload_bytes * again:
        yield f"{seen.frame_bytes} bytes of frames, all payloads have {seen.payload_bytes}"


def no_unapproved_orders(seen: Evidence) -> Iterator[str]:
    """6: what nobody approved is not even headed for, and no reason that orders can give leaves
    the device without a model. (Stolen keys themselves: `tests/e2e/test_hostile.py`.)"""
    target = seen.model.target
    if target is not None and target not in seen.approved:
        yield f"the device heads for {target}, and nobody approved it"
    if seen.model.serving is None and "v1" not in seen.revoked:
        yield "orders have left the device without a model"


def time_and_network_do_not_matter(seen: Evidence) -> Iterator[str]:
    """7: no request fails for a wrong clock, an expired signature or a network that is away."""
    excused = [*_deaths(seen), *_nobody_listens(seen)]
    for failure in seen.failures:
        if any(span.meets(failure.began, failure.ended) for span in excused):
            continue
        if any(span.meets(failure.began, failure.ended) for span in seen.harmless):
            yield f"failed while only clock or network were wrong: {failure.why}"


def decisions_are_recorded(seen: Evidence) -> Iterator[str]:
    """8: verdicts of the gate come out the same from their recorded inputs; every end of a trial
    reached the control plane, with its reason."""
    yield from (f"the verdict of {name} comes out differently" for name in seen.verdicts)
    for outcome in seen.outcomes:
        if outcome.result in ("rejected", "rolled_back", "rescued") and not outcome.reason:
            yield f"outcome {outcome.number}, {outcome.result}, has no reason"
        if outcome.number not in seen.outcomes_stored and not seen.loss_said:
            yield f"outcome {outcome.number}, {outcome.result}, is not in the store"


def inputs_stay(seen: Evidence) -> Iterator[str]:
    """9: a number that every input contains is nowhere but on the device's own loopback."""
    yield from (f"raw inputs are in {place}" for place in seen.leaks)


def bounded_memory(seen: Evidence) -> Iterator[str]:
    """10: whatever came in, no process of the device took more memory than it may."""
    for name, peak in seen.peaks.items():
        if peak > MEMORY_BYTES:
            yield f"{name} took {peak // 1_000_000} MB"


CHECKS: Final[Mapping[int, Check]] = {
    1: only_approved,
    2: always_a_model,
    3: counted_once,
    4: nothing_goes_back,
    5: bounded_publishing,
    6: no_unapproved_orders,
    7: time_and_network_do_not_matter,
    8: decisions_are_recorded,
    9: inputs_stay,
    10: bounded_memory,
}


def violations(seen: Evidence) -> tuple[str, ...]:
    """All that is wrong, each with the number of its invariant."""
    return tuple(
        f"invariant {number}: {text}" for number, check in CHECKS.items() for text in check(seen)
    )


def lost_at_most(seen: Evidence) -> int:
    """Answers that may have died with runners: got before a death, not in the outbox then."""
    lost = 0
    for death in _deaths(seen):
        before = [s.counted for s in seen.samples if s.at <= death.begin and s.counted >= 0]
        after = [s.asked for s in seen.samples if s.at >= death.end]
        lost += max(0, min(after, default=seen.answered) - max(before, default=0))
    return lost


def _deaths(seen: Evidence) -> list[Span]:
    return [
        Span(life.ended.begin - SLACK_S, life.ended.end + SLACK_S)
        for life in seen.runners
        if life.ended is not None and not life.drained
    ]


def _nobody_listens(seen: Evidence) -> list[Span]:
    """Parts of absences of the agent in which no runner serves: the socket is gone with both."""
    spans = []
    for absence in seen.absences:
        begin = absence.begin
        lives = [
            (life.promoted, life.ended.begin if life.ended is not None else float("inf"))
            for life in seen.runners
        ]
        for promoted, ended in sorted(lives):
            if promoted <= begin < ended:
                begin = ended
        if begin < absence.end:
            spans.append(Span(begin - SLACK_S, absence.end + SLACK_S))
    return spans

"""The seven scenes. Each leaves the fleet as the next one expects it, and notes what it checked."""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from control_plane.catalog import layout
from control_plane.catalog.build import BuiltBundle
from control_plane.demo.bytes_sent import Bytes, Moved
from control_plane.demo.fleet import Device, wait_until
from control_plane.demo.stage import ENDS, MODEL, Stage, clean_rows, drifted_rows
from protocol.errors import Failed, OutriderError
from protocol.identifiers import Digest
from protocol.topics import Topics
from protocol.wording import size

ROLLOUT_S: Final = 120.0
CUT_S: Final = 8.0
DRIFT_ROWS: Final = 100
WIDTH: Final = 68
SHADOWED: Final = 30
ENOUGH: Final = 1_600
"""Rows of which chance does not turn the better of these two models into the worse one."""
ASKS: Final = "OUT-R205"
ASKED_FIRST: Final = {"devices": 3, "approve": True}
STRICT: Final = {"bad": "> 10 %", "denominator": "activated", "min_completed": 1}


def first_model(stage: Stage, waves: tuple[str, ...] = ("1", "3", "100%")) -> None:
    stage.transcript.scene(1, "First model")
    before = stage.moved()
    built = stage.ship("v1", 600)
    _built(stage, "v1", f"600 rows, {built.golden} golden vectors")
    _approved(stage, "v1")
    shown = stage.follow(stage.start("v1", waves), ROLLOUT_S)
    share = origin_share(stage)
    stage.say_moved(before)
    _accuracy(stage, "v1")
    on = stage.running("v1")
    stage.expect(1, "devices on digits/v1", len(stage.devices), len(on), _not_in(stage, on))
    stage.note(1, "origin bytes / payload", "<= 1.02", f"{share:.2f}", share <= 1.02)
    _no_failures(stage, 1)
    stage.expect(1, "rollout", "completed", shown["status"])


def better_model(
    stage: Stage, waves: Sequence[str | dict[str, Any]] = ("1", ASKED_FIRST, "100%")
) -> None:
    """It runs beside the old one first, and a person lets it go on where its wave says so."""
    stage.transcript.scene(2, "A better model")
    before = stage.moved()
    stage.ship("v2", 1200)
    _built(stage, "v2", "1,200 rows")
    _approved(stage, "v2")
    shadow = {"rows": SHADOWED, "agreement": ">= 80 %"}
    rollout = stage.start("v2", waves, shadow=shadow, error_condition=STRICT)
    told: set[str] = set()

    def ended(shown: dict[str, Any]) -> bool:
        beside = shown["shadow"] or {}
        if beside.get("with_rows") and not beside["active"] and "shadow" not in told:
            told.add("shadow")
            agree = f"{beside['agreed']:,} of {beside['rows']:,} answers agree"
            stage.transcript.line("shadow", f"{agree}, none was given to an application")
        if shown["waits_for"] and shown["waits_for"]["code"] == ASKS:
            _wrapped(stage, "verdict", f"{shown['verdict']}: {shown['sentence']}")
            stage.fleet.client.post(f"rollouts/{rollout}/approve", {"why": "looks good"})
            stage.transcript.line("approved", f"wave {shown['waits_for']['wave']}, by an operator")
            return False
        return shown["status"] in ENDS

    shown = stage.follow(rollout, ROLLOUT_S, ended)
    with contextlib.suppress(Failed):  # the numbers say it better than the wait's end
        wait_until(lambda: _answers_of(stage, "v2") >= ENOUGH, "enough rows are answered", 90)
    stage.expect(2, "rollout", "completed", shown["status"])
    stage.expect(2, "answers compared before it served", "yes", "yes" if told else "no")
    stage.say_moved(before)
    worse, better = _mean_accuracy(stage, "v1"), _mean_accuracy(stage, "v2")
    stage.transcript.line("accuracy", f"{worse:.2f} -> {better:.2f}   (held-out rows)")
    on = stage.running("v2")
    stage.expect(2, "devices on digits/v2", len(stage.devices), len(on), _not_in(stage, on))
    stage.note(2, "accuracy rose", f"> {worse:.2f}", f"{better:.2f}", better > worse)
    _no_failures(stage, 2)


def bad_model(stage: Stage, canaries: int = 3) -> None:
    stage.transcript.scene(3, "A bad model that passes its golden vectors")
    before = stage.moved()
    built = stage.ship("v3", 1200, shuffled_labels=True)
    stage.transcript.line("built", "digits/v3   trained on row-shuffled labels")
    _approved(stage, "v3")
    # What one device does proves nothing, so the gate alone would ask a person.
    rules = {} if canaries > 1 else {"error_condition": STRICT}
    rollout = stage.start("v3", [str(canaries), "100%"], **rules)
    started = time.monotonic()
    returned: dict[str, str] = {}

    def ended(shown: dict[str, Any]) -> bool:
        for name, detail in _returned(stage, built.digest).items():
            if name not in returned:
                after = time.monotonic() - started
                stage.transcript.line(name, f"back on digits/v2 by itself after {after:.0f} s")
                stage.transcript.line("", detail)
                returned[name] = detail
        return shown["status"] in ("completed", "aborted") and len(returned) >= canaries

    shown = stage.follow(rollout, ROLLOUT_S, ended)
    with contextlib.suppress(Failed):
        # A device says that it went back before its last counts of v3 are stored.
        wait_until(lambda: len(_ever_ran(stage, "v3")) >= canaries, "their answers are stored", 30)
    ran = _ever_ran(stage, "v3")
    untouched = [d.name for d in stage.devices if not stage.holds(d, built.digest)]
    stage.transcript.line(
        "rollout", f"{shown['status']} by itself: {len(returned)} of {canaries} rolled back"
    )
    never = [d.name for d in stage.devices if d.name not in ran and d.name in untouched]
    stage.transcript.line("", f"{len(never)} devices never received digits/v3")
    stage.say_moved(before)
    replayed = stage.fleet.client.get(f"rollouts/{rollout}/explanation")["replayed"]
    _wrapped(stage, "why", shown["sentence"])
    stage.transcript.line("replayed", replayed["said"])
    stage.expect(3, "verdict computed again from its record", "fail", replayed["verdict"])
    stage.expect(3, "rollout aborted by itself", "aborted", shown["status"])
    stage.expect(3, "devices that ever ran digits/v3", canaries, len(ran), ", ".join(ran))
    others = len(stage.devices) - canaries
    stage.expect(3, "devices that never received it", others, len(never))
    wait_until(lambda: set(ran) <= set(_serving(stage, "v2")), "canaries serve v2", 60)
    back = [name for name in ran if name in _serving(stage, "v2")]
    stage.expect(3, "canaries back on digits/v2", canaries, len(back), _not_in(stage, back))
    _no_failures(stage, 3)


def cut_link(stage: Stage, device: Device, cut_s: float = CUT_S) -> None:
    """`device` hangs on a cable."""
    stage.transcript.scene(4, "A cut link")
    cable = device.cable
    assert cable is not None
    before = _answered(device)
    cable.cut()
    wait_until(lambda: not _connected(stage, device), "the agent sees the cut", 60, 0.5)
    time.sleep(cut_s)
    unsent = stage.fleet.status(device) or {}
    kept = unsent.get("state", {}).get("buffer", {}).get("records", 0)
    during = _answered(device) - before
    stage.transcript.line(
        device.name, f"link cut, {during:,} answers went on, {kept:,} records kept"
    )
    cable.restore()
    wait_until(lambda: _connected(stage, device), "the agent is back", 60, 0.5)
    answered, counted, stored = stage.settle_counts()
    stage.transcript.line(
        device.name, f"link back after {cut_s:.0f} s: {stored:,} of {counted:,} answers stored"
    )
    stage.note(4, "answers during the cut", "> 0", f"{during:,}", during > 0)
    _counts(stage, 4, answered, counted, stored)


def drift_at_one_site(stage: Stage, site: str = "b") -> None:
    stage.transcript.scene(5, "Drift at one site")
    stage.send(drifted_rows(), site)
    stage.transcript.line(f"site {site}", "images shifted and noisier from now on")
    # The windows that were open at the change have both kinds of rows in them.
    time.sleep(3)
    since = datetime.now(UTC)
    found: dict[str, Any] = {}

    def reported() -> bool:
        answer = stage.fleet.client.get(f"models/{MODEL}/drift", by="site", since=since.isoformat())
        found.clear()
        found.update({item["cohort"]: item for item in answer["items"]})
        return len(found) >= 2 and all(item["rows"] >= DRIFT_ROWS for item in found.values())

    wait_until(reported, f"both sites have reported {DRIFT_ROWS} rows", 60)
    stage.send(clean_rows())
    said = []
    for cohort, item in sorted(found.items()):
        drifted = item["verdict"] == "cohort drifted"
        what = f"{item['features_drifted']} of {item['features']} features (PSI {item['psi']:.2f})"
        name = cohort.replace("=", " ")
        said.append(f"{name}: {what if drifted else 'none'}")
    stage.transcript.line("drift", "   ".join(said))
    called = [c.partition("=")[2] for c, i in found.items() if i["verdict"] == "cohort drifted"]
    stage.expect(5, "sites called drifted", site, " ".join(sorted(called)))


def pin(stage: Stage, device: Device) -> None:
    stage.transcript.scene(6, "A pin")
    path = f"devices/{device.name}/pins/{MODEL}"
    lacking, refusals = _lacking_a_signature(stage, path)
    seen = []
    stage.fleet.client.put(path, {"version": "v1", "why": "demo"})
    for version in ("v1", "v2"):
        if version == "v2":
            stage.fleet.client.delete(path)
        runs = partial(_runs, stage, device, version)
        wait_until(runs, f"{device.name} runs {version}", 60)
        seen.append(version)
    stage.transcript.line(device.name, "pinned to digits/v1; unpinned: back on digits/v2")
    stage.expect(6, f"{device.name} after pin, after unpin", "v1 v2", " ".join(seen))
    _fleet_returns(stage, "v1")
    holding = [each.name for each in stage.devices if stage.holds(each, lacking.digest)]
    stage.expect(
        6,
        "1 of 2 signed: refusals, devices",
        "2 0",
        f"{refusals} {len(holding)}",
        ", ".join(holding),
    )
    _no_failures(stage, 6)


def power_cut(stage: Stage, waves: tuple[str, ...] = ("1", "3", "100%")) -> None:
    stage.transcript.scene(7, "Control plane and broker killed")
    before = stage.moved()
    newest = _files(stage.ship("v4", 1250))
    _approved(stage, "v4")
    rollout = stage.start("v4", waves, error_condition=STRICT)
    stage.follow(rollout, ROLLOUT_S, lambda shown: shown["wave"] >= 2)
    model = max(stage.payloads(), key=lambda each: (each["file"] in newest, each["frames"]))
    topics = Topics(stage.fleet.client.access.fleet)
    frames = [topics.frame(MODEL, model["payload"], n) for n in range(model["frames"])]
    lost = frames[:: max(1, len(frames) // 3)][:3]
    # The control plane's counters end with it.
    sent = stage.moved().sent - before.sent
    stage.fleet.kill_control_plane(forget=lost)
    stage.transcript.line("killed", "both (-9) in wave 2 of digits/v4")
    time.sleep(1)
    stage.fleet.start_control_plane()
    shown = stage.follow(rollout, ROLLOUT_S)
    again = sum(each["published_bytes"] for each in stage.payloads())
    gone = f"{len(lost)} of {len(frames)} frames were gone"
    stage.transcript.line("restarted", f"{gone}: {size(again)} published again")
    stage.say_moved(Moved(Bytes() - sent, before.fetched))
    healthy = stage.running("v4")
    stage.transcript.line(
        "rollout", f"{shown['status']}, {len(healthy)} of {len(stage.devices)} healthy"
    )
    stage.expect(
        7,
        "devices healthy after kill -9",
        len(stage.devices),
        len(healthy),
        _not_in(stage, healthy),
    )
    stage.note(7, "frames lost and published again", "> 0", size(again), again > 0)
    _counts(stage, 7, *stage.settle_counts())
    _no_failures(stage, 7)


def _fleet_returns(stage: Stage, version: str) -> None:
    """One command, and what devices have on disk."""
    before = sum(each["published_bytes"] for each in stage.payloads())
    stage.follow(stage.return_to(version), ROLLOUT_S)
    wait_until(lambda: not _not_in(stage, _serving(stage, version)), "all have returned", 60)
    travelled = sum(each["published_bytes"] for each in stage.payloads()) - before
    on = _serving(stage, version)
    said = f"{len(on)} devices back on digits/{version} from their own disks"
    stage.transcript.line("return", said)
    stage.expect(6, "bytes published for the return", 0, travelled)


def _wrapped(stage: Stage, label: str, sentence: str) -> None:
    for number, part in enumerate(textwrap.wrap(sentence, WIDTH)):
        stage.transcript.line("" if number else label, part)


def _lacking_a_signature(stage: Stage, pin: str) -> tuple[BuiltBundle, int]:
    """A version that one approver too few has signed, and how often running it was refused."""
    built = stage.push("v9", 600)
    stage.sign("v9", 1)
    refusals = []
    for run in (
        lambda: stage.start("v9", ["100%"]),
        lambda: stage.fleet.client.put(pin, {"version": "v9", "why": "demo"}),
    ):
        try:
            run()
        except OutriderError as error:
            refusals.append(error.code)
    said = f"by {stage.approved_by['v9'][0]} alone; rollout and pin refused: {' '.join(refusals)}"
    stage.transcript.line("digits/v9", said)
    return built, refusals.count("OUT-T104")


# --- what scenes look at ------------------------------------------------------------------------


def origin_share(stage: Stage) -> float:
    """Bytes published over bytes of payloads: 1 when everything was published once."""
    found = stage.payloads()
    published = sum(int(each["published_bytes"]) for each in found)
    return published / sum(int(each["size_bytes"]) for each in found)


def _files(built: BuiltBundle) -> set[Digest]:
    return {member.digest for member in layout.read(built.directory).members()}


def _built(stage: Stage, version: str, text: str) -> None:
    built = stage.bundles[version]
    stage.transcript.line("built", f"{built.reference}   {size(built.size_bytes)}, {text}")


def _approved(stage: Stage, version: str) -> None:
    by = stage.approved_by[version]
    text = f"{len(by)} of {stage.approvers} keys: {', '.join(by)}"
    stage.transcript.line("approved", text)


def _accuracy(stage: Stage, version: str) -> None:
    by_site: dict[str, list[str]] = {}
    for device in stage.devices:
        accuracy = device.application.tally.accuracy(version) if device.application else None
        text = f"{device.name} {accuracy:.2f}" if accuracy is not None else f"{device.name} unknown"
        by_site.setdefault(device.site, []).append(text)
    for number, texts in enumerate(by_site.values()):
        tail = "   (held-out rows)" if number == 0 else ""
        stage.transcript.line("accuracy" if number == 0 else "", "  ".join(texts) + tail)


def _mean_accuracy(stage: Stage, version: str) -> float:
    tallies = [d.application.tally for d in stage.devices if d.application is not None]
    asked = _answers_of(stage, version)
    return sum(tally.right[version] for tally in tallies) / max(asked, 1)


def _answers_of(stage: Stage, version: str) -> int:
    tallies = [d.application.tally for d in stage.devices if d.application is not None]
    return sum(tally.by_version[version] for tally in tallies)


def _returned(stage: Stage, bundle: str) -> dict[str, str]:
    """Devices that gave a bundle up, and why, in their own words."""
    found = {}
    for device in stage.devices:
        state = stage.fleet.client.get(f"devices/{device.name}")["reported"] or {}
        note = state.get("models", {}).get(MODEL, {}).get("notes", {}).get(bundle, {})
        if note.get("reason"):
            found[device.name] = f"{note.get('detail', '')} ({note['reason']})"
    return found


def _ever_ran(stage: Stage, version: str) -> list[str]:
    """Devices with stored answers of a version."""
    found = stage.fleet.client.get("records", version=f"{MODEL}/{version}")["devices"]
    return sorted(each["device"].partition("-")[2] for each in found if each["answers"])


def _serving(stage: Stage, version: str) -> list[str]:
    return [
        device["name"]
        for device in stage.fleet.client.items("devices")
        for model in device["models"]
        if model["runs"] == f"{MODEL}/{version}"
    ]


def _runs(stage: Stage, device: Device, version: str) -> bool:
    return device.name in stage.running(version)


def _answered(device: Device) -> int:
    return device.application.tally.answered if device.application is not None else 0


def _connected(stage: Stage, device: Device) -> bool:
    status = stage.fleet.status(device) or {}
    return bool(status.get("link", {}).get("connected"))


def _counts(stage: Stage, scene: int, answered: int, counted: int, stored: int) -> None:
    same = answered == counted == stored
    what = f"applications {answered:,}, agents {counted:,}, control plane {stored:,}"
    stage.note(scene, "records produced = stored", f"{counted:,}", f"{stored:,}", same, what)


def _no_failures(stage: Stage, scene: int) -> None:
    failures = stage.failures()
    stage.expect(
        scene, "requests failed while switching", 0, len(failures), "; ".join(failures[:3])
    )


def _not_in(stage: Stage, names: list[str]) -> str:
    return ", ".join(d.name for d in stage.devices if d.name not in names)

"""What the scenes share: one fleet, its applications, and how a version comes to devices."""

from __future__ import annotations

import contextlib
import http.client
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from control_plane.catalog import build_estimator
from control_plane.catalog.archive import pack
from control_plane.catalog.build import BuiltBundle
from control_plane.cli.approving import review_and_sign
from control_plane.client import segment
from control_plane.demo import bytes_sent, digits
from control_plane.demo.bytes_sent import Moved
from control_plane.demo.fleet import Device, Fleet, wait_until
from control_plane.demo.traffic import Application, Row
from control_plane.demo.transcript import Check, Transcript
from control_plane.settings import Settings, read
from control_plane.signing.create import dev_approver_keys
from control_plane.signing.quorum import quorum
from protocol.errors import Failed, OutriderError
from protocol.identifiers import Digest

MODEL: Final = "digits"
RATE: Final = 25.0
"""Requests per second of each application: above ten, so that windows of 2 s keep histograms."""
LOOK_S: Final = 0.2
ENDS: Final = ("completed", "aborted", "paused")


@dataclass(slots=True)
class Stage:
    fleet: Fleet
    transcript: Transcript
    checks: list[Check] = field(default_factory=list)
    bundles: dict[str, BuiltBundle] = field(default_factory=dict)
    """By version."""
    approved_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of who signed, by version."""

    @property
    def devices(self) -> list[Device]:
        return [self.fleet.devices[name] for name in sorted(self.fleet.devices)]

    def expect(
        self, scene: int, what: str, expected: object, seen: object, missing: str = ""
    ) -> None:
        """Equal texts are a kept promise."""
        self.note(scene, what, str(expected), str(seen), str(expected) == str(seen), missing)

    def note(
        self, scene: int, what: str, expected: str, seen: str, ok: bool, missing: str = ""
    ) -> None:
        look_at = str(self.fleet.folder)
        self.checks.append(Check(scene, what, expected, seen, ok, missing, look_at))

    # --- versions -----------------------------------------------------------------------------

    def ship(self, version: str, rows: int, *, shuffled_labels: bool = False) -> BuiltBundle:
        """Train, build, push and approve one version, with as many keys as it takes."""
        built = self.push(version, rows, shuffled_labels=shuffled_labels)
        self.sign(version, quorum(self._settings.tuf).needed)
        return built

    def push(self, version: str, rows: int, *, shuffled_labels: bool = False) -> BuiltBundle:
        """Train and build one version and bring it to the control plane, where it is a draft."""
        estimator = digits.train(rows, shuffled_labels=shuffled_labels)
        reference = digits.reference()
        built = build_estimator(
            estimator,
            reference.pixels,
            f"{MODEL}/{version}",
            y=None if shuffled_labels else reference.labels,
            input_name=digits.INPUT,
            into=self._folder("bundles"),
            dev=True,
        )
        client = self.fleet.client
        with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
            for block in pack(built.directory):
                packed.write(block)
            packed.flush()
            client.wait(client.upload("bundles", Path(packed.name)))
        self.bundles[version] = built
        return built

    def sign(self, version: str, signatures: int) -> None:
        """One approver after the other looks at the draft and signs it with a key of their own."""
        settings = self._settings
        for key in dev_approver_keys(settings.keys)[:signatures]:
            reference = f"{MODEL}/{version}"
            review_and_sign(self.fleet.client, settings, reference, key, ask=False)
            self.approved_by[version] = (*self.approved_by.get(version, ()), key.stem)

    @property
    def approvers(self) -> int:
        """How many there are."""
        return len(quorum(self._settings.tuf).approvers)

    @property
    def _settings(self) -> Settings:
        return read({}, self.fleet.home)

    def start(self, version: str, waves: Sequence[str | dict[str, Any]], **spec: Any) -> str:
        body = {"version": f"{MODEL}/{version}", "waves": list(waves), **spec}
        rollout: str = self.fleet.client.post("rollouts", body)["id"]
        return rollout

    def return_to(self, version: str) -> str:
        """The whole fleet, to a version that it may have on disk."""
        body = {"version": version, "why": "demo"}
        rollout: str = self.fleet.client.post(f"models/{MODEL}/return", body)["id"]
        return rollout

    def look(self, rollout: str) -> dict[str, Any]:
        """A rollout as it is now. While the control plane is away there is nothing to see."""
        try:
            shown: dict[str, Any] = self.fleet.client.get(f"rollouts/{segment(rollout)}")
        except OutriderError:
            return {}
        return shown

    def follow(
        self,
        rollout: str,
        limit_s: float,
        until: Callable[[dict[str, Any]], bool] = lambda shown: shown["status"] in ENDS,
    ) -> dict[str, Any]:
        """Print its waves as they fill, until it ends. Raises `Failed` when that takes too long."""
        deadline = time.monotonic() + limit_s
        printed: dict[int, str] = {}
        while True:
            shown = self.look(rollout)
            self.serve_applications()
            if shown:
                self._print(shown, printed)
                if until(shown):
                    return shown
            if time.monotonic() > deadline:
                raise Failed("OUT-D313", f"{rollout} is still {shown.get('status', 'away')}")
            time.sleep(LOOK_S)

    def _print(self, shown: dict[str, Any], printed: dict[int, str]) -> None:
        healthy = targeted = 0
        for wave in shown["waves"]:
            healthy += wave["counts"].get("healthy", 0)
            targeted += wave["counts"].get("targeted", 0)
            if wave["state"] == "waiting":
                continue
            text = f"{healthy} of {targeted} healthy"
            if printed.get(wave["wave"]) != text:
                printed[wave["wave"]] = text
                self.transcript.live(f"wave {wave['wave']}", text)

    # --- devices ------------------------------------------------------------------------------

    def running(self, version: str, state: str = "healthy") -> list[str]:
        """Names of the devices that say they run a version, in this state."""
        return [
            device["name"]
            for device in self.fleet.client.items("devices")
            for model in device["models"]
            if model["runs"] == f"{MODEL}/{version}" and model["state"] == state
        ]

    def holds(self, device: Device, bundle: Digest) -> bool:
        """Whether a device has a bundle on disk, whole or in part."""
        folder = device.home / "bundles"
        return (folder / bundle).exists() or (folder / f".{bundle}").exists()

    # --- bytes --------------------------------------------------------------------------------

    def payloads(self) -> list[dict[str, Any]]:
        """Per payload its size, and what of it left the control plane since its start."""
        found: list[dict[str, Any]] = self.fleet.client.get(f"models/{MODEL}/payloads")["items"]
        return found

    def moved(self) -> Moved:
        """What control plane and devices have counted of bytes that travelled."""
        shown = (self.fleet.client.get(f"devices/{each.name}") for each in self.devices)
        states = [each["reported"] or {} for each in shown]
        sent = self.payloads() if self.bundles else []
        return bytes_sent.moved(sent, [state.get("counters", {}) for state in states])

    def say_moved(self, before: Moved) -> None:
        """One line, if bytes moved since then."""
        now = self.moved()
        said = bytes_sent.sentence(now.sent - before.sent, now.fetched - before.fetched)
        if said:
            self.transcript.line("sent", said)

    # --- applications -------------------------------------------------------------------------

    def serve_applications(self) -> None:
        """Start the application of each device whose model answers by now."""
        rows = clean_rows()
        for number, device in enumerate(self.devices):
            if device.application is None and _ready(device.port):
                device.application = Application(
                    device.port, MODEL, digits.INPUT, rows, RATE, number * len(rows) // 8
                )
                device.application.start()

    def send(self, rows: Sequence[Row], site: str | None = None) -> None:
        """What applications send from now on, everywhere or at one site."""
        for device in self.devices:
            if device.application is not None and site in (None, device.site):
                device.application.send(rows)

    def failures(self) -> list[str]:
        return [
            f"{device.name}: {failure}"
            for device in self.devices
            if device.application is not None
            for failure in device.application.tally.failures
        ]

    def settle_counts(self, limit_s: float = 60.0) -> tuple[int, int, int]:
        """Stop the traffic, wait for the last windows, go on: `(answered, counted, stored)`.

        Answered is what the applications got, counted what the agents' outboxes took from their
        runners, stored what the control plane has after it acknowledged everything.
        """
        self.fleet.stop_traffic()
        answered = sum(
            device.application.tally.answered
            for device in self.devices
            if device.application is not None
        )
        with contextlib.suppress(Failed):  # the numbers say it better than the wait's end
            wait_until(lambda: self.stored() == answered, "all is stored", limit_s, 0.5)
        numbers = (answered, self._counted(), self.stored())
        for device in self.devices:
            if device.application is not None:
                device.application.start()
        return numbers

    def stored(self) -> int:
        return int(self.fleet.client.get("records")["answers"])

    def _counted(self) -> int:
        counted = 0
        for device in self.devices:
            status = self.fleet.status(device)
            counted += status.get("answered", 0) if status else 0
        return counted

    def _folder(self, name: str) -> Path:
        folder = self.fleet.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def clean_rows() -> tuple[Row, ...]:
    held_out = digits.held_out()
    return _rows(held_out.pixels, held_out.labels)


def drifted_rows() -> tuple[Row, ...]:
    """The same images as a camera sees them that was knocked."""
    held_out = digits.held_out()
    return _rows(digits.shifted(held_out.pixels), held_out.labels)


def _rows(pixels: digits.Pixels, labels: digits.Labels) -> tuple[Row, ...]:
    return tuple(
        Row(tuple(float(v) for v in values), int(label))
        for values, label in zip(pixels, labels, strict=True)
    )


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", f"/v2/models/{MODEL}/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

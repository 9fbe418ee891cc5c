"""What operators and approvers want during a run, said to the API until it is confirmed.

The control plane may be dead, stopped or on its way back: then it is asked again. What it refuses
is dropped, as people do. What it confirmed must be known to it for ever after.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from control_plane.client import Client
from protocol.errors import OutriderError, Unavailable
from tests.fakes.whole_fleet import MODEL
from tests.soak.ground import Field, Ground
from tests.soak.schedule import STABLE, Wish

AGAIN_S: Final = 0.3
GIVE_UP_S: Final = 30.0
ACTIVE: Final = ("preparing", "running", "paused")


class Wisher:
    """Says each wish at its time, from a thread of its own."""

    def __init__(self, ground: Ground, at: Field, wishes: Sequence[Wish]) -> None:
        self._ground = ground
        self._at = at
        self._wishes = wishes
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = 0.0
        self.pin: str | None = None
        self.rollouts: list[str] = []
        self.denied: set[str] = set()
        self.revoked: set[str] = set()
        self.said: list[str] = []

    @property
    def client(self) -> Client:
        return self._ground.client

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        for wish in self._wishes:
            time.sleep(max(0.0, self._began + wish.at_s - time.monotonic()))
            self._say(wish)

    def _say(self, wish: Wish) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            try:
                self._do(wish)
                told = "done"
            except Unavailable as error:
                if time.monotonic() < deadline:
                    time.sleep(AGAIN_S)
                    continue
                told = str(error)
            except OutriderError as error:
                # Of a control plane that is just starting, or one that says no.
                if error.problem.status >= 500 and time.monotonic() < deadline:
                    time.sleep(AGAIN_S)
                    continue
                told = f"{error.code} {error.why}"
            words = " ".join((wish.kind, wish.version, wish.how)).strip()
            self.said.append(f"{time.monotonic():.3f} wish {words}: {told}")
            return

    def _do(self, wish: Wish) -> None:
        ground, device = self._ground, self._at.device.name
        version = ground.version(wish.version) if wish.version else ""
        match wish.kind:
            case "roll out":
                body = {"version": f"{MODEL}/{version}", "waves": ["100%"], "to": f"id = {device}"}
                self.rollouts.append(self.client.post("rollouts", body)["id"])
            case "pin":
                body = {"version": version, "why": "soak"}
                self.client.put(f"devices/{device}/pins/{MODEL}", body)
                self.pin = version
            case "unpin":
                self.client.delete(f"devices/{device}/pins/{MODEL}")
                self.pin = None
            case "abort":
                if self.rollouts:
                    self.client.post(f"rollouts/{self.rollouts[-1]}/abort", {"why": "soak"})
            case "deny":
                self.client.put(f"models/{MODEL}/versions/{version}/denial", {"why": "soak"})
                self.denied.add(version)
            case "revoke":
                ground.revoke(wish.how)
                self.revoked.add(version)

    # --- afterwards -------------------------------------------------------------------------------

    def known(self) -> Known:
        """What the control plane knows of all this."""
        client, device = self.client, self._at.device.name
        shown: Any = client.get(f"devices/{device}")
        mine = [
            each for each in client.items("rollouts", model=MODEL) if each["to"] == f"id = {device}"
        ]
        denied = {each["version"] for each in client.get("denials")["items"]}
        return Known(self, shown, mine, denied)

    def clean(self) -> None:
        """The next run begins without what this one left in force."""
        known = self.known()
        for rollout in known.rollouts:
            if rollout["status"] in ACTIVE:
                self.client.post(f"rollouts/{rollout['id']}/abort", {"why": "soak is over"})
        for version in sorted(known.denied):
            self.client.delete(f"models/{MODEL}/versions/{version}/denial")


class Known:
    """The control plane's view of one device, and what the wishes for it come to."""

    def __init__(self, wisher: Wisher, shown: Any, rollouts: list[Any], denied: set[str]) -> None:
        self._wisher = wisher
        self.shown = shown
        self.rollouts = rollouts
        self.denied = denied

    def forgotten(self) -> tuple[str, ...]:
        """Confirmed wishes that it does not know any more."""
        wisher = self._wisher
        found = []
        pins = self.shown["device"]["pins"]
        pinned = next((each["version"] for each in pins if each["model"] == MODEL), None)
        if pinned != wisher.pin:
            found.append(f"the pin to {wisher.pin}: it knows {pinned}")
        known = {each["id"] for each in self.rollouts}
        found += [f"rollout {id}" for id in wisher.rollouts if id not in known]
        found += [f"the denial of {version}" for version in wisher.denied - self.denied]
        return tuple(f"the control plane forgot {each}" for each in found)

    def wanted(self) -> str:
        """Pin, then the rollout that is under way, then the last that completed, then v1."""
        out = self.denied | self._wisher.revoked
        active = [each for each in self.rollouts if each["status"] in ACTIVE]
        completed = [each for each in self.rollouts if each["status"] == "completed"]
        completed.sort(key=lambda each: str(each["ended"]), reverse=True)
        named = [each["version"].rpartition("/")[2] for each in (*active, *completed[:1])]
        pin = [self._wisher.pin] if self._wisher.pin else []
        return next((version for version in (*pin, *named) if version not in out), STABLE)

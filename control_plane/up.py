"""A whole control plane on one machine: a Mosquitto with a generated configuration, and `serve`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from control_plane.broker import STOP_TIMEOUT_S, Broker
from control_plane.fleet.authority import Authority
from control_plane.mosquitto import Certificates
from control_plane.serve import asked_to_stop, running
from control_plane.settings import Settings, require_loopback
from control_plane.signing.quorum import dev_warning
from control_plane.signing.repository import require_root
from control_plane.store import Store
from control_plane.upkeep import Upkeep
from control_plane.wiring import now_ms

Say = Callable[[str], None]

PID: Final = "pid"
_LOOK_S: Final = 0.5


def up(settings: Settings, say: Say) -> None:
    """Returns after SIGTERM or SIGINT, or once the broker has ended. Main thread only.

    Raises `Unavailable`: no Mosquitto (OUT-N105), a port is taken (OUT-N106); `InvalidRequest`
    OUT-A121 for a development one that other machines would reach, OUT-T116 before there is a
    root of trust.
    """
    require_loopback(settings.dev, settings.api_host, settings.broker_host)
    require_root(settings.tuf)
    broker = broker_of(settings)
    end_orphan(broker.directory)
    # First: a broker without a revocation list does not start, and with an old one lets nobody in.
    freshen(settings)
    with asked_to_stop() as stopped:
        broker.start()
        try:
            (broker.directory / PID).write_text(str(broker.pid))
            place = _place(settings.broker_host, settings.broker_port)
            say(f"broker   mosquitto {place}, mutual TLS")
            with running(settings, reload_broker=broker.reload):
                say(f"api      https://{settings.api_host}:{settings.api_port}")
                if settings.dev:
                    say(f"DEV KEYS {dev_warning(settings.tuf)}")
                say("ready    Ctrl-C stops this; devices go on")
                while not stopped.wait(_LOOK_S):
                    if not broker.running:
                        say("broker   mosquitto ended by itself; starting it again")
                        broker.start()
                        (broker.directory / PID).write_text(str(broker.pid))
        finally:
            broker.stop()
            (broker.directory / PID).unlink(missing_ok=True)


def freshen(settings: Settings) -> None:
    """Issue what is due before anything runs that reads it."""
    store = Store(settings.store)
    try:
        authority = Authority(settings.ca, settings.fleet)
        Upkeep(authority, store.certificates, now_ms, hosts=settings.hosts).issue()
    finally:
        store.close()


def broker_of(settings: Settings) -> Broker:
    """The fleet's Mosquitto on this machine, not started."""
    ca = Authority(settings.ca, settings.fleet)
    return Broker(
        settings.broker,
        settings.fleet,
        Certificates(
            ca.certificate("server"), ca.key("server"), ca.certificate("device-ca"), ca.crl
        ),
        host=settings.broker_host,
        port=settings.broker_port,
    )


def end_orphan(directory: Path) -> None:
    """End the broker that a killed `up` left behind, in order, so that it saves what it retains.

    A process of that number that does not run our configuration is somebody else's.
    """
    try:
        pid = int((directory / PID).read_text())
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + STOP_TIMEOUT_S
    if _is_ours(pid, directory):
        os.kill(pid, signal.SIGTERM)
        while _is_ours(pid, directory):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    (directory / PID).unlink(missing_ok=True)


def _is_ours(pid: int, directory: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(directory / "mosquitto.conf") in words


def _place(host: str, port: int) -> str:
    return f":{port}" if host in ("0.0.0.0", "127.0.0.1", "::") else f"{host}:{port}"

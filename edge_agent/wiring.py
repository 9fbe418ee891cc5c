"""The only place where the agent's shells are built."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import random
import secrets
import signal
from dataclasses import replace
from pathlib import Path

from edge_agent import notify
from edge_agent.abilities import find_abilities
from edge_agent.act import Actor
from edge_agent.applications import Applications, Counted, RunnersAndApplications
from edge_agent.bringing import Bringing
from edge_agent.budget import Budget
from edge_agent.buffer import Outbox
from edge_agent.clock import Clock
from edge_agent.collector import Collector
from edge_agent.disk import Disk
from edge_agent.fetch import Fetcher
from edge_agent.http_source import HttpSource
from edge_agent.identity import Identity, load
from edge_agent.inbox import Inbox
from edge_agent.installed import version_of
from edge_agent.link import Link
from edge_agent.local_pins import LocalPins
from edge_agent.meter import Meter
from edge_agent.orders import Orders
from edge_agent.packing import pack
from edge_agent.parts import Parts
from edge_agent.proofs import Proofs
from edge_agent.recent import Recent
from edge_agent.renew import Renewal
from edge_agent.reporter import Reporter
from edge_agent.room import address_space, kept_for_records
from edge_agent.runner.bearer import make_token, read_token
from edge_agent.settings import DEVELOPMENT, Intervals, Settings
from edge_agent.supervisor import ABSENT, Supervisor
from edge_agent.technician.carrying import EXPORT, Exporter
from edge_agent.technician.door import Door
from edge_agent.technician.examining import Examining
from edge_agent.technician.holding import Holding
from edge_agent.technician.telling import Telling
from edge_agent.technician.usb import Installer
from edge_agent.transfer import Terms
from edge_agent.trust import Trust
from edge_agent.uplink import Uplink
from edge_agent.ways import Ways
from protocol.bundle import Facts
from protocol.errors import InvalidRequest
from protocol.link import Address, Retry
from protocol.topics import Topics

log = logging.getLogger(__name__)


def run_agent(settings: Settings, recent: Recent | None = None) -> None:
    """Run until SIGTERM or SIGINT; `recent` holds what is logged, for whoever asks.

    Raises `InvalidRequest` OUT-D402 beside another agent.
    """
    identity = load(settings.paths.home)
    settings.paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(settings.paths.lock)
    try:
        parts = build(settings, identity)
        supervisor = Supervisor(parts, notify.from_environment(os.environ, os.getpid()))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        installer = Installer(parts, supervisor)
        holding = Holding(parts, supervisor)
        commands = {
            "install": installer.install,
            "rollback": holding.rollback,
            "pin": holding.pin,
            "unpin": holding.unpin,
            "doctor": Examining(parts).doctor,
            "logs": Telling(recent or Recent()).logs,
            EXPORT: Exporter(settings.paths.home, parts, supervisor).export,
        }
        door = Door(settings.paths.socket, supervisor.status, commands)
        try:
            supervisor.run()
        finally:
            door.close()
    finally:
        os.close(lock)


def build(settings: Settings, identity: Identity) -> Parts:
    """Put the parts of one agent together; nothing is started yet."""
    paths = settings.paths
    intervals = DEVELOPMENT if identity.dev else Intervals()
    rng = random.SystemRandom()
    clock = Clock(paths.home / "clock.json", trust_wall=identity.dev)
    topics = Topics(identity.fleet)
    inbox = Inbox()
    address = _address(settings, identity)
    link = Link(
        address,
        identity.device,
        on_message=inbox.message,
        on_state=inbox.link_changed,
        will=(topics.presence(identity.device), ABSENT),
        retry=Retry(most_s=intervals.reconnect),
        now_ms=clock.now_ms,
    )
    trust = Trust(paths.tuf, identity.root, identity.fleet, clock)
    orders = Orders(trust, clock, topics, identity.device, paths.documents, rng.random)
    disk = Disk(paths.home)
    outbox = Outbox(
        paths.outbox,
        limit_bytes=settings.buffer_bytes,
        window_s=intervals.window,
        min_window_n=intervals.min_window_answers,
        profile_of=disk.profile,
        signed_windows=not identity.dev,
    )
    facts = find_facts()
    applications = Applications(paths.run)
    runners = RunnersAndApplications(
        applications,
        paths.run,
        port=settings.port,
        listen=settings.listen,
        token_file=_token_file(settings),
        ready_s=settings.deadlines.load,
        run_limit_s=settings.deadlines.request,
        address_space_bytes=lambda loads: address_space(
            [load.need for load in loads], facts.ram_bytes
        ),
        on_death=inbox.wake,
    )
    budget = Budget(paths.budget, Terms(networks=settings.networks), clock.local_now)
    abilities, proofs = find_abilities(), Proofs(identity)
    fetcher = Fetcher(
        link,
        topics,
        identity.device,
        paths.home / "bundles",
        facts,
        lambda: trust.approvals,
        rng,
        frame_timeout_s=intervals.frame_timeout,
        want_interval_s=intervals.want,
        on_wake=inbox.wake,
        permits=budget,
        known=abilities,
        bringing=_bringing(settings, identity, intervals, proofs, clock, inbox, rng),
    )

    def renewed(found: Identity) -> None:
        link.renew_identity(_address(settings, found))
        proofs.follow(found)

    return Parts(
        device=identity.device,
        topics=topics,
        intervals=intervals,
        dev=identity.dev,
        facts=facts,
        clock=clock,
        inbox=inbox,
        link=link,
        address=str(address),
        budget=budget,
        trust=trust,
        orders=orders,
        pins=LocalPins(paths.documents),
        disk=disk,
        runners=runners,
        applications=applications,
        fetcher=fetcher,
        abilities=abilities,
        over_http="http" in settings.transports,
        actor=Actor(
            disk,
            runners,
            fetcher,
            outbox,
            agent=facts.agent,
            dev=identity.dev,
            random=rng.random,
            meter=Meter(settings.memory_bytes),
            kept_free=lambda: kept_for_records(outbox.growth_bytes, disk.free_bytes()),
        ),
        outbox=outbox,
        collector=Collector(Counted(runners, applications), outbox, intervals.checkpoint),
        reporter=Reporter(outbox, intervals.state),
        uplink=Uplink(
            outbox,
            rng=rng,
            compress=pack,
            resend_s=intervals.resend,
        ),
        renewal=Renewal(
            paths.home,
            identity,
            clock,
            on_renewed=renewed,
            on_wake=inbox.wake,
            random=rng.random,
            first_s=intervals.renew,
        ),
    )


def _bringing(
    settings: Settings,
    identity: Identity,
    intervals: Intervals,
    proofs: Proofs,
    clock: Clock,
    inbox: Inbox,
    rng: random.Random,
) -> Bringing:
    """How payloads come: the broker and HTTP, as this device's settings say."""
    timeout_s = intervals.frame_timeout
    source = HttpSource(
        proofs, clock.now_ms, on_wake=inbox.wake, dev=identity.dev, timeout_s=timeout_s
    )
    return Bringing(
        Ways(settings.transports, rest_s=timeout_s),
        source if "http" in settings.transports else None,
        proofs,
        rng,
        dev=identity.dev,
        timeout_s=timeout_s,
    )


def find_facts() -> Facts:
    """What this device is, without loading what it takes to run models."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Facts(
        arch=platform.machine(),
        onnxruntime=version_of("onnxruntime"),
        ram_bytes=pages * page_bytes,
        agent=version_of("outrider"),
        python=platform.python_version(),
        system=platform.system(),
    )


def _token_file(settings: Settings) -> Path | None:
    """Raises `InvalidRequest` OUT-S110 where there is a file that holds no token."""
    if settings.listen is None:
        return None
    file = settings.token or settings.paths.inference_token
    make_token(file, secrets.token_urlsafe(32))
    read_token(file)
    return file


def _address(settings: Settings, identity: Identity) -> Address:
    if settings.broker is None:
        return identity.broker
    host, _, port = settings.broker.rpartition(":")
    try:
        return replace(identity.broker, host=host, port=int(port))
    except ValueError as error:
        raise InvalidRequest("OUT-S120", f"--broker {settings.broker}: {error}") from error


def _lock(path: Path) -> int:
    """Held while this process lives; CLOEXEC, so that runners do not keep it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InvalidRequest("OUT-D402", f"another agent holds {path}") from error
    return descriptor

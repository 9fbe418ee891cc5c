"""The shells of one agent, as `wiring.py` puts them together."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.act import Actor
from edge_agent.applications import Applications
from edge_agent.budget import Budget
from edge_agent.buffer import Outbox
from edge_agent.clock import Clock
from edge_agent.collector import Collector
from edge_agent.disk import Disk
from edge_agent.fetch import Fetcher
from edge_agent.inbox import Inbox
from edge_agent.link import Link
from edge_agent.local_pins import LocalPins
from edge_agent.orders import Orders
from edge_agent.renew import Renewal
from edge_agent.reporter import Reporter
from edge_agent.runners import Runners
from edge_agent.settings import Intervals
from edge_agent.trust import Trust
from edge_agent.uplink import Uplink
from protocol.bundle import Facts
from protocol.identifiers import DeviceId
from protocol.topics import Topics


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the supervisor directs; `wiring.py` makes it."""

    device: DeviceId
    topics: Topics
    intervals: Intervals
    dev: bool
    facts: Facts
    clock: Clock
    inbox: Inbox
    link: Link
    address: str
    budget: Budget
    trust: Trust
    orders: Orders
    pins: LocalPins
    disk: Disk
    runners: Runners
    applications: Applications
    fetcher: Fetcher
    abilities: int
    """Feature bits of the encodings that this device can decode."""
    over_http: bool
    """Whether payloads may come over HTTP."""
    actor: Actor
    outbox: Outbox
    collector: Collector
    reporter: Reporter
    uplink: Uplink
    renewal: Renewal

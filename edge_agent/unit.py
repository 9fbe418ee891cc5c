"""The systemd unit of the agent: one text, for `install-service` and for `deploy/systemd`.

Pure. Each setting that surprises says its reason in the unit itself: that is where people look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from protocol.errors import InvalidRequest

NAME: Final = "outrider-agent.service"
STATE: Final = PurePosixPath("/var/lib")
_HOMES: Final = ("/home", "/root", "/run/user")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What differs between devices. Raises `InvalidRequest` OUT-S120 for what no unit can say."""

    program: PurePosixPath = PurePosixPath("/opt/outrider/bin/outrider-agent")
    home: PurePosixPath = PurePosixPath("/var/lib/outrider")
    user: str = "outrider"
    port: int | None = None
    broker: str | None = None

    def __post_init__(self) -> None:
        if not _USER.fullmatch(self.user):
            raise InvalidRequest("OUT-S120", f"--user {self.user!r:.60} is no name for a user")
        for path in (self.program, self.home):
            if not path.is_absolute() or not re.fullmatch(r"[\w./@+-]+", str(path)):
                why = f"{str(path)!r:.80}: letters, digits and ./_@+- only, from / on"
                raise InvalidRequest("OUT-S120", why)
        if self.broker is not None and not re.fullmatch(r"[\w.:\[\]-]+", self.broker):
            raise InvalidRequest("OUT-S120", f"--broker {self.broker!r:.80} is not HOST:PORT")

    @property
    def command(self) -> str:
        words = [str(self.program), "run", "--home", str(self.home)]
        words += ["--port", str(self.port)] if self.port is not None else []
        words += ["--broker", self.broker] if self.broker is not None else []
        return " ".join(words)


def text(terms: Terms) -> str:
    """The whole file."""
    return _UNIT.format(
        command=terms.command,
        home=terms.home,
        user=terms.user,
        state=_state(terms),
        protect_home=_protect_home(terms),
    )


def _state(terms: Terms) -> str:
    if terms.home.parent == STATE:
        return f"StateDirectory={terms.home.name}\nStateDirectoryMode=0700"
    return f"ReadWritePaths={terms.home}"


def _protect_home(terms: Terms) -> str:
    """Where the program or its state lies in somebody's home, that cannot be hidden from it."""
    inside = any(
        path.is_relative_to(home) for path in (terms.program, terms.home) for home in _HOMES
    )
    return "read-only" if inside else "yes"


_UNIT: Final = """\
# Made by: outrider-agent install-service
# What a device needs of its own goes beside it: systemctl edit outrider-agent

[Unit]
Description=Outrider agent: runs approved models on this device
# Never for the network: models answer without one.
After=local-fs.target time-set.target
# Before this device is enrolled there is nothing to run.
ConditionPathExists={home}/identity/enrolment.json
# It is started again for as long as it takes.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# OUTRIDER_AGENT_NETWORKS and others, as VARIABLE=value lines.
EnvironmentFile=-/etc/outrider/agent.env

# The supervisor says that it is alive between two pieces of work. The longest is to load a model
# and to run its golden vectors: each may take 30 s.
WatchdogSec=180
TimeoutStartSec=300
# A clean stop: answers in flight end, counts are kept, the broker is told. About 20 s at most.
TimeoutStopSec=45
Restart=always
RestartSec=1

# Runners outlive their supervisor: when it dies or is killed, models go on answering, and the next
# one adopts them. A clean stop ends them by itself.
KillMode=process
# A runner that takes too much memory ends alone.
OOMPolicy=continue
MemoryHigh=60%
MemoryMax=75%
TasksMax=256
LimitNOFILE=4096
LimitCORE=0

# DynamicUser= cannot be had: the next supervisor must be the same user as the runners that it
# adopts, and as the files that it finds.
User={user}
Group={user}
UMask=0077
{state}

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateUsers=yes
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
# Not ProcSubset=pid: the id of this boot is read from /proc/sys.
# Not ProtectClock=: it forbids to ask whether the clock is synchronised, too. Without a capability
# nobody can set it.
LockPersonality=yes
# onnxruntime compiles nothing at run time.
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
KeyringMode=private
# The broker and the loopback port; the door and runners; which network a connection uses.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @keyring
# Asks only; see ProtectClock=.
SystemCallFilter=adjtimex

[Install]
WantedBy=multi-user.target
"""

"""Everything that can be set on a control plane: one frozen object, read once at the start."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from protocol.errors import InvalidRequest
from protocol.identifiers import fleet_name
from protocol.payload import MAX_URL, MAX_URLS

HOME_VARIABLE: Final = "OUTRIDER_HOME"
DEFAULT_HOME: Final = Path("outrider")
FILE: Final = "config.yaml"
API_PORT: Final = 8400
BROKER_PORT: Final = 8883
_MIRROR: Final = re.compile(
    r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~-]*)*/"
)
"""No credentials and no queries: hints are for everybody to read, and agents refuse such ones."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often things happen, in seconds. Development fleets live faster, and say so."""

    tick: float = 5.0
    hello_spread: float = 300.0
    """Over how long devices spread their records after an ingester has started, at most; a small
    fleet takes a second, and another one for every 50 devices."""
    reseed: float = 600.0
    """The retained messages are compared with what should be retained this often."""
    drift: float = 60.0
    """New windows are looked at for drift this often."""
    drift_slot: float = 3600.0
    """Devices are compared with each other by what they counted in such a span."""
    drift_day: float = 86_400.0
    """Cohorts are judged once per such a span, with all of its windows merged."""
    notices: float = 5.0
    """Due notices of alarms are sent this often."""
    debounce: float = 600.0
    """An alarm that is over before so long is told to nobody."""

    def __post_init__(self) -> None:
        if not 0 < self.drift_slot <= self.drift_day:
            raise ValueError("drift_slot is above 0, and drift_day is no shorter")


DEVELOPMENT: Final = Intervals(
    tick=0.5,
    hello_spread=1.0,
    reseed=60.0,
    drift=2.0,
    drift_slot=20.0,
    drift_day=120.0,
    notices=1.0,
    debounce=2.0,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths are below `home`."""

    home: Path
    fleet: str = "local"
    dev: bool = False
    api_host: str = "127.0.0.1"
    api_port: int = API_PORT
    broker_host: str = "127.0.0.1"
    broker_port: int = BROKER_PORT
    hosts: tuple[str, ...] = ()
    """Further names and addresses by which devices reach API and broker: in their certificates."""
    broker_files: str = ""
    """A folder that gets copies of what a broker reads, where it cannot read `ca`."""
    broker_reload: tuple[str, ...] = ()
    """Command that has a broker read its files again, for `serve`; `up` tells its own broker."""
    alarm_command: tuple[str, ...] = ()
    """Command that gets every notice of an alarm as a CloudEvent on its standard input."""
    webhook_private: bool = False
    """Whether webhooks may also lie at private addresses, or on this machine."""
    mirrors: tuple[str, ...] = ()
    """Addresses that end in `/`, below which static hosts have copies of the folder `payloads`:
    devices fetch there, too."""
    serve_payloads: bool = True
    """Whether devices may fetch payloads from the API, besides the broker."""
    intervals: Intervals = Intervals()

    def __post_init__(self) -> None:
        fleet_name(self.fleet)
        for port in (self.api_port, self.broker_port):
            if not 0 <= port <= 65_535:
                raise ValueError(f"a port is 0 to 65535, got {port}")
        for mirror in self.mirrors:
            if not _MIRROR.fullmatch(mirror) or len(mirror) > MAX_URL:
                raise ValueError(f"a mirror is like https://host/folder/, got {mirror!r:.80}")
        if len(self.payload_urls) > MAX_URLS:
            raise ValueError(f"at most {MAX_URLS - self.serve_payloads} mirrors")

    @property
    def payload_urls(self) -> tuple[str, ...]:
        """What hints say besides the broker; `/` stands for this control plane."""
        return (*self.mirrors, "/") if self.serve_payloads else self.mirrors

    @property
    def config(self) -> Path:
        return self.home / FILE

    @property
    def store(self) -> Path:
        return self.home / "store.sqlite"

    @property
    def operator_token(self) -> Path:
        return self.home / "operator.token"

    @property
    def ca(self) -> Path:
        return self.home / "ca"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def tuf(self) -> Path:
        return self.home / "tuf"

    @property
    def blobs(self) -> Path:
        return self.home / "blobs"

    @property
    def payloads(self) -> Path:
        """Encoded files."""
        return self.home / "payloads"

    @property
    def webhooks(self) -> Path:
        """Secrets that notices are signed with."""
        return self.home / "webhooks"

    @property
    def broker(self) -> Path:
        return self.home / "broker"


def find_home(environment: Mapping[str, str], home: Path | None = None) -> Path:
    """The flag wins over the environment, the environment over `./outrider`."""
    chosen = home or Path(environment.get(HOME_VARIABLE) or DEFAULT_HOME)
    return chosen.expanduser().absolute()


def read(environment: Mapping[str, str], home: Path | None = None) -> Settings:
    """Settings of the control plane at `home`.

    Raises `InvalidRequest`: OUT-S150 if there is none, OUT-S120 if its file is not valid.
    """
    found = find_home(environment, home)
    path = found / FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidRequest("OUT-S150", f"{path} does not exist") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequest("OUT-S120", f"{path}: {error}") from error
    return parse(document, found)


def parse(document: object, home: Path) -> Settings:
    """Settings from the parsed file. Raises `InvalidRequest` OUT-S120."""
    if not isinstance(document, dict):
        raise InvalidRequest("OUT-S120", f"{FILE} is a list of settings")
    known = {field.name for field in dataclasses.fields(Settings)} - {"home"}
    unknown = sorted(str(name) for name in set(document) - known)
    if unknown:
        raise InvalidRequest("OUT-S120", f"{FILE}: unknown field {unknown[0]}")
    fallback = DEVELOPMENT if document.get("dev") is True else Intervals()
    intervals = document.get("intervals", {})
    if not isinstance(intervals, dict):
        raise InvalidRequest("OUT-S120", f"{FILE}: intervals is an object")
    values: dict[str, Any] = {
        **document,
        "home": home,
        "intervals": {**dataclasses.asdict(fallback), **intervals},
    }
    try:
        return msgspec.convert(values, Settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidRequest("OUT-S120", f"{FILE}: {error}") from error


def require_loopback(dev: bool, *hosts: str) -> None:
    """A development control plane has all keys in one place: only its machine may reach it.

    Raises `InvalidRequest` OUT-A121.
    """
    for host in hosts if dev else ():
        if not _is_loopback(host):
            raise InvalidRequest("OUT-A121", f"{host} is an address that others reach, too")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def write(settings: Settings) -> None:
    """Write the file that `read` reads. Intervals are left to their defaults."""
    values = dataclasses.asdict(settings)
    del values["home"], values["intervals"]
    settings.config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

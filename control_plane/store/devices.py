"""Devices: what operators said of each, what it says of itself, and when it was heard."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from control_plane.store.members import Members
from control_plane.store.shadows import Shadows
from control_plane.store.table import Row, Slice, Table, dump, load
from protocol.bundle import Facts
from protocol.device import Pin, Settings
from protocol.errors import InvalidRequest
from protocol.identifiers import DeviceId, Digest, ModelName, split_device_id
from protocol.payload import features_named
from protocol.reported import ReportedState

FACT: Final = "fact/"
RUNS: Final = "runs/"
"""Prefixes of labels that the control plane writes itself."""

_COLUMNS = (
    "id, local, labels, version, since, changed, pins, allow, settings, certificate, enrolled_ms, "
    "last_contact_ms, published, state, state_order, retired_ms"
)
_CHUNK: Final = 500
_WEEK_MS: Final = 7 * 24 * 3_600_000
_CONTACT: Final = """
    UPDATE device SET
        gap_before_ms = CASE gap_week WHEN ?3 THEN gap_before_ms
                                      WHEN ?3 - 1 THEN gap_ms ELSE 0 END,
        gap_ms = max(CASE gap_week WHEN ?3 THEN gap_ms ELSE 0 END, coalesce(
            ?2 - max(last_contact_ms, (SELECT since_ms FROM listening)), 0)),
        gap_week = ?3,
        last_contact_ms = ?2
    WHERE id = ?1 AND (last_contact_ms IS NULL OR last_contact_ms < ?2)
"""
"""Without a contact before, or while nobody knows since when it could be heard, no gap is known."""


@dataclass(frozen=True, slots=True)
class Device:
    """`version`, `since`, `labels`, `pins`, `allow`, `settings` make its document."""

    id: DeviceId
    local: str
    labels: dict[str, str] = field(default_factory=dict)
    version: int = 0
    since: int = 0
    changed: int = 0
    """Fleet-wide sequence number of the last change of its document."""
    pins: dict[ModelName, Pin] = field(default_factory=dict)
    allow: dict[ModelName, dict[Digest, int]] = field(default_factory=dict)
    settings: Settings = Settings()
    certificate: str | None = None
    enrolled_ms: int = 0
    last_contact_ms: int | None = None
    published: int = 0
    """Version of the document that is out; -1: withdrawn, since the device is retired."""
    state: ReportedState | None = None
    state_order: int = -1
    retired_ms: int | None = None
    """From then on it is no device of the fleet any more; its records and its name stay."""

    @property
    def selectable(self) -> dict[str, str]:
        return {**self.labels, "id": self.local}


class Devices(Table):
    # --- documents ------------------------------------------------------------------------------

    def enrol(
        self,
        id: DeviceId,
        labels: Mapping[str, str],
        certificate: str | None,
        now_ms: int,
        pins: Mapping[ModelName, Pin] | None = None,
    ) -> Device:
        """Raises `InvalidRequest` OUT-A203 when there is, or was, a device of this name."""
        with self._write():
            number = self._next()
            try:
                self._do(
                    "INSERT INTO device (id, local, labels, version, since, changed, pins, allow, "
                    "settings, certificate, enrolled_ms) VALUES (?,?,?,?,?,?,?,'{}','{}',?,?)",
                    (
                        id,
                        split_device_id(id)[1],
                        dump(dict(labels)),
                        max(1, now_ms // 60_000),
                        number,
                        number,
                        dump(dict(pins or {})),
                        certificate,
                        now_ms,
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise InvalidRequest("OUT-A203", f"{split_device_id(id)[1]} is taken") from error
            return self.need(id)

    def get(self, name: str) -> Device | None:
        """By id or by local name, also a retired one. An id wins: a local name may look like it."""
        row = self._one(
            f"SELECT {_COLUMNS} FROM device WHERE id = ? OR local = ? ORDER BY id != ? LIMIT 1",
            (name, name, name),
        )
        return _device(row) if row else None

    def is_member(self, id: DeviceId) -> bool:
        """Whether this is a device of the fleet: enrolled, and not retired."""
        return (
            self._one("SELECT 1 FROM device WHERE id = ? AND retired_ms IS NULL", (id,)) is not None
        )

    def need(self, name: str) -> Device:
        """Like `get`. Raises `InvalidRequest` OUT-S110."""
        found = self.get(name)
        if found is None:
            raise InvalidRequest("OUT-S110", f"no device named {name}")
        return found

    def change(self, device: Device, now_ms: int) -> Device:
        """Store a device's document fields. Returns it with its new numbers.

        Nothing different: nothing changes. Otherwise the document gets a new version,
        max(previous + 1, Unix minutes), and new labels also a new `since`.
        """
        with self._write():
            before = self.need(device.id)
            if _document(device) == _document(before):
                return before
            number = self._next()
            since = number if device.labels != before.labels else before.since
            self._do(
                "UPDATE device SET labels = ?, pins = ?, allow = ?, settings = ?, certificate = ?, "
                "version = max(version + 1, ?), since = ?, changed = ? WHERE id = ?",
                (
                    dump(device.labels),
                    dump(device.pins),
                    dump(device.allow),
                    dump(device.settings),
                    device.certificate,
                    now_ms // 60_000,
                    since,
                    number,
                    device.id,
                ),
            )
            return self.need(device.id)

    def certify(self, id: DeviceId, certificate: Digest, now_ms: int) -> Device:
        """Name another certificate in its document. Raises `InvalidRequest` OUT-S110."""
        with self._write():
            named = dataclasses.replace(self.need(id), certificate=certificate)
            return self.change(named, now_ms)

    def retire(self, id: DeviceId, now_ms: int) -> bool:
        """Take a device out of the fleet for good; whether it was in. Rollouts go on without it."""
        with self._write():
            taken = self._do(
                "UPDATE device SET retired_ms = ?, changed = ? WHERE id = ? AND retired_ms IS NULL",
                (now_ms, self._next(), id),
            )
            if taken:
                self._do("DELETE FROM running WHERE device = ?", (id,))
                Members(self._connect, self._write).leave(id)
            return bool(taken)

    def to_withdraw(self) -> tuple[DeviceId, ...]:
        """Retired devices whose document may still be retained."""
        rows = self._all(
            "SELECT id FROM device WHERE retired_ms IS NOT NULL AND published >= 0 ORDER BY id"
        )
        return tuple(row[0] for row in rows)

    def set_withdrawn(self, id: DeviceId) -> None:
        self._do("UPDATE device SET published = -1 WHERE id = ?", (id,))

    def sequence(self) -> int:
        """The fleet-wide number of the last change of any document."""
        return self._number("SELECT value FROM sequence WHERE name = 'fleet'")

    def unpublished(self, limit: int = 1000) -> tuple[Device, ...]:
        rows = self._all(
            f"SELECT {_COLUMNS} FROM device WHERE published < version AND retired_ms IS NULL "
            "ORDER BY id LIMIT ?",
            (limit,),
        )
        return tuple(_device(row) for row in rows)

    def set_published(self, id: DeviceId, version: int) -> None:
        self._do(
            "UPDATE device SET published = ? WHERE id = ? AND published < ?", (version, id, version)
        )

    def unpublish_all(self) -> None:
        """Everything goes out again: the broker, or the key, is another one."""
        self._do("UPDATE device SET published = 0")

    def raise_version(self, id: DeviceId, version: int) -> None:
        """Go on above a version that was found retained: this store is older than it."""
        self._do(
            "UPDATE device SET version = ? + 1 WHERE id = ? AND version <= ?",
            (version, id, version),
        )

    # --- what devices say -----------------------------------------------------------------------

    def put_state(self, id: DeviceId, state: ReportedState, now_ms: int) -> bool:
        """Take a reported state if its `order` is the highest so far; whether it was.

        The same transaction copies its facts into labels, notes what runs, and moves the device
        on in the rollouts that it is in. A device that is not known, or retired, is ignored.
        """
        with self._write() as connection:
            taken = self._do(
                "UPDATE device SET state = ?, state_order = ?, features = ? "
                "WHERE id = ? AND state_order < ? AND retired_ms IS NULL",
                (dump(state), state.order, features_named(state.features), id, state.order),
            )
            if not taken:
                return False
            self._do("DELETE FROM running WHERE device = ?", (id,))
            connection.executemany(
                "INSERT INTO running (device, model, serving, current) VALUES (?, ?, ?, ?)",
                [(id, name, each.serving, each.current) for name, each in state.models.items()],
            )
            device = self.need(id)
            kept = {k: v for k, v in device.labels.items() if not k.startswith(FACT)}
            labels = {**kept, **fact_labels(state.facts)}
            self.change(dataclasses.replace(device, labels=labels), now_ms)
            Members(self._connect, self._write).moved(id, state, now_ms)
            Shadows(self._connect, self._write).heard(id, state)
            return True

    def contact(self, id: DeviceId, now_ms: int) -> None:
        """An accepted message of any kind. Moves the device on in the rollouts that it is in.

        Its longest time without contact is kept for this week and the one before; time in which
        nobody listened is no such time.
        """
        with self._write():
            forward = self._do(_CONTACT, (id, now_ms, now_ms // _WEEK_MS))
            if forward:
                Members(self._connect, self._write).contact(id, now_ms)

    def running(self, model: ModelName) -> dict[Digest, int]:
        """How many devices serve which bundle of a model."""
        rows = self._all(
            "SELECT serving, count(*) FROM running WHERE model = ? AND serving IS NOT NULL "
            "GROUP BY serving",
            (model,),
        )
        return dict(rows)

    def holding(self, model: ModelName, but: Digest) -> dict[Digest, int]:
        """How many devices run, or go back to, which bundle of a model, without those that have
        `but`."""
        rows = self._all(
            """
            SELECT bundle, count(*) FROM (
                SELECT device, serving AS bundle FROM running WHERE model = ?1
                UNION SELECT device, current FROM running WHERE model = ?1
            )
            WHERE bundle IS NOT NULL AND device NOT IN (
                SELECT device FROM running WHERE model = ?1 AND ?2 IN (serving, current)
            )
            GROUP BY bundle
            """,
            (model, but),
        )
        return dict(rows)

    def abilities(self) -> dict[int, int]:
        """By feature bits (`protocol.payload`) how many devices can decode just these; devices
        that were never heard do not count."""
        rows = self._all(
            "SELECT features, count(*) FROM device "
            "WHERE retired_ms IS NULL AND features IS NOT NULL GROUP BY features"
        )
        return dict(rows)

    # --- lists: of the fleet, or of what was retired ----------------------------------------------

    def page(
        self,
        chosen: Callable[[Device], bool] | None = None,
        after: tuple[str | int, ...] | None = None,
        limit: int = 50,
        *,
        retired: bool = False,
    ) -> Slice[Device]:
        """By id, those that `chosen` accepts. Key: (id,)."""
        last = str(after[0]) if after else ""
        found: list[Device] = []
        while len(found) <= limit:
            rows = self._all(
                f"SELECT {_COLUMNS} FROM device WHERE id > ? AND (retired_ms IS NOT NULL) = ? "
                "ORDER BY id LIMIT ?",
                (last, retired, _CHUNK),
            )
            devices = [_device(row) for row in rows]
            found.extend(each for each in devices if chosen is None or chosen(each))
            if len(rows) < _CHUNK:
                break
            last = devices[-1].id
        kept = tuple(found[:limit])
        return Slice(kept, (kept[-1].id,) if len(found) > limit and kept else None)

    def all(
        self, chosen: Callable[[Device], bool] | None = None, *, retired: bool = False
    ) -> tuple[Device, ...]:
        rows = self._all(
            f"SELECT {_COLUMNS} FROM device WHERE (retired_ms IS NOT NULL) = ? ORDER BY id",
            (retired,),
        )
        devices = (_device(row) for row in rows)
        return tuple(each for each in devices if chosen is None or chosen(each))

    def changed_after(self, number: int, limit: int = -1) -> tuple[Device, ...]:
        """Devices whose document changed after a sequence number, in that order; -1: all."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM device WHERE changed > ? AND retired_ms IS NULL "
            "ORDER BY changed LIMIT ?",
            (number, limit),
        )
        return tuple(_device(row) for row in rows)

    def count(
        self, chosen: Callable[[Device], bool] | None = None, *, retired: bool = False
    ) -> int:
        if chosen is None:
            return self._number(
                "SELECT count(*) FROM device WHERE (retired_ms IS NOT NULL) = ?", (retired,)
            )
        return len(self.all(chosen, retired=retired))

    def _next(self) -> int:
        self._do("UPDATE sequence SET value = value + 1 WHERE name = 'fleet'")
        return self.sequence()


def fact_labels(facts: Facts) -> dict[str, str]:
    """Facts that selectors can use: `fact/arch`, `fact/ram_mb` (decimal MB), ...

    Unknown facts give no label. RAM is rounded to 64 MB: kernels report a little more or less
    from one start to the next, and each change of labels would count as a change.
    """
    ram_mb = round(facts.ram_bytes / 64e6) * 64
    labels = {
        "arch": facts.arch,
        "onnxruntime": facts.onnxruntime,
        "agent": facts.agent,
        "system": facts.system,
        "ram_mb": str(ram_mb) if facts.ram_bytes else "",
    }
    return {FACT + name: _clipped(value) for name, value in labels.items() if value}


def _clipped(value: str) -> str:
    return value.encode()[:128].decode(errors="ignore")


def _document(device: Device) -> tuple[object, ...]:
    return (device.labels, device.pins, device.allow, device.settings, device.certificate)


def _device(row: Row) -> Device:
    named = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Device(
        **{
            **named,
            "labels": load(named["labels"], dict[str, str]),
            "pins": load(named["pins"], dict[ModelName, Pin]),
            "allow": load(named["allow"], dict[ModelName, dict[Digest, int]]),
            "settings": load(named["settings"], Settings),
            "state": load(named["state"], ReportedState) if named["state"] else None,
        }
    )

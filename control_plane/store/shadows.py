"""What devices say of a candidate that runs beside their current version, added up per wave."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.store.table import Table
from protocol.identifiers import DeviceId
from protocol.reported import ReportedState


@dataclass(frozen=True, slots=True)
class ShadowTotal:
    """`devices` have reported; `with_rows` of them as many rows as the rollout wants, and these
    together `rows`, of which `agreed` agree."""

    devices: int = 0
    with_rows: int = 0
    rows: int = 0
    agreed: int = 0


class Shadows(Table):
    def heard(self, device: DeviceId, state: ReportedState) -> None:
        """Keep what a device says of the candidates of rollouts that it is in.

        Its counts begin again when its agent starts: what was counted of most rows stays.
        """
        for model, each in state.models.items():
            shadow = each.shadow
            if shadow is None:
                continue
            self._do(
                """
                INSERT INTO shadow (rollout, device, wave, rows, agreed, enough)
                SELECT r.id, m.device, m.wave, ?3, ?4,
                       ?3 >= coalesce(json_extract(r.spec, '$.shadow.rows'), 200)
                FROM member m JOIN rollout r ON r.id = m.rollout
                WHERE m.device = ?1 AND r.model = ?2 AND r.candidate = ?5 AND r.ended_ms IS NULL
                ON CONFLICT (rollout, device) DO UPDATE SET wave = excluded.wave,
                    rows = excluded.rows, agreed = excluded.agreed, enough = excluded.enough
                    WHERE excluded.rows >= rows
                """,
                (device, model, shadow.rows, shadow.agreed, shadow.digest),
            )

    def total(self, rollout: str, wave: int) -> ShadowTotal:
        """Costs the same for any number of devices."""
        row = self._one(
            "SELECT devices, enough, rows, agreed FROM shadow_total WHERE rollout = ? AND wave = ?",
            (rollout, wave),
        )
        return ShadowTotal(*row) if row else ShadowTotal()

    def forget(self, rollout: str) -> None:
        """They try again, and begin to count anew."""
        self._do("DELETE FROM shadow WHERE rollout = ?", (rollout,))

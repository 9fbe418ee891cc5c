"""`outrider profile`: the reference that drift is measured against, made apart from a bundle."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, command, group
from protocol.errors import InvalidRequest, NotUnderstood, PeerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from control_plane.catalog.lints import Lint
    from control_plane.catalog.profile import Wishes
    from control_plane.catalog.tables import Rows
    from control_plane.catalog.watched import Watch
    from protocol.profile import Profile

app = group("References that drift is measured against.")

Labels = Annotated[
    str | None,
    typer.Option(
        help="Column or array with what would have been right; the model is not given it."
    ),
]
Watching = Annotated[
    Literal["auto", "columns", "pooled", "embedding", "none"] | None,
    typer.Option(help="What is monitored of the inputs; auto without it."),
]
Window = Annotated[
    str | None, typer.Option(help="How long devices count into one window; 1h without it.")
]
WindowRows = Annotated[
    int | None, typer.Option("--rows", help="Rows that a window waits for; 50 without it.")
]


@command(app)
def build(
    samples: Annotated[
        Path, typer.Argument(help=".npz, .csv or .parquet with rows as the model will meet them.")
    ],
    model: Annotated[
        Path | None, typer.Option(help="The ONNX file: then its answers are in the profile too.")
    ] = None,
    labels: Labels = None,
    watch: Watching = None,
    window: Window = None,
    rows: WindowRows = None,
    to: Annotated[Path, typer.Option(help="File to write.")] = Path("profile.json"),
    as_json: AsJson = False,
) -> None:
    """Count sample rows into the bins that devices will count into, and write the profile."""
    from control_plane.catalog.measured import Monitoring, profile_of
    from control_plane.catalog.report import profile_report
    from protocol.identifiers import digest_of
    from protocol.members import pretty

    given = wishes(watch, window, rows)
    found, right = samples_in(samples, labels)
    if model is not None and not model.exists():
        raise InvalidRequest("OUT-S110", f"no file named {model}", do="check the path")
    made = profile_of(found, model, monitoring=Monitoring(labels=right, wishes=given))
    data = pretty(made.profile)
    to.write_bytes(data)
    hints(made.lints)
    if as_json:
        showing.document(
            {
                "profile": str(to),
                "digest": digest_of(data),
                "size_bytes": len(data),
                "rows": made.profile.rows,
                "features": [feature.name for feature in made.profile.features],
                "residual": made.profile.residual is not None,
                "accuracy": made.profile.accuracy,
                "lints": lints_of(made.lints),
            }
        )
        return
    for label, text in profile_report(made.profile, to.name, digest_of(data), len(data)):
        showing.line(label, text)


def wishes(watch: Watch | None, window: str | None, rows: int | None) -> Wishes:
    """Raises `InvalidRequest` OUT-S120 for what no profile may say."""
    from control_plane.catalog.profile import Wishes
    from control_plane.rollout.reading import duration
    from protocol.profile import WINDOW_ROWS, WINDOW_S
    from protocol.wording import duration as said

    default = Wishes()
    seconds = default.window_s if window is None else duration(window, "--window")
    if not WINDOW_S[0] <= seconds <= WINDOW_S[1]:
        limits = f"{said(WINDOW_S[0])} to {said(WINDOW_S[1])}"
        raise InvalidRequest("OUT-S120", f"--window {window}: it is {limits}")
    least = default.window_rows if rows is None else rows
    if not WINDOW_ROWS[0] <= least <= WINDOW_ROWS[1]:
        limits = f"{WINDOW_ROWS[0]} to {WINDOW_ROWS[1]:,}"
        raise InvalidRequest("OUT-S120", f"--rows {rows}: it is {limits}")
    return Wishes(watch or default.watch, int(seconds), least)


def samples_in(path: Path, labels: str | None) -> tuple[Rows, NDArray[np.generic] | None]:
    """`(rows without labels, labels)`. Raises `InvalidRequest` as `read_rows` and `take_labels`;
    OUT-S110 without the file."""
    from control_plane.catalog.tables import read_rows, take_labels

    if not path.exists():
        raise InvalidRequest("OUT-S110", f"no file named {path}", do="check the path")
    found = read_rows(path)
    return (found, None) if labels is None else take_labels(found, labels)


def read_profile(path: Path) -> Profile:
    """Raises `InvalidRequest` OUT-S110 without the file, OUT-B114 for what is no profile."""
    from protocol.members import member_document
    from protocol.profile import Profile

    try:
        return member_document(path.read_bytes(), Profile)
    except OSError as error:
        raise InvalidRequest("OUT-S110", f"no file named {path}", do="check the path") from error
    except NotUnderstood as error:
        raise InvalidRequest("OUT-B114", f"{path.name}: {', '.join(error.names)}") from error
    except PeerError as error:
        raise InvalidRequest("OUT-B114", f"{path.name}: {error.why}") from error


def hints(lints: Iterable[Lint]) -> None:
    """To stderr: what to look at in the samples."""
    from control_plane.catalog.lints import said

    for text in said(lints):
        label, below = f"{'lint':<{showing.LABEL}}", " " * showing.LABEL
        screen.hint(
            textwrap.fill(
                text,
                screen.WIDTH,
                initial_indent=label,
                subsequent_indent=below,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def lints_of(lints: Iterable[Lint]) -> list[dict[str, str]]:
    """The same in JSON."""
    return [{"code": each.code, "feature": each.feature, "text": each.text} for each in lints]

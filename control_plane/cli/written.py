"""A rollout in a YAML file, and where in the file each of its fields stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from control_plane.client import SHOWN, Answered
from protocol.errors import InvalidRequest, OutriderError

_FIELD: Final = frozenset({"OUT-S120", "OUT-S121"})


class Written:
    """`fields` as JSON values. Raises `InvalidRequest` (OUT-S120) with the line; `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InvalidRequest("OUT-S120", "is not text in UTF-8", place=str(path)) from error
        text = "\n".join(self._lines)
        try:
            self._tree = yaml.compose(text, yaml.SafeLoader)
            fields = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            raise self._at(error.problem_mark, error.problem or "is not YAML") from error
        except yaml.YAMLError as error:
            raise InvalidRequest("OUT-S120", str(error), place=str(path)) from error
        if not isinstance(fields, dict):
            raise InvalidRequest("OUT-S120", "a rollout is a list of fields", place=str(path))
        self.fields: dict[str, Any] = fields

    def located(self, error: Answered, sent: Mapping[str, Any]) -> OutriderError:
        """The error with its line, if it is about a field that was sent as it stands here."""
        pointer = _pointer(error.document) if error.code in _FIELD else None
        if pointer is None:
            return error
        names = pointer.removeprefix("#/").split("/")
        key, value = _find(self._tree, names)
        if key is None or sent.get(names[0]) != self.fields.get(names[0]):
            return error
        unknown = "unknown field" in error.why
        node = key if unknown or value is None else value
        # The line says where: of waves[2].soak_time, soak_time is left to say.
        why = f"unknown field {names[-1]}" if unknown else error.why
        return self._at(
            node.start_mark, why, end=node.end_mark, do=error.do, document=error.document
        )

    def _at(
        self,
        mark: yaml.Mark | None,
        why: str,
        *,
        end: yaml.Mark | None = None,
        do: str = "",
        document: Mapping[str, Any] | None = None,
    ) -> OutriderError:
        if mark is None:
            return InvalidRequest("OUT-S120", why, do=do, place=str(self._path))
        number, column = mark.line + 1, mark.column
        place = f"{self._path.name}:{number}"
        error: OutriderError
        if document is None:
            error = InvalidRequest("OUT-S120", why, do=do, place=place)
        else:
            error = Answered(str(document["code"]), why, do, document)
            error.place = place
        line = self._lines[mark.line] if mark.line < len(self._lines) else ""
        length = end.column - column if end is not None and end.line == mark.line else 1
        margin = f"{number} | "
        error.excerpt = (
            (margin + line)[:SHOWN],
            (" " * (len(margin) + column) + "^" * max(1, length))[:SHOWN],
        )
        return error


def _pointer(document: Mapping[str, Any]) -> str | None:
    try:
        pointer = document["errors"][0]["pointer"]
    except (KeyError, IndexError, TypeError):
        return None
    return pointer if isinstance(pointer, str) and pointer.startswith("#/") else None


def _find(tree: yaml.Node | None, names: list[str]) -> tuple[yaml.Node | None, yaml.Node | None]:
    """The key (or the item of a list) and the value that a JSON pointer leads to."""
    key, value = None, tree
    for name in names:
        if isinstance(value, yaml.MappingNode):
            found = [pair for pair in value.value if pair[0].value == name]
            key, value = found[0] if found else (None, None)
        elif isinstance(value, yaml.SequenceNode) and name.isdecimal():
            key = value = value.value[int(name)] if int(name) < len(value.value) else None
        else:
            return None, None
    return key, value

"""A policy as an operator writes it: a YAML or JSON file with the fields of the signed policy.

Shorter in three places: a column of the input may be called by its name in the profile, a single
value needs no list, and what is left out is the default. What the bundle cannot keep is refused
here, with what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from protocol import codec
from protocol.errors import InvalidRequest, NotUnderstood, PeerError
from protocol.members import (
    ACTIONS,
    TRIGGERS,
    Contract,
    DevPolicy,
    Limits,
    Policy,
    Profile,
    SessionOptions,
)
from protocol.rules import OPERATORS, Condition, Rule, Rules, check_rules

Completed = Callable[[Contract, Profile], Policy]
"""What a policy file says of a bundle, once its contract and profile are known."""

MAX_FILE: Final = 1024 * 1024
_CODE: Final = "OUT-S120"


def read_policy(path: Path) -> Completed:
    """Raises `InvalidRequest` OUT-S110 without the file, OUT-S120 for what is no policy."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequest("OUT-S110", f"no file named {path}", do="check the path") from error
    if len(data) > MAX_FILE:
        raise InvalidRequest(_CODE, f"a policy has at most {MAX_FILE:,} bytes", place=str(path))
    try:
        written = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise InvalidRequest(_CODE, " ".join(str(error).split()), place=str(path)) from error
    if not isinstance(written, dict):
        raise InvalidRequest(
            _CODE, "a policy is a list of fields, such as `min_requests: 100`", place=str(path)
        )

    def complete(contract: Contract, profile: Profile) -> Policy:
        names = list(profile.columns)
        try:
            return _policy(written, contract, names)
        except NotUnderstood as error:
            raise InvalidRequest(_CODE, _unknown(error), place=str(path)) from error
        except (ValueError, PeerError) as error:
            why = error.why if isinstance(error, PeerError) else str(error)
            raise InvalidRequest(_CODE, why, place=str(path)) from error

    return complete


def checked(policy: Policy, contract: Contract, profile: Profile) -> Policy:
    """The same policy. Raises `InvalidRequest` OUT-S120 if its rules do not fit the bundle."""
    if policy.rules is not None:
        try:
            check_rules(policy.rules, contract, profile.columns)
        except ValueError as error:
            raise InvalidRequest(_CODE, str(error)) from error
    return policy


def _policy(written: Mapping[str, Any], contract: Contract, names: list[str]) -> Policy:
    _known(written, Policy, "", without={"must_understand"})
    for name, kind in (("limits", Limits), ("session", SessionOptions), ("dev", DevPolicy)):
        if written.get(name) is not None:
            _known(_mapping(written[name], name), kind, f"{name}.")
    document = dict(written)
    if document.get("rules") is not None:
        document["rules"] = _rules(document["rules"], names)
    policy = codec.convert(document, Policy)
    if policy.rules is not None:
        check_rules(policy.rules, contract, names)
    return policy


def _rules(written: object, names: list[str]) -> dict[str, Any]:
    given = _mapping(written, "rules")
    _known(given, Rules, "rules.")
    rules = given.get("rules") or ()
    if not isinstance(rules, list | tuple):
        raise ValueError("rules.rules is a list of rules, each with `when` and `answer`")
    return {
        "rules": [_rule(rule, number, names) for number, rule in enumerate(rules, start=1)],
        "otherwise": _answer(given.get("otherwise"), "otherwise"),
    }


def _rule(written: object, number: int, names: list[str]) -> dict[str, Any]:
    where = f"rule {number}"
    rule = _mapping(written, where)
    _known(rule, Rule, f"{where}: ")
    when = rule.get("when")
    if isinstance(when, dict):
        when = [when]
    if not isinstance(when, list) or not when:
        raise ValueError(f"{where}: when: is a list such as [{{column: 0, op: gt, value: 80}}]")
    return {
        "when": [_condition(each, where, names) for each in when],
        "answer": _answer(rule.get("answer"), where),
    }


def _condition(written: object, where: str, names: list[str]) -> dict[str, Any]:
    condition = dict(_mapping(written, where))
    _known(condition, Condition, f"{where}: ")
    column = condition.get("column")
    if isinstance(column, str):
        if column not in names:
            near = get_close_matches(column, names, 1)
            hint = f"; a similar name: {near[0]}" if near else "; give its number, from 0"
            raise ValueError(f"{where}: no column is called {column[:64]!r}{hint}")
        condition["column"], condition["name"] = names.index(column), column
    elif isinstance(column, int) and 0 <= column < len(names):
        condition.setdefault("name", names[column])
    return condition


def _answer(written: object, where: str) -> dict[str, Any]:
    if not isinstance(written, dict) or not written:
        raise ValueError(f"{where}: says no answer, such as `{{label: 0}}` for each output")
    return {
        name: list(values) if isinstance(values, list) else [values]
        for name, values in written.items()
    }


def _mapping(written: object, where: str) -> Mapping[str, Any]:
    if not isinstance(written, dict):
        raise ValueError(f"{where} takes named fields, not {written!r:.40}")
    return written


def _known(
    written: Mapping[str, Any],
    kind: type,
    above: str,
    without: frozenset[str] | set[str] = frozenset(),
) -> None:
    """Raise `ValueError` for a field that would be ignored."""
    known = [each.name for each in fields(kind) if each.name not in without]
    for name in written:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"the field is called {near[0]}" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown field {above}{str(name)[:64]}; {hint}")


def _unknown(error: NotUnderstood) -> str:
    """The values that are none, and which there are."""
    said = []
    for name in error.names:
        kind, _, value = name.partition(":")
        known = {"trigger": TRIGGERS, "action": tuple(ACTIONS), "op": OPERATORS}.get(kind, ())
        said.append(
            f"no {kind} is called {value!r}" + (f"; known: {', '.join(known)}" if known else "")
        )
    return "; ".join(said)

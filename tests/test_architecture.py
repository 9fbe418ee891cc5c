"""Rules of the source tree that neither the linter nor the import contracts can express."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "coding", "edge_agent", "control_plane")

LONG = 400
# A name that says nothing collects everything.
EMPTY_NAMES = frozenset(
    name + plural
    for name in ("util", "helper", "common", "misc", "manager", "handler", "service")
    for plural in ("", "s")
)
# The impure calls that need no import of an impure module.
IMPURE_CALLS = frozenset(
    {
        "open",
        "print",
        "input",
        "date.today",
        "datetime.now",
        "datetime.today",
        "datetime.utcnow",
        "os.getenv",
        "os.urandom",
        "uuid.uuid1",
        "uuid.uuid4",
    }
)


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def pure_sources() -> Iterator[Path]:
    """The protocol, and what the `pure` import contract lists: one list serves both checks."""
    yield from sources("protocol")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {each["id"]: each for each in pyproject["tool"]["importlinter"]["contracts"]}
    for module in contracts["pure"]["source_modules"]:
        path = ROOT / module.replace(".", "/")
        file = path.with_suffix(".py")
        yield from [file] if file.exists() else sorted(path.rglob("*.py"))


def imported_roots(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def impure_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in IMPURE_CALLS or ".".join(called.split(".")[-2:]) in IMPURE_CALLS:
                yield node


def says_why_it_is_long(tree: ast.Module) -> bool:
    docstring = ast.get_docstring(tree) or ""
    return any(line.startswith("Long because") for line in docstring.splitlines())


def test_a_long_file_says_why_in_its_docstring():
    silent = [
        f"{shown(path)}: {length} lines"
        for path in sources(*PACKAGES, "tests")
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > LONG
        and not says_why_it_is_long(parsed(path))
    ]
    assert silent == [], "split it, or add a docstring line that starts with 'Long because'"


def test_every_name_says_something():
    empty = [
        shown(path)
        for path in sources(*PACKAGES, "tests")
        if any(
            word in EMPTY_NAMES
            for part in path.relative_to(ROOT).with_suffix("").parts
            for word in part.split("_")
        )
    ]
    assert empty == [], "name the file for what it does"


def test_nothing_in_the_api_is_called_models():
    # Here a model is a neural network; request and response types live in the protocol.
    assert not (ROOT / "control_plane/web/models.py").exists()


def test_the_protocol_imports_only_msgspec_and_the_standard_library():
    allowed = sys.stdlib_module_names | {"msgspec", "protocol"}
    foreign = [
        f"{shown(path)}: {root}"
        for path in sources("protocol")
        for root in imported_roots(parsed(path))
        if root not in allowed
    ]
    assert foreign == []


def test_pure_modules_read_no_clock_and_do_no_io():
    impure = [
        f"{shown(path)}:{call.lineno}: {ast.unparse(call)}"
        for path in pure_sources()
        for call in impure_calls(parsed(path))
    ]
    assert impure == [], "take the value as an argument"

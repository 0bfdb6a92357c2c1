"""Runs in: the test process. The rules of the house: walls between packages, first lines, words, and threats in pairs.

The walls are a table, so that they can be read. Each package may import what stands in its row, and nothing else of
bunri; a pure one imports nothing that touches the kernel either. The check reads the source, so an import inside a
function counts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
SOURCE = TOP / "src/bunri"

FLOOR = ("errors", "text")
PURE = (*FLOOR, "policy", "seccomp", "plan", "wire")
BELOW_CHANNEL = (*PURE, "kernel", "calls", "service", "handles")
BELOW_PROCESS = (*BELOW_CHANNEL, "early", "confine", "channel", "broker")

# part of bunri -> the parts of bunri that it may import, beside itself
WALLS: dict[str, tuple[str, ...]] = {
    "text": (),
    "later": (),
    "errors": ("text",),
    "seccomp": (*FLOOR, "later"),
    "policy": (*FLOOR, "later", "seccomp"),
    "plan": (*FLOOR, "later", "seccomp", "policy"),
    "wire": FLOOR,
    "kernel": FLOOR,
    "calls": FLOOR,
    "early": (),
    "service": (*FLOOR, "wire"),
    "handles": (*FLOOR, "wire", "policy", "kernel"),
    "confine": (*PURE, "later", "kernel", "early"),
    "filters": (*FLOOR, "seccomp", "kernel"),
    "channel": BELOW_CHANNEL,
    "broker": (*BELOW_CHANNEL, "confine", "channel"),
    # The one pair that knows each other: `start` of a compartment is done by process, whose workers make compartments.
    "process": (*BELOW_PROCESS, "compartment"),
    "compartment": (*BELOW_PROCESS, "process"),
    "observe": (*BELOW_PROCESS, "process", "compartment"),
    "testing": (*BELOW_PROCESS, "process", "compartment", "observe"),
}
# These stand outside: what a program of somebody else could import, too.
PUBLIC = ("", "seccomp", "filters", "testing", "broker")
OUTSIDE = {"apps": PUBLIC, "cli": (*WALLS, "", "apps")}

# Modules that reach the kernel. `os` and `socket` may be imported for constants and path functions; see CONSTANTS.
REACHES_THE_KERNEL = {
    "_ctypes", "_posixsubprocess", "asyncio", "concurrent", "ctypes", "fcntl", "mmap", "multiprocessing", "pathlib",
    "posix", "resource", "select", "selectors", "shutil", "subprocess", "tempfile", "threading",
}  # fmt: skip
CONSTANTS = re.compile(
    r"[A-Z][A-Z0-9_]*|path|PathLike|fspath|fsencode|fsdecode|strerror|socket|SocketKind|AddressFamily"
)
PATH_FUNCTIONS = {
    "basename",
    "dirname",
    "isabs",
    "join",
    "normpath",
    "split",
    "commonpath",
    "relpath",
    "sep",
    "pardir",
    "curdir",
}

# Spelled apart, so that this table does not find itself.
UNFINISHED = re.compile(
    rf"\b(TO{''}DO|FIX{''}ME|X{''}XX|NotImplemented{''}Error)\b|# (type|pyright): ignore$|except Exception: *pass"
)
THREAT = re.compile(r"^test_threat_(\d\d)_(attack|control)")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(TOP))


def part_of(path: Path) -> str:
    """The part of bunri that a file belongs to; empty for the top `__init__.py`."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """Every module that the file imports, by its dotted name; `from a import b` gives a.b, since b may be a module."""
    package = ("bunri", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> Iterator[str]:
    """The parts of bunri that the file imports; empty for a public name taken from `bunri` itself."""
    for name in imports_of(path):
        first, *rest = name.split(".")
        if first == "bunri":
            yield rest[0] if rest and is_part(rest[0]) else ""


def is_part(name: str) -> bool:
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists()


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    if part in ("", "_public", "__main__"):
        return  # the public names are gathered there; the command starts there
    row = {**WALLS, **OUTSIDE}.get(part)
    assert row is not None, f"{part} has no row in WALLS: say what it may import"
    forbidden = sorted(
        {other or "the public names" for other in parts_imported(path) if other != part and other not in row}
    )
    assert not forbidden, f"{name_of(path)} imports {', '.join(forbidden)}, which {part} must not know"


@pytest.mark.parametrize("path", [path for path in modules() if part_of(path) in PURE], ids=name_of)
def test_a_pure_package_does_not_touch_the_kernel(path: Path) -> None:
    touched = sorted({name for name in imports_of(path) if name.split(".")[0] in REACHES_THE_KERNEL})
    assert not touched, f"{name_of(path)} imports {', '.join(touched)}"
    calls = sorted(set(kernel_names(path)))
    assert not calls, f"{name_of(path)} uses {', '.join(calls)}"


def kernel_names(path: Path) -> Iterator[str]:
    """`os.X` and `socket.X` that are more than a constant, a type or arithmetic on path names; and plain `open`."""
    for name in imports_of(path):
        module, _, member = name.rpartition(".")
        if module in ("os", "socket") and not CONSTANTS.fullmatch(member):
            yield name
        if module == "os.path" and member not in PATH_FUNCTIONS:
            yield name
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "socket"):
            if not CONSTANTS.fullmatch(node.attr):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os.path":
            if node.attr not in PATH_FUNCTIONS:
                yield f"os.path.{node.attr}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("open", "socket.socket", "exec", "eval", "__import__"):
                yield f"{called}()"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_says_first_where_it_runs(path: Path) -> None:
    first = (ast.get_docstring(tree_of(path)) or "").partition("\n")[0]
    assert first.startswith("Runs in: "), f"{name_of(path)} starts with {first!r}"


def test_nothing_calls_itself_unfinished() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for folder in ("src", "tests", "benchmarks", "tools")
        for path in sorted((TOP / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not found, "\n".join(found)


def test_every_attack_has_its_control() -> None:
    halves: dict[str, set[str]] = {"attack": set(), "control": set()}
    for path in sorted((TOP / "tests").rglob("test_*.py")):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (match := THREAT.match(node.name)):
                halves[match[2]].add(match[1])
    alone = halves["attack"] ^ halves["control"]
    assert not alone, f"threats with only one half of their pair: {', '.join(sorted(alone))}"


def test_the_walls_have_no_holes() -> None:
    """The check itself can fail: a file that breaks every rule is found."""
    bad = SOURCE / "policy" / "bad.py"  # never written: only its place counts
    tree = ast.parse(
        "from ..kernel import mount\nimport ctypes\nimport os\nos.open('/', os.O_RDONLY)\nopen('/etc/passwd')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.tree_of", lambda path: tree)
        assert "kernel" in set(parts_imported(bad))
        assert set(kernel_names(bad)) == {"os.open", "open()"}
        with pytest.raises(AssertionError, match="must not know"):
            test_imports_go_one_way(bad)
        with pytest.raises(AssertionError, match="ctypes"):
            test_a_pure_package_does_not_touch_the_kernel(bad)
        with pytest.raises(AssertionError, match="starts with"):
            test_a_module_says_first_where_it_runs(bad)

"""The rules of the house that a machine can hold. What each is for: the text of its failure."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAX_FILE_LINES = 420  # near 400
MAX_FUNCTION_LINES = 70

TOP = {
    "CHANGELOG.md",
    "CMakeLists.txt",
    "LICENSE",
    "README.md",
    "benchmarks",
    "docs",
    "ext",
    "pyproject.toml",
    "schemas",
    "src",
    "tests",
    "tools",
}

ZMQ = {"src/flux/transport/sockets.py", "src/flux/transport/frames.py", "src/flux/transport/pump.py"}

# Who may import flux.kernels: a door for each, and no one else.
DOORS = {
    "codec": {
        "src/flux/codec.py",
        "src/flux/codec/__init__.py",
        "src/flux/schema/envelope.py",
    },  # envelope: the checksum at a message's end
    "ring": {"src/flux/ring.py"},
    "window": {"src/flux/window.py"},
    "indicator": {"src/flux/indicator.py"},
    "journal": {
        "src/flux/journal/__init__.py",
        "src/flux/journal/journal.py",
        "src/flux/journal/fence.py",
        "src/flux/journal/disk.py",
        "src/flux/journal/scanner.py",
        "src/flux/journal/gather.py",
        "src/flux/journal/past.py",
    },
    "arrow": {"src/flux/batch.py"},
    "pump": {"src/flux/transport/pump.py", "src/flux/transport/outbox.py"},
    "bridge": {"src/flux/transport/bridge.py"},
    "admit": {"src/flux/transport/outbox.py"},
    "histogram": {"src/flux/loadgen/histogram.py"},
    "drive": {"src/flux/loadgen/drive.py"},
}
STATIONS = ("codec", "ring", "window", "journal")


@cache
def files() -> tuple[str, ...]:
    """Every file of the project, tracked or about to be."""
    said = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(sorted(name for name in set(said.splitlines()) if (ROOT / name).is_file()))


def text(name: str) -> str:
    return (ROOT / name).read_text(errors="replace")


def generated(name: str) -> bool:
    return "/schema/generated/" in name


def code(*suffixes: str, under: str = "") -> Iterator[str]:
    """Source that people write, tools without a suffix included."""
    for name in files():
        if name.startswith(under) and not generated(name):
            script = name.startswith(("tools/", ".ci/")) and "." not in Path(name).name
            if name.endswith(suffixes) or (script and ".py" in suffixes and "python" in text(name)[:40]):
                yield name


def tree(name: str) -> ast.Module:
    return ast.parse(text(name), name)


def imports(name: str) -> set[str]:
    """Every module that a file imports, at its top or late; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def none(found: list[str], why: str) -> None:
    assert not found, f"{why}:\n  " + "\n  ".join(found)


def test_the_top_level_is_fixed() -> None:
    top = {name.partition("/")[0] for name in files()}
    none(
        sorted(name for name in top - TOP if not name.startswith(".")),
        "a new room needs a line in docs/architecture.md",
    )


def test_a_file_fits_a_sitting() -> None:
    long = []
    for name in code(".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h", ".c", under=""):
        lines = text(name).count("\n")
        if lines > MAX_FILE_LINES:
            long.append(f"{lines} {name}")
    none(long, f"at most {MAX_FILE_LINES} lines")


def test_a_function_fits_a_screen() -> None:
    long = []
    for name in code(".py"):
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name}:{node.lineno} {node.name} {lines}")
    none(long, f"at most {MAX_FUNCTION_LINES} lines")


def test_names_say_what_things_are() -> None:
    vague = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)(_|$)|(Utils?|Helpers?|Manager)$")
    found = [name for name in files() if any(vague.search(part) for part in Path(name).with_suffix("").parts)]
    for name in code(".py"):
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ClassDef) and vague.search(node.name):
                found.append(f"{name}:{node.lineno} {node.name}")
    none(found, "a name that could be anything's")


def test_nothing_is_left_for_later_in_the_code() -> None:
    later = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    found = []
    for name in code(".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h", ".c", ".fbs", ".txt", ".toml"):
        found += [f"{name}:{at}" for at, line in enumerate(text(name).splitlines(), 1) if later.search(line)]
    none(found, "what is missing belongs into an issue")


def test_no_path_of_a_machine() -> None:
    path = re.compile(r"(?<![\w.])/(?:work|farm|root|home|Users)/\w")
    found = []
    for name in files():
        if (ROOT / name).stat().st_size < 1_000_000 and not generated(name):
            found += [
                f"{name}:{at}" for at, line in enumerate(text(name).splitlines(), 1) if path.search(line)
            ]
    none(found, "a path that exists on one machine")


def test_documents_that_are_named_are_there() -> None:
    named = re.compile(r"(?<![\w./-])((?:\.\./)*(?:[\w-]+/)*[\w-]+\.md)\b")
    found = []
    for name in files():
        if name.endswith((".png", ".xz", ".bin", ".json", ".jsonl")) or generated(name):
            continue
        for at, line in enumerate(text(name).splitlines(), 1):
            for document in named.findall(line):
                beside = (ROOT / name).parent / document
                if not beside.is_file() and not any(
                    (ROOT / r / document).is_file() for r in ("", "docs", "benchmarks")
                ):
                    found.append(f"{name}:{at} {document}")
    none(found, "a document that is not in the tree")


def test_an_exception_is_silenced_only_with_a_reason() -> None:
    # Behind the rule's name there must be words.
    bare = re.compile(
        r"#\s*(noqa(?!: [A-Z]+\d+(?:, ?[A-Z]+\d+)*\s+\S)|type: ignore(?!\[[\w, -]+\]\s+#?\s*\S))"
    )
    found = []
    for name in code(".py", ".pyi"):
        if name != "tests/test_tidy.py":
            found += [
                f"{name}:{at}" for at, line in enumerate(text(name).splitlines(), 1) if bare.search(line)
            ]
    none(found, "say why, behind it")


def test_no_catch_all() -> None:
    found = []
    for name in code(".py", under="src/"):
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                why = text(name).splitlines()[node.lineno - 1].partition("#")[2]
                if caught in ("everything", "Exception") and not why:
                    found.append(f"{name}:{node.lineno}")
    none(found, "catch what can happen, or say on that line whose code may raise anything")


def test_no_bare_thread() -> None:
    found = []
    for name in code(".py", under="src/"):
        if name != "src/flux/threads.py":
            found += [
                f"{name}:{node.lineno}"
                for node in ast.walk(tree(name))
                if isinstance(node, ast.Attribute | ast.Name | ast.alias)
                and (getattr(node, "attr", "") or getattr(node, "id", "") or getattr(node, "name", ""))
                in ("Thread", "start_new_thread", "Timer")
            ]
    none(found, "a thread is a flux.threads.WatchedThread: nobody would hear of the end of another")


def test_zmq_is_imported_in_three_files() -> None:
    # The examples play other people's services, which have their own sockets.
    found = [
        name
        for name in code(".py", under="src/")
        if name not in ZMQ
        and not name.startswith("src/flux/examples/")
        and any(module.split(".")[0] == "zmq" for module in imports(name))
    ]
    none(found, "use what flux.transport.sockets hands out")


def test_a_kernel_is_imported_by_its_door() -> None:
    found = []
    for name in code(".py", under="src/"):
        for module in imports(name):
            if module.startswith("flux.kernels."):
                kernel = module.split(".")[2]
                if name not in DOORS.get(kernel, set()):
                    found.append(f"{name} imports {module}")
    none(sorted(found), "only a door imports its kernel")


def test_every_kernel_has_its_stub() -> None:
    kernels = [Path(name).stem for name in files() if re.fullmatch(r"ext/(loadgen/)?\w+\.pyx", name)]
    none(
        [k for k in kernels if f"src/flux/kernels/{k}.pyi" not in files()],
        "a hand-written .pyi for each kernel",
    )
    stubs = [Path(name).stem for name in files() if re.fullmatch(r"src/flux/kernels/\w+\.pyi", name)]
    none([stub for stub in stubs if stub not in kernels], "a stub without a kernel")


@pytest.mark.parametrize("word", STATIONS)
def test_a_station_is_in_its_places(word: str) -> None:
    if f"ext/{word}.pyx" not in files():
        return  # not built yet
    places = [
        f"src/flux/kernels/{word}.pyi",
        f"src/flux/{word}.py",
        f"tests/oracle/{word}.py",
        f"tests/kernels/test_{word}.py",
        f"tests/unit/test_{word}.py",
    ]
    if any(name.startswith("benchmarks/bench_") for name in files()):
        places.append(f"benchmarks/bench_{word}.py")
    if f"src/flux/{word}/__init__.py" in files():  # a door too large for one file
        places.remove(f"src/flux/{word}.py")
    none([place for place in places if place not in files()], "one word, the same in every place")


def test_every_limit_is_used() -> None:
    limits = "src/flux/limits.py"
    names = {
        node.target.id
        for node in tree(limits).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    used: set[str] = set()
    for name in code(".py", under="src/"):
        words = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", text(name)))
        if name == limits:  # inside, only functions count: an assertion alone bounds nothing
            functions = [node for node in tree(limits).body if isinstance(node, ast.FunctionDef)]
            words = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", " ".join(ast.unparse(f) for f in functions)))
        used |= words & names
    none(sorted(names - used - {"KIB", "MIB", "GIB"}), "a bound that bounds nothing")


def test_modules_and_classes_say_what_they_are() -> None:
    found = []
    for name in code(".py", under="src/"):
        module = tree(name)
        if not ast.get_docstring(module) and module.body:
            found.append(name)
        for node in module.body:
            if (
                isinstance(node, ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                found.append(f"{name}:{node.lineno} {node.name}")
    none(found, "a docstring for what is public")


def test_an_assertion_does_nothing() -> None:
    """`python -O` leaves assertions out: what an object is made to do stands outside of them."""
    found = [
        f"{name}:{node.lineno} {ast.unparse(call)}"
        for under in ("src/", "benchmarks/")
        for name in code(".py", under=under)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Assert)
        for call in ast.walk(node.test)
        if isinstance(call, ast.NamedExpr)
        or (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr != "count")
    ]
    none(found, "call it, then assert what it returned")


def test_nothing_waits_for_descriptors_with_select() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name in code(".py")
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("select.select", "select")
        and any(ast.unparse(sources) != "[]" for sources in node.args[:3])
        and "select" in imports(name)
    ]
    found += [name for name in code(".h", ".c", ".pyx", ".pxi") if re.search(r"\bfd_set\b", text(name))]
    none(found, "select ends at descriptor 1,023: use poll")

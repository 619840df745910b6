"""The documents name what is there: every path, link, test, verb, flag, limit, name and promise is looked up."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import flux
from flux import limits
from flux.cli import loadgen_flags
from flux.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
ROOMS = (".ci/", ".github/", "benchmarks/", "docs/", "ext/", "schemas/", "src/", "tests/", "tools/")
SOURCES = (".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h", ".c", ".sql", ".fbs", ".toml", ".yml")
MADE = ("flux.duckdb", "build/")  # names that begin so are of files that a running flux makes
PLACEHOLDER = re.compile(r"(?<![A-Z])(NAME|DIR|FILE|KEY)(?![A-Z])|[*{<]")


@cache
def tracked() -> frozenset[str]:
    """Every file of the project, tracked or about to be, and every folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    files = {name for name in listed if (ROOT / name).is_file()}
    return frozenset(files | {str(folder) for name in files for folder in Path(name).parents})


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(errors="replace")


@cache
def words_of_the_code() -> frozenset[str]:
    """Every word in capitals that stands in the code."""
    found: set[str] = set()
    for name in tracked():
        if name.endswith(SOURCES) or (name.startswith(("tools/", ".ci/")) and (ROOT / name).is_file()):
            found |= set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", text(name)))
    return frozenset(found)


def blocks(name: str, language: str | None = None) -> Iterator[str]:
    for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", text(name), re.MULTILINE | re.DOTALL):
        if language is None or kind == language:
            yield body


def spans(name: str) -> list[str]:
    """What stands between single backticks, outside of blocks."""
    prose = re.sub(r"^```.*?^```", "", text(name), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def lines_of_code(name: str) -> Iterator[str]:
    """Everything that stands as code: spans, and lines of blocks without their comments."""
    yield from spans(name)
    for body in blocks(name):
        for line in body.splitlines():
            yield line.partition("  #")[0].strip()


def none(found: list[str], why: str) -> None:
    assert not found, f"{why}:\n  " + "\n  ".join(sorted(set(found)))


def headings(name: str) -> set[str]:
    """Anchors, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", text(name), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", line.lower()) for line in lines]
    return {line.replace(" ", "-") for line in plain}


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name: str) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text(name)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        there = str((ROOT / name).parent.joinpath(path).resolve().relative_to(ROOT)) if path else name
        if there not in tracked() or (anchor and anchor not in headings(there)):
            wrong.append(target)
    none(wrong, f"{name} leads nowhere with")


def there(path: str) -> bool:
    """A file or a folder, from the project's root, from the package's, or by its name alone."""
    path = path.rstrip("/")
    if any(f"{room}{path}" in tracked() for room in ("", "src/flux/", "src/")):
        return True
    if re.fullmatch(r"ext/\w+", path):  # a kernel
        return f"{path}.pyx" in tracked()
    return "/" not in path.strip("/") and any(other.endswith(f"/{path}") for other in tracked())


@pytest.mark.parametrize("name", DOCS)
def test_paths_are_those_of_files(name: str) -> None:
    wrong = []
    for code in lines_of_code(name):
        for word in re.findall(r"[\w./-]+\b/?(?!\()", code.partition("::")[0]):
            is_path = word.startswith(ROOMS) or word.endswith(SOURCES)
            if is_path and not PLACEHOLDER.search(code) and not word.startswith(MADE) and not there(word):
                wrong.append(word)
    none(wrong, f"{name} names files that are not there")


def named_tests(name: str) -> Iterator[tuple[str, str]]:
    yield from re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text(name))


@pytest.mark.parametrize("name", DOCS)
def test_tests_are_there(name: str) -> None:
    wrong = [
        f"{file}::{test}"
        for file, test in named_tests(name)
        if file not in tracked() or not re.search(rf"\bdef {test}\(", text(file))
    ]
    none(wrong, f"{name} names tests that are not there")


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


@cache
def flags(program: str) -> frozenset[str]:
    """The flags of `flux VERB` or `flux-loadgen`."""
    if program == "flux-loadgen":
        return frozenset(options(loadgen_flags.parser()))
    return frozenset(options(importlib.import_module(f"flux.cli.{program}").parser()))


def threads() -> set[str]:
    """Names of threads, which begin with flux as verbs do."""
    found: set[str] = set()
    for name in tracked():
        if name.startswith("src/") and name.endswith(".py"):
            found |= set(re.findall(r'"flux ([a-z]+)"', text(name)))
            found |= set(re.findall(r'name=f"flux ([a-z]+) ', text(name)))
            found |= set(re.findall(r'_spawn\("([a-z]+)"', text(name)))
    return found


@pytest.mark.parametrize("name", DOCS)
def test_verbs_and_flags_are_those_of_the_programs(name: str) -> None:
    wrong = []
    for code in lines_of_code(name):
        for command in re.split(r";|\||&&", code):
            found = re.match(r"\s*(flux-loadgen|flux ([a-z]+))\b(.*)", command)
            if not found:
                continue
            verb = found[2] or found[1]
            if found[2] and verb not in VERBS:
                if verb not in threads():
                    wrong.append(f"flux {verb}")
                continue
            wrong += [
                f"{found[1]} {flag}"
                for flag in re.findall(r"(?<!\S)--?[a-z][\w-]*", found[3])
                if flag not in flags(verb)
            ]
    none(wrong, f"{name} names verbs or flags that are not there")


@pytest.mark.parametrize("name", DOCS)
def test_a_flag_by_itself_is_one_of_somebody(name: str) -> None:
    known = {flag for program in (*VERBS, "flux-loadgen") for flag in flags(program)}
    code = "".join(
        text(other)
        for other in tracked()
        if other.startswith(("tools/", "tests/conftest.py", "benchmarks/gate/"))
        and (ROOT / other).is_file()
        and not other.endswith(".png")
    )
    wrong = []
    for span in spans(name):
        flag = span.split()[0] if span.startswith("--") else ""
        if flag and flag not in known and f'"{flag}"' not in code and flag not in ("--checksum",):
            wrong.append(flag)
    none(wrong, f"{name} names flags that no program has")


@pytest.mark.parametrize("name", DOCS)
def test_words_in_capitals_stand_in_the_code(name: str) -> None:
    wrong = [
        word
        for span in spans(name)
        for word in re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", span)
        if not hasattr(limits, word) and word not in words_of_the_code()
    ]
    none(wrong, f"{name} names limits or constants that are not there")


_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_FIGURE = re.compile(
    r"(\d[\d,]*(?:\.\d+)?)(?: (KiB|MiB|GiB|ms|s|a second))?(?: [\w.]+){0,4} \(`([A-Z]+(?:_[A-Z0-9]+)+)`"
)


@pytest.mark.parametrize("name", DOCS)
def test_a_figure_beside_its_limit_is_the_limits(name: str) -> None:
    """`64 MiB (FEED_PENDING_BYTES)`, `5 s (MARK_RECENT_MS)`, `16 in flight (MAX_ASKS)`."""
    wrong = []
    for figure, unit, limit in _FIGURE.findall(text(name)):
        if not isinstance(getattr(limits, limit, None), int | float):
            continue
        said, is_ = float(figure.replace(",", "")), float(getattr(limits, limit))
        scale = _UNITS.get(unit, 1)
        if limit.endswith("_MS"):
            scale = 1_000 if unit == "s" else 1
        elif limit.endswith("_NS"):
            scale = 1_000_000_000
        if abs(said - is_ / scale) >= (0.1 if "." in figure else 1e-9):
            wrong.append(f"{figure} {unit} ({limit}), which is {is_ / scale:g}")
    none(wrong, f"{name} has figures that are not the limits'")


def test_figures_are_found_at_all() -> None:
    assert len(_FIGURE.findall(text("docs/architecture.md"))) > 30


def test_the_worst_case_is_the_sum_that_doctor_shows() -> None:
    few, many = limits.server_bytes(1_000), limits.server_bytes()
    rows = {
        what: (int(first), int(second))
        for what, first, second in re.findall(
            r"^\| `?(\w+)`? \| (\d+) \| (\d+) \|$", text("docs/architecture.md"), re.MULTILINE
        )
    }
    assert rows == {
        **{what: (few[what] // limits.MIB, many[what] // limits.MIB) for what in few},
        "sum": (sum(few.values()) // limits.MIB, sum(many.values()) // limits.MIB),
    }


@pytest.mark.parametrize("name", DOCS)
def test_names_of_flux_are_there(name: str) -> None:
    wrong = []
    for code in lines_of_code(name):
        for chain in re.findall(r"\bflux((?:\.[A-Za-z_]\w*)+)", code):
            if f"flux{chain}".startswith(MADE) or PLACEHOLDER.search(chain):
                continue
            if not resolves(chain.strip(".").split(".")):
                wrong.append(f"flux{chain}")
    none(wrong, f"{name} names what flux does not have")


def resolves(parts: list[str]) -> bool:
    """Whether these are attributes of flux, or a module below it and its attributes."""
    found: object = flux
    path = "flux"
    for part in parts:
        path = f"{path}.{part}"
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = importlib.import_module(path)
        except ImportError:
            return False
    return True


PROMISE = re.compile(r"\b[SCBW][1-9]\d?\b")


def promised() -> set[str]:
    """The ids of the promises, and those that are said to be none yet."""
    return set(re.findall(r"^\| ([SCBW]\d+) \|", text("docs/promises.md"), re.MULTILINE))


def test_every_promise_names_a_test() -> None:
    lines = [line for line in text("docs/promises.md").splitlines() if re.match(r"\| [SCBW]\d+ \|", line)]
    assert len(lines) > 60
    none([line[:60] for line in lines if "::test_" not in line], "a promise without a test")


def test_every_promise_that_the_code_names_is_one() -> None:
    unknown = []
    for name in tracked():
        if (
            not name.startswith(("src/", "tests/"))
            or not name.endswith(".py")
            or not PROMISE.search(text(name))
        ):
            continue
        for node in ast.walk(ast.parse(text(name), name)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                said = PROMISE.findall(ast.get_docstring(node) or "")
                unknown += [f"{name}: {what}" for what in said if what not in promised()]
        unknown += [
            f"{name}: {what}"
            for comment in re.findall(r"(?<=  )# .*", text(name))
            for what in PROMISE.findall(comment)
            if what not in promised()
        ]
    none(unknown, "not in docs/promises.md")

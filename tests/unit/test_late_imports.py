"""What a server may need later is loaded when it starts: later there may be no descriptor to open a module with."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import flux

# generated code imports late what reads a message; a server reads with the kernel
ROOMS = ("codec", "journal", "schema", "server", "store", "transport")


def late_imports() -> Iterator[tuple[str, str]]:
    """(where, module) of every import inside a function of what a server is made of."""
    root = Path(flux.__file__).parent
    for path in sorted(
        path for room in ROOMS for path in (root / room).rglob("*.py") if path.parent.name != "generated"
    ):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from ((str(path), name.name) for name in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    yield str(path), node.module


def test_a_server_has_loaded_what_it_imports_late() -> None:
    found = list(late_imports())
    assert "zstandard" in {name for _, name in found}, "the search finds those that are known"
    script = "import sys, flux.server.foreground; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert {(where, name) for where, name in found if name not in loaded.stdout.split()} == set()

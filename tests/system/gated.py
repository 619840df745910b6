"""Trees with a planted fault, and clones of the project, for the tests of the gate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def replace(file: Path, before: str, after: str) -> None:
    """In one place, or the test says that the fault must be planted elsewhere."""
    sound = file.read_text()
    assert sound.count(before) == 1, f"{file.name} has changed: plant the fault elsewhere"
    file.write_text(sound.replace(before, after))


def planted(folder: Path, file: str, before: str, after: str) -> Path:
    """A tree whose kernels differ in one place."""
    root = folder / "tree"
    shutil.copytree(ROOT / "ext", root / "ext")
    shutil.copy(ROOT / "CMakeLists.txt", root)
    replace(root / "ext" / file, before, after)
    return root


def gate(root: Path, folder: Path, recorded: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """The gate of instructions in C, on a tree, beside a baseline."""
    file = folder / "baseline.json"
    file.write_text(json.dumps(recorded))
    flags = ["--only", "instructions", "--part", "c", "--json", folder / "told.json"]
    places = ["--root", root, "--out", folder / "out", "--baseline", file]
    command = [sys.executable, "-m", "benchmarks.gate", *flags, *places]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def failed(folder: Path) -> str:
    return "\n".join(json.loads((folder / "told.json").read_text())["failed"])


def git(where: Path, *words: str) -> str:
    """git, as nobody in particular."""
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit_all(where: Path, why: str) -> None:
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", why)


def clone(folder: Path) -> Path:
    """What the gate of instructions needs of this tree as it lies here, as the first commit of another history."""
    made = folder / "clone"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "ext", made / "ext", ignore=ignored)
    shutil.copytree(ROOT / "benchmarks", made / "benchmarks", ignore=ignored)
    for name in ("CMakeLists.txt", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, made)
    git(folder, "init", "-q", str(made))
    commit_all(made, "all of it")
    return made

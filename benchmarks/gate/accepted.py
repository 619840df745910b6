"""The tree that a baseline is of, found again in whatever history this clone has.

A commit's name does not survive a rewritten history (a rebase, a squash, a branch that is landed in another way); the
names of the folders in it do: git names a folder by what is in it. So a baseline records the folders that its numbers
depend on, and they are looked for in this order:

1. these very folders, wherever in the history they are: exactly what was measured;
2. the recorded commit, for a baseline that names no folders;
3. the commit that last changed the baseline's file: a baseline is committed by itself, so the rest of its tree is what
   was measured. Where folders are recorded and not found, its tree is another, and the gate says so.

A shallow clone ends somewhere, and everything seems to have changed there: that commit is not taken for 3.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from benchmarks.building import ROOT
from benchmarks.gate.instructions import OUT

DEPENDS: Final = (
    "ext",
    "src",
    "schemas",
    "CMakeLists.txt",
    "pyproject.toml",
    "benchmarks/gate",
    "benchmarks/building.py",
)
"""What the numbers depend on: a baseline is only of what is committed of these."""
QUOTED: Final = ("README.md", "LICENSE")
"""Named by pyproject.toml; in a wheel, but no part of what is measured."""
KEPT_IN: Final = "benchmarks/baseline.json"


class NotComparableError(Exception):
    """There is nothing to compare with."""


def git(*words: str) -> str:
    """What git says, in the project's folder. Raises NotComparableError with its own words where it refuses."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotComparableError(f"git {words[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def _there(name: str) -> bool:
    asked = ["git", "cat-file", "-e", name]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, check=False).returncode == 0


def folders(commit: str) -> dict[str, str]:
    """git's names of what the numbers depend on, as far as the commit has it."""
    there = git("ls-tree", commit, "--", *DEPENDS).splitlines()
    return {line.partition("\t")[2]: line.split()[2] for line in there}


def committed() -> str:
    """The commit that a baseline can be of. Raises NotComparableError while there is something uncommitted."""
    if changed := git("status", "--porcelain", "--", *DEPENDS):
        raise NotComparableError(f"commit first: a baseline names a commit, and this is in none\n{changed}")
    return git("rev-parse", "HEAD")


def _brought() -> str:
    """The commit that last changed the baseline. Raises NotComparableError where that cannot be known."""
    commit = git("log", "-1", "--format=%H", "--", KEPT_IN)
    shallow = ROOT / git("rev-parse", "--git-path", "shallow")
    if not commit or (shallow.exists() and commit in shallow.read_text().split()):
        raise NotComparableError(
            "the baseline is of another environment, and the tree it was measured on is not in this clone "
            f"({'git fetch --unshallow' if commit else 'no history of ' + KEPT_IN})"
        )
    return commit


def _names(recorded: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """What the tree is, in words, and git's name of each part of it."""
    parts: dict[str, str] = recorded.get("trees", {})
    if parts and all(map(_there, parts.values())):
        return "the tree that was measured", parts
    if not parts and _there(f"{recorded['commit']}^{{commit}}"):
        return f"the baseline's commit {recorded['commit'][:12]}", folders(recorded["commit"])
    commit = _brought()
    said = f"the tree of {commit[:12]}, which brought the baseline"
    found = folders(commit)
    if parts and found != parts:
        said += " (not the very tree that was measured: that is not in this history)"
    if found == folders("HEAD") and not git("status", "--porcelain", "--", *DEPENDS):
        said += "; nothing that is judged has changed since, so this compares the tree with itself"
    return said, found


def tree_of(recorded: Mapping[str, Any]) -> tuple[str, Path]:
    """What the baseline's tree is, in words, and a folder with it.

    Raises NotComparableError where this clone has neither it nor the commit that brought it.
    """
    said, parts = _names(recorded)
    digest = hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:12]
    folder = OUT / f"tree-{digest}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, known in parts.items():
            if git("cat-file", "-t", known) == "tree":
                packed = subprocess.run(["git", "archive", known], cwd=ROOT, capture_output=True, check=True)
                with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
                    archive.extractall(partial / name, filter="data")
            else:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                plain = subprocess.run(
                    ["git", "cat-file", "blob", known], cwd=ROOT, capture_output=True, check=True
                )
                (partial / name).write_bytes(plain.stdout)
        for name in QUOTED:
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, partial)
        partial.rename(folder)
    return said, folder

"""A copy of the project in which mutants live, and what the tests in it say of one."""

from __future__ import annotations

import compileall
import contextlib
import enum
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import cython_cmake

from tests.mutants.marked import REPORT
from tests.mutants.nearest import ROOT

ONE_TEST_S: Final = 60
SLOWER: Final = 4.0  # a mutant that takes so many times as long as the unchanged code hangs
SPARE_S: Final = 30.0
FILE_S: Final = 600.0  # all tests of a file on the unchanged copy, watched line by line
COLLECT_S: Final = 300.0
SEEDS: Final = ("--seed", "1", "--hypothesis-seed=1", "--cycles", "2")
_KERNELS: Final = Path("src/flux/kernels")


class Verdict(NamedTuple):
    killed: bool
    seconds: float
    why: str  # the test that failed and how, or how the run ended
    test: str  # its name alone, where there is one


class Ended(NamedTuple):
    code: int | None  # None: it hung
    seconds: float
    text: str


class Kernels(enum.Enum):
    """Which compiled kernels a copy has now."""

    INSTALLED = "installed"  # of the environment that the copy was made from
    BUILT = "built"
    CHANGED = "changed"  # by the last mutant


def tracked() -> list[str]:
    """The project's files, as paths from its root: those of git, and new ones."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


class Copy:
    """The tree as it stands here, with an environment of its own that has the same packages. Leaving it removes it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="flux-mutants-"))
        self._configured = False
        self.kernels = Kernels.INSTALLED
        try:
            self._fill()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Copy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def _fill(self) -> None:
        for name in tracked():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.root / name)
        installed = Path(sysconfig.get_path("purelib"))
        for kernel in (installed / "flux" / "kernels").glob("*.so"):
            shutil.copy2(kernel, self.root / _KERNELS)
        for folder in ("schemas", "include"):
            shutil.copytree(
                installed / "flux" / folder, self.root / "src" / "flux" / folder, dirs_exist_ok=True
            )
        # The hook of an editable install is a .pth file, and those are not read of a path that is itself in one.
        own = self.root / ".venv" / "lib" / Path(installed).parent.name / "site-packages"
        own.mkdir(parents=True)
        watch = (
            "import os; 'COVERAGE_PROCESS_START' in os.environ and __import__('coverage').process_startup()"
        )
        (own / "mutants.pth").write_text(f"{self.root / 'src'}\n{installed}\n{watch}\n")
        (self.root / ".venv" / "bin").mkdir()
        self.python = self.root / ".venv" / "bin" / "python"
        self.python.symlink_to(Path(sys.executable).resolve())
        shutil.copy2(Path(sys.prefix) / "pyvenv.cfg", self.root / ".venv")
        compileall.compile_dir(self.root / "src", quiet=2)

    def write(self, path: str, content: bytes) -> None:
        """Put a file in its place, and what Python remembers of the one before out of it."""
        at = self.root / path
        at.write_bytes(content)
        for remembered in (at.parent / "__pycache__").glob(f"{at.stem}.*.pyc"):
            remembered.unlink()

    def restore(self, path: str) -> None:
        self.write(path, (ROOT / path).read_bytes())
        if path.endswith(".py"):
            compileall.compile_file(self.root / path, quiet=2)

    def build(self) -> str:
        """Compile the kernels whose sources changed; "" or what the compiler said."""
        folder = self.root / "build" / "mutants"
        if not self._configured:
            kind = ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_C_FLAGS=-O1 -ffp-contract=off -fno-strict-aliasing"]
            where: list[str | Path] = [
                "-S",
                self.root,
                "-B",
                folder,
                "-G",
                "Ninja",
                f"-DPython_EXECUTABLE={self.python}",
            ]
            found = [f"-DCMAKE_MODULE_PATH={Path(cython_cmake.__file__).parent / 'cmake'}"]
            configured = self._run(["cmake", *where, *kind, *found])
            if configured.returncode:
                raise RuntimeError(configured.stdout[-2000:])
            self._configured = True
        done = self._run(["cmake", "--build", folder, "--parallel", "1"])
        if done.returncode:
            return done.stdout[-2000:]
        for kernel in folder.glob("*.so"):
            target = self.root / _KERNELS / kernel.name
            target.unlink(missing_ok=True)  # not written over: a process may have it mapped
            shutil.copy2(kernel, target)
        return ""

    def _run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        env = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        return subprocess.run(
            command,
            cwd=self.root,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    # ------------------------------------------------------------------ tests

    def collected(self, files: Sequence[str]) -> set[str]:
        """The tests of these files by name. What pytest makes of the files is left in the copy for later runs."""
        said = self._pytest(["--collect-only", *files], COLLECT_S, {"PYTHONDONTWRITEBYTECODE": ""})
        return {line.strip() for line in said.text.splitlines() if "::" in line}

    def run_all(self, file: str, env: dict[str, str]) -> None:
        """All tests of a file on the unchanged copy, and on after one that fails."""
        self._pytest([file], FILE_S, env)

    def judge(self, tests: Sequence[str], usual_s: float) -> Verdict:
        """Whether these tests, which pass on the unchanged copy in about that time, notice what was done to it."""
        ended = self._pytest(["-x", *tests], usual_s * SLOWER + SPARE_S, {})
        if ended.code is None:
            return Verdict(True, ended.seconds, "it hung", "")
        failed = [
            line for line in ended.text.splitlines() if line.startswith(("FAILED tests/", "ERROR tests/"))
        ]
        why = failed[0] if failed else " ".join(ended.text.split())[-300:]
        test = why.partition(" ")[2].partition(" - ")[0] if failed else ""
        return Verdict(ended.code != 0, ended.seconds, why if ended.code else "", test)

    def _pytest(self, given: Sequence[str], limit_s: float, more: dict[str, str]) -> Ended:
        tmp = (
            self.root / "t"
        )  # not below the usual place, where what failed would stay; short, for paths of sockets
        flags = ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", "--timeout", str(ONE_TEST_S)]
        flags += ["--basetemp", str(tmp)]
        if REPORT in more:
            flags += ["-p", "tests.mutants.marked"]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "VIRTUAL_ENV": str(self.root / ".venv")} | more
        began = time.monotonic()
        running = subprocess.Popen(
            [self.python, "-m", "pytest", *flags, *SEEDS, *given],
            cwd=self.root,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        text = ""
        try:
            text, _ = running.communicate(timeout=limit_s)
            code = running.returncode
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # what a mutant's processes left, too
            running.wait()
            shutil.rmtree(tmp, ignore_errors=True)
        return Ended(code, time.monotonic() - began, text)

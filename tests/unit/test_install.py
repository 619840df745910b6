"""A fresh machine (M9): what the system lacks is named at once, and a .venv that is not whole is made anew.

The scripts run against commands of these tests alone: a Python, a gcc and an apt-get that only say what they were
asked, so nothing is installed and the machine's own packages do not count.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAIN = [
    "bash",
    "env",
    "dirname",
    "xargs",
    "cat",
    "find",
    "sort",
    "sha256sum",
    "ln",
    "mkdir",
    "cp",
    "rm",
    "chmod",
]

# It makes an environment as `python -m venv --clear` does, of itself; `pip` in its folder stands for the module.
PYTHON = """#!/usr/bin/env bash
echo "python $*" >>"$SAID"
case "$*" in
*"import sys, pip"*) [ -e "$(dirname "$0")/pip" ] ;;
*ensurepip*) [ -z "${NO_VENV:-}" ] || [ -e "$INSTALLED" ] ;;
"-m venv --clear .venv") rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python && >.venv/bin/pip ;;
"-m venv"*) exit 9 ;;
-) echo cmake ;;
esac
"""


class Machine:
    """A folder with the scripts in it and a PATH that has only what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder / "checkout", folder / "said"
        self.path = folder / "bin"
        for made in (self.folder / "tools", self.folder / "ext", self.folder / "schemas", self.path):
            made.mkdir(parents=True)
        for name in ("venv", "system"):
            shutil.copy(ROOT / "tools" / name, self.folder / "tools" / name)
        for name in ("pyproject.toml", "CMakeLists.txt", "ext/a.c"):
            (self.folder / name).touch()
        for name in PLAIN:
            found = shutil.which(name)
            assert found is not None
            (self.path / name).symlink_to(found)
        self.said.touch()
        self.has("apt-get", '#!/usr/bin/env bash\necho "apt-get $*" >>"$SAID"; >"$INSTALLED"\n')
        self.user(1000)

    def has(self, name: str, text: str = "#!/usr/bin/env bash\n") -> None:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def user(self, number: int) -> None:
        self.has("id", f"#!/usr/bin/env bash\necho {number}\n")

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": str(self.path),
            "SAID": str(self.said),
            "INSTALLED": str(self.path / "installed"),
            **env,
        }
        return subprocess.run(
            command, cwd=self.folder, env=given, capture_output=True, text=True, timeout=60, check=False
        )

    def asked(self, start: str) -> list[str]:
        return [line for line in self.said.read_text().splitlines() if line.startswith(start)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_that_is_lacking_is_one_line_to_paste(machine: Machine) -> None:
    machine.has("python3", PYTHON)
    done = machine.run("tools/system", "dev", NO_VENV="1")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if "apt-get" in line]
    assert line.strip().startswith("sudo apt-get update && sudo apt-get install -y")
    lacking = line.split("--no-install-recommends ")[1].split()
    # libflatbuffers-dev is looked for by its file, which the machine of this test may have.
    assert [name for name in lacking if name != "libflatbuffers-dev"] == [
        *("python3", "python3-venv", "python3-dev", "gcc", "libc6-dev"),
        *("g++", "flatbuffers-compiler", "git", "valgrind"),
    ]
    assert machine.asked("apt-get") == []


def test_a_plain_install_asks_for_no_tool_of_the_tests(machine: Machine) -> None:
    machine.has("python3", PYTHON)
    done = machine.run("tools/venv", NO_VENV="1")
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert "gcc" in done.stderr
    assert "valgrind" not in done.stderr
    assert "flatbuffers" not in done.stderr
    assert not (machine.folder / ".venv").exists()


def test_root_installs_it_after_saying_so(machine: Machine) -> None:
    machine.has("python3", PYTHON)
    machine.has("gcc")
    machine.user(0)
    done = machine.run("tools/system", NO_VENV="1")
    assert done.returncode == 0, done.stderr
    assert "installing it: apt-get update && apt-get install" in done.stderr
    assert machine.asked("apt-get") == [
        "apt-get update",
        "apt-get install -y --no-install-recommends python3 python3-venv python3-dev",
    ]
    assert done.stdout.strip() == str(machine.path / "python3")


def test_without_apt_the_names_are_said(machine: Machine) -> None:
    machine.has("python3", PYTHON)
    (machine.path / "apt-get").unlink()
    machine.user(0)
    done = machine.run("tools/system")
    assert done.returncode == 1
    assert done.stderr == "this system lacks (by Debian's names): gcc libc6-dev\n"


@pytest.mark.parametrize("left", ["nothing", "no pip", "a dead link", "an empty folder"])
def test_a_venv_that_is_not_whole_is_made_anew(machine: Machine, left: str) -> None:
    machine.has("python3", PYTHON)
    machine.has("gcc")
    folder = machine.folder / ".venv" / "bin"
    if left != "nothing":
        folder.mkdir(parents=True)
    if left == "no pip":
        shutil.copy(machine.path / "python3", folder / "python")
    if left == "a dead link":
        (folder / "python").symlink_to("/nowhere/python3")
    done = machine.run("tools/venv")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{machine.folder}/.venv/bin/python\n"
    assert len(machine.asked("python -m venv --clear .venv")) == 1
    assert len(machine.asked("python -m pip install")) == 2
    again = machine.run("tools/venv")
    assert again.returncode == 0
    assert len(machine.asked("python -m venv")) == 1, "a whole one is kept"
    assert len(machine.asked("python -m pip install")) == 2


def test_an_install_that_failed_is_tried_again(machine: Machine) -> None:
    machine.has(
        "python3",
        PYTHON.replace("case", '[ -e "$INSTALLED" ] || case "$*" in "-m pip"*) exit 1 ;; esac\ncase', 1),
    )
    machine.has("gcc")
    assert machine.run("tools/venv").returncode != 0
    (machine.path / "installed").touch()
    assert machine.run("tools/venv").returncode == 0
    assert len(machine.asked("python -m venv --clear .venv")) == 1

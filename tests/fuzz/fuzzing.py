"""Runs both halves of the fuzzer and keeps what made one of them fail."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import build, corpus

GRACE_S = 60.0
"""Seconds after its time that a half may take to end; a run that hangs is a report too."""


@dataclass
class Outcome:
    """Of one campaign: executions and inputs that covered new ground, by target; and one text for each report."""

    executions: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    reports: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Executions of all targets."""
        return sum(self.executions.values())

    def __str__(self) -> str:
        lines = [
            f"{name:9} {count:10,} executions, {self.notes[name]}" for name, count in self.executions.items()
        ]
        return "\n".join([*lines, *self.reports, f"{self.total:,} executions, {len(self.reports)} reports"])


def _decoding(what: str) -> list[str | Path]:
    """The Python half's command, as far as its own arguments."""
    places = [build.build_package(), sysconfig.get_path("purelib"), build.build_mutations()]
    return [sys.executable, "-S", build.HERE / "decoding.py", what, *places]


@dataclass
class _Half:
    """One process that fuzzes; started again with another seed when a report ended it."""

    name: str
    command: Callable[[int, float], list[str | Path]]
    last: Path
    seed: int
    until: float
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(self.seed, max(self.until - time.monotonic(), 0.1)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=build.sanitized_environment() if self.name == "python" else None,
        )

    def finish(self, outcome: Outcome, keep: Path) -> bool:
        """Waits for it; whether it ended in peace."""
        assert self.process is not None
        try:
            out, error = self.process.communicate(timeout=max(self.until - time.monotonic(), 0) + GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, error = self.process.communicate()
            error += f"\nno end after {GRACE_S:.0f} s: an input hangs"
        for line in out.splitlines():
            name, executions, pool, ground = line.split()
            outcome.executions[name] = outcome.executions.get(name, 0) + int(executions)
            what = {"decode": "sound", "sockets": "rounds"}.get(name, "edges")
            outcome.notes[name] = f"{pool} kept, {ground} {what}"
        if self.process.returncode == 0:
            return True
        outcome.reports.append(f"seed {self.seed}: {keep_last(self.last, keep)}\n{error[:6000]}")
        self.seed += 1
        return False


def keep_last(last: Path, keep: Path) -> str:
    """Copies the input that a half left behind into `keep`; says where."""
    found = last.read_bytes() if last.exists() else b""
    name = found[:12].rstrip(b"\0").decode(errors="replace")
    if not name:
        return "before the first input"
    data = found[16 : 16 + struct.unpack_from("<I", found, 12)[0]]
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    return f"kept as {path.name}"


def campaign(seconds: float, seed: int, keep: Path = corpus.KEPT) -> Outcome:
    """Fuzzes for `seconds`, both halves at once; every report is kept as a file in `keep`."""
    driver, decoding = build.build_driver(), _decoding("run")
    frames = corpus.frames(build.OUT / "corpus")
    outcome, until = Outcome(), time.monotonic() + seconds

    def in_c(seed: int, left: float) -> list[str | Path]:
        return [driver, "run", str(seed), str(left), build.OUT / "last_c", *frames]

    def in_python(seed: int, left: float) -> list[str | Path]:
        last = build.OUT / "last_python"
        return [*decoding, str(seed), str(left), last, *frames]

    halves = [
        _Half("c", in_c, build.OUT / "last_c", seed, until),
        _Half("python", in_python, build.OUT / "last_python", seed, until),
    ]
    for half in halves:
        half.last.unlink(missing_ok=True)
        half.start()
    while halves:
        for half in list(halves):
            if half.finish(outcome, keep) or time.monotonic() >= until or len(outcome.reports) >= 20:
                halves.remove(half)
            else:
                half.start()
    return outcome


def replay(paths: list[Path]) -> str | None:
    """Runs kept inputs once more; the report, or None when there is none."""
    for_python = [path for path in paths if path.name.startswith(("decode-", "sockets-"))]
    for_c = [path for path in paths if path not in for_python]
    commands: list[tuple[list[str | Path], int, bool]] = []
    if for_c:
        commands.append(([build.build_driver(), "replay", *for_c], len(for_c), False))
    if for_python:
        commands.append(([*_decoding("replay"), *for_python], len(for_python), True))
    for command, count, preload in commands:
        env = build.sanitized_environment() if preload else None
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode != 0:
            return done.stderr
        if len(done.stdout.splitlines()) != count:
            return f"{count} files, but only these have a target:\n{done.stdout}"
    return None

"""A server of which the Nth call fails: one trial is one life, with one failure in it, and a look at what is left.

    start ─► rows ─► rotation ─► projection ─► rows ─► stop ─► the next start
      └──────────────────┴─ somewhere in here ─┘

The calls that count are those on the data directory, on the memory of rings, and those that make sockets and their
descriptors (shim.h). `once` fails one call, `lasting` every such call until the cause is taken away, as soon as the
server has said that something is wrong; `short` writes half. N rises until a life passes without meeting its Nth call.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flux.errors import FluxError, RequestTimeout
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import State, StreamKey
from flux.schema import messages
from flux.server.storage import recover as recovery
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.disk.build import environment
from tests.disk.judging import kept_of, original
from tests.disk.log import Call, Entry, Kind, read
from tests.patience import PATIENCE_S, readable
from tests.system.accounts import kept
from tests.system.checker import Case, judge
from tests.system.processes import Flux, free_port
from tests.system.served_rows import Listener

KEY = StreamKey("FEED", "X", "1m")
OLD = StreamKey("FEED", "OLD", "1m")
CHUNKS = 5
CHUNK_ROWS = 250
FILE_BYTES = 64 * 1024
ROWS = synth.candles(CHUNKS * CHUNK_ROWS, 11)
SHORT = 0  # in place of an errno

FAILURES = (
    (errno.ENOSPC, "once"), (errno.ENOSPC, "lasting"), (errno.EIO, "once"), (errno.EIO, "lasting"),
    (errno.EMFILE, "once"), (errno.EMFILE, "lasting"), (errno.ENOMEM, "once"), (errno.EINTR, "once"),
    (SHORT, "short"),
)  # fmt: skip

# What libzmq does not survive, whoever calls it: it asserts that these succeed and aborts the process, by design.
ABORTS = ("epoll_create1", "eventfd")


@dataclass
class Trial:
    """What came of one."""

    number: int
    error: int
    mode: str
    met: str = ""
    """The call that failed; empty where the life passed without it."""
    ended: str = ""
    """How the life ended: `refused` to start, `aborted` by libzmq, `stopped`, or that it ended by itself."""
    aborted: bool = False
    said: str = ""
    """All that it wrote to its standard error."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        name = errno.errorcode.get(self.error, "short")
        found = "; ".join(self.problems) or "well"
        return f"call {self.number} {name} {self.mode}: {self.met}: {self.ended}: {found}"


def earlier_life(folder: Path) -> Path:
    """A directory that a server was killed on: one that starts there has more to do than in a new one."""
    data, ingest, rpc = folder / "data", f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    data.mkdir(parents=True)
    arguments = ("--data", data, "--pub", "tcp://127.0.0.1:*", "--rpc", rpc, "--ingest", ingest)
    with Flux(str(FILE_BYTES), *arguments, module="tests.disk.serve") as process:
        process.line()
        with Feed(OLD.source_id, ingest=ingest, chunk_rep=rpc) as feed:
            for chunk in np.split(ROWS, CHUNKS):  # a group is to fit a file
                feed.send(OLD.symbol, OLD.interval, chunk)
                feed.flush(PATIENCE_S)
        process.kill()
    return data


def trial(
    folder: Path, number: int, error: int, mode: str, durability: str = "disk", before: Path | None = None
) -> Trial:
    """One life in `folder`, which must not exist; on a copy of the directory `before`, or on a new one."""
    folder.mkdir()
    data, cause = folder / "data", folder / "cause"
    if before is None:
        data.mkdir()
    else:
        shutil.copytree(before, data)
        original(data, rebooted=False)
    cause.touch()
    made = Trial(number, error, mode)
    variables = environment(data, folder / "log", fail=(number, error, mode), cause=cause)
    pub, rpc, ingest = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
    arguments = ("--data", data, "--pub", pub, "--rpc", rpc, "--ingest", ingest, "--durability", durability)
    with (
        Listener(pub, ROWS) as listener,
        Flux(str(FILE_BYTES), *arguments, module="tests.disk.serve", **variables) as process,
    ):
        life = _Life(made, process, listener, cause, folder / "log")
        if life.ready():
            life.run(ingest, rpc)
        failed = [entry for entry in read(folder / "log") if entry.kind is Kind.FAILED]
        if failed:
            made.met = f"{Call(failed[0].a).name} {Path(failed[0].path).name}"
        made.said = life.heard() + process.errors()
    if made.aborted and not any(name in made.met for name in ABORTS):
        made.problems.append("aborted")
    made.problems += _said(made, failed, life.stopping_ns)
    if made.ended == "stopped" and failed and failed[-1].time_ns < life.stopping_ns:
        stored = kept(data / "flux.duckdb", "the database").get(KEY)
        if stored is None or len(stored) < life.committed:
            made.problems.append("the database was not filled again: its thread is dead")
    made.problems += _left(data, durability, listener, life.committed, before is not None)
    return made


class _Life:
    """The server of a trial, and what is done with it."""

    def __init__(self, made: Trial, process: Flux, listener: Listener, cause: Path, log: Path) -> None:
        self._made, self._process, self._listener = made, process, listener
        self._cause, self._log = cause, log
        self._heard = ""
        self.committed = 0
        self.stopping_ns = 2**63 - 1

    def ready(self) -> bool:
        """Whether it came up; if not, how it ended is noted."""
        out = self._process.process.stdout
        assert out is not None
        if not readable(out):
            self._made.problems.append(f"neither ready nor gone in {PATIENCE_S} s")
            self._process.kill()
            return False
        if out.readline():
            return True
        self._gone("refused")
        return False

    def run(self, ingest: str, rpc: str) -> None:
        """Rows, chunk by chunk, each committed before the next; then the stop."""
        feed = Feed(KEY.source_id, ingest=ingest, chunk_rep=rpc)
        try:
            for chunk in range(CHUNKS):
                feed.send(KEY.symbol, KEY.interval, ROWS[chunk * CHUNK_ROWS : (chunk + 1) * CHUNK_ROWS])
                if not self._committed(feed, rpc):
                    return
            self._stop()
        finally:
            self.committed = feed.committed
            with suppress(FluxError):  # what was not committed is not asked for
                feed.close()

    def _committed(self, feed: Feed, rpc: str) -> bool:
        """Wait until all that was sent is committed. Where that does not come the server has to say so; then the cause
        is taken away, and it has to go on by itself."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self._listener.drain()
            try:
                feed.flush(0.25)
                return True
            except RequestTimeout:
                pass
            if self._process.process.poll() is not None:
                self._gone("ended by itself")
                return False
            if self._cause.exists() and self._is_said(self._health(rpc)):
                self._cause.unlink()
            if time.monotonic() > deadline:
                self._made.problems.append(f"does not go on in {PATIENCE_S} s; health: {self._health(rpc)}")
                self._process.kill()
                self._made.ended = "hung"
                return False

    def heard(self) -> str:
        """What it wrote to its standard error so far."""
        errors = self._process.process.stderr
        assert errors is not None
        while readable(errors, 0) and (written := os.read(errors.fileno(), 65_536)):
            self._heard += written.decode(errors="replace")
        return self._heard

    def _is_said(self, health: str) -> bool:
        """Whether the server has said that something is wrong. Where none of its ports accepts a connection nobody can
        ask: then its standard error says it, or libzmq, which tells nobody, is still trying to accept."""
        if health:
            return health != "OK"
        failed = [entry.path for entry in read(self._log) if entry.kind is Kind.FAILED]
        return os.strerror(self._made.error) in self.heard() or failed[-1:] == ["accept4"]

    def _health(self, rpc: str) -> str:
        """What the server says of itself; empty where it does not answer."""
        try:
            with Sockets() as sockets:
                health = Requester(sockets, rpc).ask(messages.health_request, timeout=2.0)
        except FluxError:
            return ""
        return (
            "OK"
            if health.state == State.OK
            else f"{State(health.state).name}: {getattr(health, 'reason', None)}"
        )

    def _stop(self) -> None:
        self._listener.drain(50)
        self.stopping_ns = time.monotonic_ns()
        code = self._process.stop(PATIENCE_S)
        self._made.ended = "stopped"
        if code:
            self._gone("stopped")

    def _gone(self, how: str) -> None:
        code = self._process.wait(PATIENCE_S)
        self._made.ended = f"{how}, exit {code}"
        if code == -signal.SIGABRT:
            self._made.aborted = True
        elif code < 0:
            self._made.problems.append(f"killed by signal {-code}")
        elif how == "ended by itself":
            self._made.problems.append(f"ended by itself, exit {code}")


def _quiet(made: Trial, failed: Entry, stopping_ns: int) -> bool:
    """Whether nothing is wrong with saying nothing of it."""
    name = Path(failed.path).name
    if made.mode == "short" or made.error == errno.EINTR:
        return True  # the call is made again, and that is all
    if ".spare" in name:
        return (
            True  # room that is made beforehand: without it the rotation makes it, and says so if it cannot
        )
    if failed.path == "accept4":
        return True  # libzmq accepts again, and tells nobody
    if failed.path == "memfd_create" or ":flux-ring" in failed.path:
        return True  # a ring without a double mapping has its seam in it (ext/arena.h), the same rows
    if failed.path == "epoll_create1" and made.number == 1:
        return True  # Python's selectors try one when they are imported
    # DuckDB empties its log when it closes; what fails then stays in the log.
    return name.startswith("flux.duckdb") and failed.time_ns > stopping_ns


def _said(made: Trial, failed: list[Entry], stopping_ns: int) -> list[str]:
    """What is wrong with what the server said of the failures."""
    problems, said = [], made.said
    if "Traceback" in said:
        problems.append("a traceback")
    text = os.strerror(made.error)
    lines = [re.sub(r"[\d-]{10} [\d:,]{12} ", "", line) for line in said.splitlines() if text in line]
    again = sorted({line for line in lines if lines.count(line) > 1})
    if again:
        problems.append(f"said more than once: {again}")
    if not said and not all(_quiet(made, entry, stopping_ns) for entry in failed):
        problems.append("nothing is said")
    return problems


def _left(data: Path, durability: str, listener: Listener, committed: int, before: bool) -> list[str]:
    """What is wrong with what the next start finds."""
    try:
        recovered = recovery.recover(data, disk=durability == "disk", file_bytes=FILE_BYTES)
    except (FluxError, OSError) as error:
        return [f"the next start: {error}"]
    try:
        problems = [f"the next start: {reason}" for _, _, reason in recovered.conditions]
        heads = {head.stream.key: head.stream.stream_id for head in recovered.streams.values()}
        account = kept_of(recovered.store, heads.get(KEY, 0), "the database")
        old = kept_of(recovered.store, heads.get(OLD, 0), "the database")
    finally:
        recovered.journal.close(clean=False)
        recovered.fence.close()
        recovered.projected.close()
        recovered.store.close()
        recovered.lock.release()
    if len(account) < committed:
        problems.append(f"{committed} rows were acknowledged, {len(account)} are kept")
    cases = [Case(ROWS, (listener.account,), (account,)), Case(ROWS, (), (old,), complete=before)]
    return problems + [str(violation) for case in cases for violation in judge(case)]

"""The store's process: killed, stopped, locked out and damaged, it loses nothing and holds up nobody."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flux import limits
from flux.errors import StorageError
from flux.journal import FILE_HEADER_BYTES
from flux.model import RowKind
from flux.store.base import Rows
from flux.store.door import StoreDoor
from flux.store.frames import Hello, Told
from tests.patience import PATIENCE_S
from tests.unit.lives import BTC, Life, rows_of


class Beside:
    """A life whose store is a process of its own."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.told: list[Told] = []
        self.stored: dict[int, int] = {}
        self.wrongs: list[str] = []
        self.failures: list[BaseException] = []
        self._changed = threading.Condition()
        self.door = StoreDoor(self._hello, told=self._take, wrong=self._note, failed=self.failures.append)
        self.door.start()

    def _hello(self) -> Hello:
        identity, directory = self.life.recovered.identity, self.life.directory
        end = self.life.recovered.journal.position
        return Hello(
            str(directory),
            f"duckdb:{directory / 'flux.duckdb'}",
            identity.store_id,
            0,
            identity.epoch,
            (1, FILE_HEADER_BYTES),
            end,
        )

    def _take(self, told: Told) -> None:
        with self._changed:
            self.told.append(told)
            self.stored.update(told.stored)
            self._changed.notify_all()

    def _note(self, why: str) -> None:
        with self._changed:
            self.wrongs.append(why)
            self._changed.notify_all()

    def until(self, condition: object) -> None:
        """Wait for what was told or is wrong."""
        assert callable(condition)
        with self._changed:
            assert self._changed.wait_for(condition, 3 * PATIENCE_S), (self.wrongs[-3:], self.told[-3:])

    def until_stored(self) -> int:
        head = self.life.streams.kernel.head(0)
        self.until(lambda: bool(self.told) and self.told[-1].position == self.life.committer.committed)
        return head

    def rows(self, count: int) -> Rows:
        """All of them, page by page."""
        parts: list[Rows] = []
        while (have := sum(map(len, parts))) < count:
            first, rows = self.door.read(1, RowKind.CANDLE, have, 0, 10_000)
            assert first == have + 1
            parts.append(rows)
        return np.concatenate(parts)


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    with Life(tmp_path / "d") as life:
        life.write(BTC, 10)
        life.recovered.store.close()  # the process opens it
        made = Beside(life)
        yield made
        made.door.stop(PATIENCE_S)
        assert not made.failures


def test_it_follows_the_fence_and_answers(beside: Beside) -> None:
    beside.life.write(BTC, 500)
    count = beside.until_stored()
    np.testing.assert_array_equal(beside.rows(count), rows_of(RowKind.CANDLE, 1, count))
    assert beside.door.sequence_range(1, RowKind.CANDLE, None, None) == (1, count)
    with pytest.raises(StorageError):
        beside.door._ask("close")


def test_killed_at_random_moments_every_row_is_in_it_once(
    beside: Beside, rng: random.Random, cycles: int
) -> None:
    for _ in range(cycles // 2):
        beside.until(lambda: bool(beside.door.pid))
        pid, seen = beside.door.pid, len(beside.told)
        beside.life.write(BTC, rng.randrange(1, 300))
        if rng.random() < 0.7:
            beside.until(lambda seen=seen: len(beside.told) > seen)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        beside.until(lambda pid=pid: beside.door.pid != pid)
    assert any("SIGKILL" in why for why in beside.wrongs)
    count = beside.until_stored()
    np.testing.assert_array_equal(beside.rows(count), rows_of(RowKind.CANDLE, 1, count))


def test_stopped_it_is_not_waited_for_and_goes_on_where_it_was(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.until_stored()
    monkeypatch.setattr("flux.store.door.STORE_SILENT_MS", 1_500)
    pid = beside.door.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StorageError, match=r"in time|not answer"):
            beside.door.read(1, RowKind.CANDLE, 0, 0, 10)
        beside.until(lambda: "does not answer" in beside.wrongs[-1])
        began = time.monotonic()
        with pytest.raises(StorageError, match="does not answer"):
            beside.door.read(1, RowKind.CANDLE, 0, 0, 10)
        assert time.monotonic() - began < limits.STORE_ANSWER_MS / 1_000, "it was asked all the same"
        beside.life.write(BTC, 100)
    finally:
        os.kill(pid, signal.SIGCONT)
    count = beside.until_stored()
    assert beside.door.pid == pid
    np.testing.assert_array_equal(beside.rows(count), rows_of(RowKind.CANDLE, 1, count))


def test_a_database_that_another_has_is_said_and_taken_once_it_is_free(tmp_path: Path) -> None:
    with Life(tmp_path / "d") as life:
        life.write(BTC, 10)
        made = Beside(life)  # this process still has it
        made.until(lambda: any(f"in use by pid {os.getpid()}" in told.error for told in made.told))
        with pytest.raises(StorageError, match="in use"):
            made.door.read(1, RowKind.CANDLE, 0, 0, 10)
        life.recovered.store.close()
        assert made.until_stored() == 10
        assert made.door.stop(PATIENCE_S)


def test_a_damaged_database_is_said_with_the_cure(tmp_path: Path) -> None:
    with Life(tmp_path / "d") as life:
        life.write(BTC, 10)
        life.recovered.store.close()
        (tmp_path / "d" / "flux.duckdb").write_bytes(b"no database" * 10_000)
        made = Beside(life)
        made.until(lambda: any(told.damaged for told in made.told))
        made.door.stop(PATIENCE_S)


PARENT = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.lives import BTC, Life
from tests.unit.test_store_process import Beside
life = Life(Path(sys.argv[1]))
life.write(BTC, 10)
life.recovered.store.close()
beside = Beside(life)
beside.until_stored()
print(beside.door.pid, flush=True)
time.sleep(600)
"""


def test_it_dies_with_its_server(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "d"), root], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        handle = os.pidfd_open(pid)
        server.kill()
    try:
        assert select_readable(handle), "it lives on"
    finally:
        os.close(handle)


def select_readable(descriptor: int) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(PATIENCE_S * 1_000))

"""C11 at the client: a wall clock that jumps by hours changes no row, breaks no connection, and delays no repair."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flux.transport.topics import stream_topic
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY
from tests.unit.live_server import LiveServer, eventually

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
HOUR_S = 3_600


def test_a_wall_clock_that_jumps_is_not_noticed(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None
    shim, jump = tmp_path / "jump.so", tmp_path / "jump"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "clock_jump.c"], check=True)
    jump.write_bytes(bytes(8))
    environment = os.environ | {"LD_PRELOAD": str(shim), "CLOCK_JUMP": str(jump)}
    lines: list[list[str]] = []
    with LiveServer() as server, jump.open("r+b") as file, mmap.mmap(file.fileno(), 8) as offset:
        server.add(KEY, 100)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.system.clock_run", server.pub, server.rep],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None
            said = process.stdout
            reader = threading.Thread(target=lambda: lines.extend(line.split() for line in said))
            reader.start()
            ended = threading.Event()
            lock = threading.Lock()  # the publisher's socket belongs to one thread at a time

            def beat() -> None:
                while not ended.wait(0.2):
                    with lock:
                        server.beat()

            server.subscribed(stream_topic(KEY))
            beater = threading.Thread(target=beat)
            beater.start()
            try:
                eventually(lambda: reached(lines) == 100)
                for hours in (1, -2, 0):
                    offset[:] = struct.pack("=q", hours * HOUR_S)
                    begin = server.stream(KEY).head
                    with lock:
                        server.publish(KEY, 20, lose=[begin + 5, begin + 20])
                    eventually(lambda begin=begin: reached(lines) == begin + 20, f"{hours} h: no repair")
                    wall = next(int(line[3]) for line in reversed(lines) if line[0] == "rows")
                    assert abs(wall - time.time() - hours * HOUR_S) < HOUR_S / 2, "the shim works"
                    quiet = server.beats + 20  # longer than three heartbeats may be missing
                    eventually(lambda quiet=quiet: server.beats >= quiet)
            finally:
                ended.set()
                beater.join()
                process.kill()
                process.wait(PATIENCE_S)
                reader.join(PATIENCE_S)
    spans = [(int(line[1]), int(line[2])) for line in lines if line[0] == "rows"]
    assert [n for first, last in spans for n in range(first, last + 1)] == list(range(1, 161))
    states = {line[1] for line in lines if line[0] == "state"}
    assert not states & {"STALLED", "DISCONNECTED", "FAILED"}, states


def reached(lines: list[list[str]]) -> int:
    return max((int(line[2]) for line in lines if line[0] == "rows"), default=0)

"""The server of mode `through`: a process of its own over a temporary directory, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from flux.errors import FluxError
from flux.loadgen.plan import Plan
from flux.schema import messages
from flux.store.duck import DuckStore
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets

READY_S: Final = 60.0
STOP_S: Final = 30.0
COMMIT_S: Final = 10.0  # behind the last message: then what is not committed is missing
ASK_EVERY_S: Final = 0.02
_ANY: Final = "tcp://127.0.0.1:*"
_TICKS_S: Final = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """Where the server is, and what it says of itself; leaving the `with` ends it if it was started here."""

    def __init__(self, plan: Plan) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = ""
        if plan.servers.pub:
            self.pub, self.rpc, self.ingest = plan.servers.pub, plan.servers.rpc, plan.servers.ingest
        else:
            self._start(plan.durability)
        with Sockets() as sockets:
            health = Requester(sockets, self.rpc).ask(messages.health_request)
        self.store_id: int = health.store_id
        self.epoch: int = health.epoch

    def _start(self, durability: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="flux-loadgen-")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flux.cli.main", "serve", "--data", self._folder),
                *("--pub", _ANY, "--rpc", _ANY, "--ingest", _ANY, "--durability", durability),
            ],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C reaches the parent alone
        )
        assert self._process.stdout is not None
        output = select.poll()
        output.register(self._process.stdout, select.POLLIN)
        said = self._process.stdout.readline().split() if output.poll(READY_S * 1_000) else []
        if "ready" not in said:
            self.__exit__(None, None, None)
            raise FluxError("the server did not get ready")
        self.pub, self.rpc, self.ingest = (said[said.index(name) + 1] for name in ("pub", "rpc", "ingest"))

    @property
    def started(self) -> bool:
        """Whether it was started here."""
        return self._process is not None

    def cpu_s(self) -> float:
        """CPU seconds it used so far, all threads; 0 for one that was not started here."""
        if self._process is None:
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_S

    def committed(self, source: str, run: int, rows: int) -> int:
        """Rows of the run that its journal has, waiting a while until they are `rows`."""
        deadline = time.monotonic() + COMMIT_S
        with Sockets() as sockets:
            requester = Requester(sockets, self.rpc)
            while True:
                reply: Any = requester.ask(messages.source_position_request, source_id=source, run=run)
                if reply.committed >= rows or time.monotonic() > deadline:
                    return int(reply.committed)
                time.sleep(ASK_EVERY_S)

    def stored(self, source: str) -> int | None:
        """Stop it, and count the rows of the source in its database; None for one that was not started here."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_S)
        store = DuckStore(Path(self._folder) / "flux.duckdb", self.store_id)
        try:
            ids = [number for number, key in store.streams().items() if key.source_id == source]
            heads = store.heads()
            return sum(heads[number].last_sequence for number in ids)
        finally:
            store.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

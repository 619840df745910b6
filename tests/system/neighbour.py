"""An honest neighbour: a feed and a client that must be served whatever others do, and a process's memory."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import flux
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.model import StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer, wait_until

GOOD: StreamKey = StreamKey("GOOD", "NEIGHBOUR", "1m")
ROWS = 50_000
PACE_S = 0.005


def memory(pid: int) -> int:
    """Bytes of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4_096


class Neighbour:
    """While the block lasts rows are sent, followed, and health is asked for; at its end all of them are there."""

    def __init__(self, server: FluxServer) -> None:
        self._server = server
        self._stopping = threading.Event()
        self.sent = 0
        self.got = 0
        self.asked = 0
        self.wrong = ""
        self._live = flux.Live(pub=server.pub, rep=server.rpc)
        self._live.subscribe(GOOD.symbol, interval=GOOD.interval, source=GOOD.source_id, start="oldest")
        self._threads = [threading.Thread(target=run) for run in (self._send, self._follow, self._ask)]

    def _send(self) -> None:
        rows = candles(ROWS, 1)
        with Feed(GOOD.source_id, ingest=self._server.ingest, chunk_rep=self._server.rpc) as feed:
            while not self._stopping.wait(PACE_S) and self.sent < ROWS:
                feed.send(GOOD.symbol, GOOD.interval, rows[self.sent : self.sent + 1])
                self.sent += 1
            feed.flush(PATIENCE_S)

    def _follow(self) -> None:
        for batch in self._live:
            if batch.start_sequence != self.got + 1:
                self.wrong = f"{batch.start_sequence} came after {self.got}"
            self.got += len(batch)

    def _ask(self) -> None:
        with Sockets() as sockets:
            requester = Requester(sockets, self._server.rpc)
            while not self._stopping.wait(PACE_S):
                if not requester.ask(messages.health_request, timeout=PATIENCE_S).ok:
                    self.wrong = "the server's health is bad"
                self.asked += 1

    def __enter__(self) -> Neighbour:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.got > 0 and self.asked > 0, "the neighbour is not served at all")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = self.got, self.asked
        try:
            if error is None:
                wait_until(
                    lambda: self.got > before[0] and self.asked > before[1],
                    "the neighbour is no longer served",
                )
        finally:
            self._stopping.set()
            self._threads[0].join(PATIENCE_S)
            if error is None:
                wait_until(lambda: self.got == self.sent, f"{self.got} of {self.sent} rows came")
            with self._live:
                self._live.stop()
            for thread in self._threads:
                thread.join(PATIENCE_S)
        if error is None:
            assert not self.wrong, self.wrong

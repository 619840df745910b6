"""The server: starts its threads in the order of `recover.py`, and stops them so that nothing is lost.

thread      owns                               waits for
loop        PULL socket, streams, sequencer    messages, inputs, room
committer   journal, PUB socket                groups, and the heartbeats that it sends
heart       nothing: makes the heartbeats      every second
projector   the store's writer                 committed groups
requests    ROUTER socket, a store reader      requests

While the committer waits, the loop may take its place for a few rows (`ext/exchange.h`: borrow). The projector's
thread has the lowest priority; those that carry rows have short slices (`flux/slices.py`).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final

from flux.config import ServeConfig
from flux.errors import DamagedError, FluxError, StorageError
from flux.journal import Past
from flux.journal.records import Position, StreamRecord
from flux.model import RowKind, State
from flux.server.memory import Connections, MemoryWatch
from flux.server.pipeline.claims import Claims
from flux.server.pipeline.committer import Committer, Faults
from flux.server.pipeline.exchange import Exchange
from flux.server.pipeline.inputs import ReplayInput, open_replay, pacing_of
from flux.server.pipeline.loop import INGEST_OWNER, Loop
from flux.server.pipeline.sessions import Runs
from flux.server.requests.answers import Answers
from flux.server.requests.live_view import LiveView, Watched
from flux.server.requests.router import Requests
from flux.server.storage.projection import Projector, without_database
from flux.server.storage.recover import recover
from flux.server.storage.warm import warm
from flux.server.vitals import Vitals
from flux.server.watch import DIRECTORY, Watch
from flux.slices import short_slices
from flux.store.projection import Persisted
from flux.threads import WatchedThread
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Socket, Sockets, Wake, endpoint_of

_LOG = logging.getLogger("flux.server")

STOP_S: Final = 5.0
SWITCH_INTERVAL_S: Final = 0.0001  # a loop that gave up the GIL gets it back this soon


class Server:
    """A running server; the object is made stopped.

    `start` raises what recovery and binding raise (InUseError, DataError, ConfigError, StorageError, SourceFileError)
    and leaves nothing behind. Afterwards `failure` is what ended it early, if anything did.
    """

    def __init__(self, config: ServeConfig, *, faults: Faults | None = None) -> None:
        self._config = config
        self._faults = faults
        self._threads: list[WatchedThread] = []
        self._stopping = False
        self._inputs: list[ReplayInput] = []
        self._ended = threading.Event()
        self.failure: BaseException | None = None
        self.left_open = False
        """A thread did not end in time: what it uses is open until the process ends."""
        self.vitals = Vitals()
        self._stored: Persisted = {}

    def start(self) -> None:
        """Recover, warm, open all that takes a descriptor, and only then listen; beat, and take rows in last."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        with short_slices():  # libzmq's threads too: those that compute take the usual one themselves
            self._start()

    def _start(self) -> None:
        config = self._config
        self._sockets = Sockets(insecure=config.insecure)
        self._wake = Wake()
        try:
            self._recovered = recover(
                config.data,
                disk=config.durability == "disk",
                file_bytes=config.journal_file_bytes,
                ready=self._make_ready,
            )
        except BaseException:
            self._sockets.close()
            self._wake.close()
            raise
        try:
            for name, state, reason in self._recovered.conditions:
                self.vitals.set(name, state, reason)
            self.streams = Streams()
            self._warm()
            self._assemble()
            self._add_inputs()
            self._listen()
        except BaseException:
            self._release()
            raise
        self._spawn("memory", self.memory.run)  # first: from here on peers take descriptors
        self._spawn("projector", self.projector.run)
        self._spawn("committer", self.committer.run)
        self._spawn("heart", lambda: self.committer.heart.run(self._look))
        self.committer.heart.begun.wait(STOP_S)
        self._requests.start()
        self._spawn("loop", self.loop.run)
        for source in self._inputs:
            source.start()

    def _make_ready(self, positions: Mapping[str, Position]) -> None:
        """Open the files to replay, and hold the ports: what can refuse a start comes before anything of it is
        written. Nobody is let in yet."""
        config = self._config
        self._sources = [open_replay(replay, config.source_id) for replay in config.replays]
        for source in self._sources:
            if source.name in positions:
                source.resume(*positions[source.name])
        self._publisher = self._sockets.publisher(config.live_pub, listen=False)
        self._puller: Socket | None = None
        if config.ingest is not None:
            self._puller = self._sockets.puller(config.ingest, listen=False)
        self._router = self._sockets.router(config.chunk_rep, listen=False)

    def _listen(self) -> None:
        """Let peers in: those that waited come at once, and each takes a descriptor."""
        self._sockets.listen()
        self.live_pub = endpoint_of(self._publisher.socket)
        self.chunk_rep = endpoint_of(self._router)
        self.ingest: str | None = None if self._puller is None else endpoint_of(self._puller)

    def _warm(self) -> None:
        """Slots for the streams that recovery found, with their last rows in the rings."""
        found = self._recovered.streams
        heads = sorted(found.items())
        for number, head in heads:
            self.streams.add(head.stream.key, stream_id=number)
        warm(self._config.data, self._recovered.journal.position, self.streams, found)
        lowest = self._lowest() if heads else {}
        for slot, (number, head) in enumerate(heads):
            self.streams.ring(slot).keep = head.head
            self.streams.kernel.restore(slot, head.head, head.latest_ts, head.highest, lowest.get(number))

    def _lowest(self) -> dict[int, int]:
        """The lowest time or trade id (as the signed number of its bits) of each stream; none where the database does
        not read, or has not all rows up to the stream's head in the journal: then what is older than the rings is taken
        for possibly seen."""
        store, streams = self._recovered.store, self._recovered.streams
        try:
            heads, found = store.heads(), store.lowest(RowKind.CANDLE) | store.lowest(RowKind.TRADE)
        except (StorageError, DamagedError) as error:
            self._store_read(error)
            return {}
        self._stored.update((number, head.last_sequence) for number, head in heads.items())
        whole = {
            number
            for number, head in streams.items()
            if number in heads and heads[number].last_sequence == head.head
        }
        return {
            number: low if low < 2**63 else low - 2**64 for number, low in found.items() if number in whole
        }

    def _assemble(self) -> None:
        config, recovered, puller = self._config, self._recovered, self._puller
        self._exchange = Exchange()
        self._runs = runs = Runs(Receiver(puller, self.streams, server=True))
        self._claims = Claims(self._wake.set)
        records = {number: recovered.streams[number].stream for number in sorted(recovered.streams)}
        self.committer = Committer(
            identity=recovered.identity,
            journal=recovered.journal,
            fence=recovered.fence,
            publisher=self._publisher,
            streams=self.streams,
            exchange=self._exchange,
            vitals=self.vitals,
            runs=runs,
            records=records,
            sources=recovered.sources,
            disk=config.durability == "disk",
            failed=self._failed,
            faults=self._faults,
        )
        self.loop = Loop(
            identity=recovered.identity,
            streams=self.streams,
            runs=runs,
            exchange=self._exchange,
            vitals=self.vitals,
            wake=self._wake,
            puller=puller,
            next_stream_id=max(records, default=0) + 1,
            positions=recovered.sources,
            claims=self._claims,
        )
        self.vitals.also_turned = self.loop.turned_ns
        self.projector = Projector(
            projection=recovered.projection,
            store=recovered.store,
            committer=self.committer,
            vitals=self.vitals,
            persisted=self._persisted,
        )
        self._watch = Watch(
            config.data,
            lock=recovered.lock,
            journal=recovered.journal,
            losses=recovered.losses,
            identity=recovered.identity,
            vitals=self.vitals,
        )
        self._bind_requests(records, [self._publisher.socket, *([puller] if puller is not None else [])])

    def _bind_requests(self, records: dict[int, StreamRecord], ports: list[Socket]) -> None:
        recovered = self._recovered
        self._view = LiveView(
            identity=recovered.identity,
            streams=self.streams,
            records=records,
            committer=self.committer,
            runs=self._runs,
            claims=self._claims,
            vitals=self.vitals,
            losses=recovered.losses,
            past=Past(self._config.data, lambda: self.committer.committed),
            projected=lambda: recovered.projection.position,
            stored=self._stored,
        )
        self._requests = Requests(
            self._sockets,
            self._router,
            Answers(self._view),
            Watched(recovered.store, self._store_read),
            failed=self._failed,
        )
        ports.append(self._requests.socket)
        self.memory = MemoryWatch(
            Connections([self._sockets.comings(port) for port in ports]),
            self.vitals,
            lambda: len(self.streams),
        )

    def _add_inputs(self) -> None:
        for number, (replay, source) in enumerate(zip(self._config.replays, self._sources, strict=True)):
            opened = ReplayInput(
                source,
                INGEST_OWNER + 1 + number,
                self.loop.ring_rows(source.key),
                pacing_of(replay),
                1 if replay.tick_s is None else replay.batch_rows,
                self._wake,
                self._input_ended,
            )
            self.loop.add_input(opened)
            self._inputs.append(opened)

    # ------------------------------------------------------------------ while it runs

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it ended by itself within `timeout` seconds: then `failure` says why."""
        return self._ended.wait(timeout)

    def _look(self) -> None:
        self.loop.look()
        self._watch.look()

    def counts(self) -> dict[str, int]:
        """Everything that was received, sent, answered or dropped since the start, by what became of it."""
        found = {f"ingest_{name}": n for name, n in self.loop.counters.items()}
        found |= {f"live_{name}": n for name, n in asdict(self.committer.counts).items()}
        found["dropped_for_memory"] = self.memory.dropped
        found["dropped_for_descriptors"] = self.memory.descriptors.dropped
        found |= {f"requests_{name}": n for name, n in asdict(self._requests.counts).items()}
        found["requests_cursor_ahead"] = self._view.cursors_ahead
        return found

    @property
    def inputs(self) -> list[ReplayInput]:
        """The files that are replayed, as they were given."""
        return list(self._inputs)

    def inputs_finished(self) -> bool:
        """Whether every replayed file was taken to its end (its last rows may still be on their way)."""
        return all(source.finished for source in self._inputs)

    def _persisted(self, persisted: Persisted) -> None:
        self._stored.update(persisted)

    def _store_read(self, error: FluxError | None) -> None:
        """A request read the database, or could not. Damage stays: other blocks that read say nothing of it."""
        if isinstance(error, DamagedError):
            self.vitals.set("database", State.DEGRADED, without_database(self._config.data, error))
        elif error is not None:
            self.vitals.set("reading", State.DEGRADED, without_database(self._config.data, error))
        else:
            self.vitals.clear("reading")

    def _input_ended(self, source: ReplayInput) -> None:
        if source.error is None:
            _LOG.info("%s: replayed to its end", source.name)
        else:
            self._failed(source.error)

    def _failed(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            self.vitals.set("failure", State.UNHEALTHY, f"the server stops: {type(error).__name__}: {error}")
        _LOG.error("the server stops: %s", error)
        self._ended.set()

    def _spawn(self, name: str, body: Callable[[], None]) -> None:
        thread = WatchedThread(
            body, name=f"flux {name}", failed=self._failed, wanted=lambda: not self._stopping
        )
        thread.start()
        self._threads.append(thread)

    # ------------------------------------------------------------------ the end

    def stop(self) -> None:
        """Stop ingest, drain, sync, say goodbye: within 5 s. What is not projected by then, the next start projects."""
        self._stopping = True
        deadline = time.monotonic() + STOP_S

        def left() -> float:
            return max(0.1, deadline - time.monotonic())

        for source in self._inputs:
            source.stop()
        self.loop.stop()
        memory, projector, committer, heart, loop = self._threads
        loop.join(left())
        self.memory.stop()  # before a port is closed, and with it what it hears of connections
        memory.join(left())
        answered = self._requests.stop(left())
        self.committer.heart.stop()
        heart.join(left())
        self.committer.close()
        committer.join(left())
        self.projector.stop()
        projector.join(left())
        if self.failure is None and self.vitals.has(DIRECTORY):
            self.failure = StorageError("what was taken in last is lost: the data directory is gone")
        _LOG.info("counted: %s", ", ".join(f"{name} {n}" for name, n in self.counts().items() if n))
        running = [thread.name for thread in self._threads if thread.is_alive()]
        if running or not answered:
            # What they were lent stays open: the next file opened would get the number of one that was closed.
            self.left_open = True
            late = ", ".join(running if answered else [*running, "the requests"])
            disk = ": does the disk stand still?" if committer.is_alive() or projector.is_alive() else "."
            self._failed(
                StorageError(
                    f"{late} did not end within {STOP_S:g} s{disk} What was acknowledged is in the journal"
                )
            )
        else:
            self._release()
        self._ended.set()

    def _release(self) -> None:
        recovered = self._recovered
        self._sockets.close()
        self._wake.close()
        recovered.journal.close(clean=False)
        recovered.fence.close()
        recovered.store.close()
        recovered.projected.close()
        recovered.lock.release()

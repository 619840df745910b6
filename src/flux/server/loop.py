"""The server's loop: receive, sequence, record. A handful of calls per turn, whatever the number of messages.

    PULL socket ─┐                          ┌─► rings
    inputs ──────┴─► inbox ─► sequencer ─► record
                                            └─► group ─► committer

It owns the table of streams and the feeds' positions as recorded. It waits for messages or a wake-up, for room in a
group, or, when a ring is full of rows that the store does not have yet, for the projection: then its inputs wait too.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from flux import journal, limits
from flux.errors import InvalidNameError
from flux.model import NO_RUN, StreamKey
from flux.protocol.sequencer import Sequencer, refusal
from flux.server.inputs import ReplayInput
from flux.server.records import Position, SourceRecord, StreamRecord, feed_name, pack, remember
from flux.transport.drops import DropLog
from flux.transport.pump import Drained, Receiver, Streams, UnknownStream, record
from flux.transport.sockets import Poller, Socket, Wake

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.server.committer import Identity
    from flux.server.exchange import Exchange, Filled
    from flux.server.vitals import Vitals

_LOG = logging.getLogger("flux.server")

INGEST_OWNER: Final = 1
"""The input that every feed writes through; replayed files are owners 2 and up."""

IDLE_S: Final = 0.25
HELD_S: Final = 0.05


class Loop:
    """See the module; `run` is the thread's body, `stop` ends it after the turn it is in."""

    def __init__(
        self,
        *,
        identity: Identity,
        streams: Streams,
        exchange: Exchange,
        vitals: Vitals,
        wake: Wake,
        puller: Socket | None,
        next_stream_id: int,
        positions: dict[str, Position],
        hurry: threading.Event,
    ) -> None:
        self._identity = identity
        self._streams = streams
        self._exchange = exchange
        self._vitals = vitals
        self._wake = wake
        self._receiver = Receiver(puller, streams, server=True)
        self._puller = puller
        self._sequencer = Sequencer()
        self._inputs: deque[ReplayInput] = deque()
        self._next_stream_id = next_stream_id
        self._positions = positions
        self._hurry = hurry
        self._runs: list[str] = []
        self._unrecorded: list[StreamRecord] = []
        self._drops = DropLog(self._receiver, "ingest")
        self._refused: dict[str, Position] = {}  # runs that went on behind a refused message
        self._stopping = threading.Event()
        self._held = False
        self._more = False
        self.refusals: dict[str, int] = {}
        for slot in range(len(streams)):
            self._sequencer.add(streams.kernel.head(slot))

    # ------------------------------------------------------------------ before and after running

    def add_input(self, source: ReplayInput) -> None:
        """Take rows of this input too; it is the owner of its stream."""
        slot = self._streams.slot(source.key)
        if slot is None:
            slot = self._add_stream(source.key, source.owner)
        self._streams.kernel.own(slot, source.owner)
        self._inputs.append(source)

    def ring_rows(self, key: StreamKey) -> int:
        """Rows of the ring that this stream has, or would get."""
        slot = self._streams.slot(key)
        return limits.ring_rows(len(self._streams)) if slot is None else self._streams.ring(slot).capacity

    def stop(self) -> None:
        """End `run` after its turn; from any thread or a signal handler."""
        self._stopping.set()
        self._wake.set()

    @property
    def counters(self) -> dict[str, int]:
        """What was received and what became of it, since the start."""
        return self._receiver.counters | {f"refused_{why}": n for why, n in self.refusals.items()}

    # ------------------------------------------------------------------ turns

    def run(self) -> None:
        """Turn until stopped."""
        awake = Poller(self._wake)
        either = Poller(self._wake) if self._puller is None else Poller(self._wake, self._puller)
        while not self._stopping.is_set():
            if self._held:
                self._hurry.set()
                awake.wait(HELD_S)
            elif not self._more:
                either.wait(IDLE_S)
            self._wake.clear()
            self._vitals.turned()
            self._drops.look()
            if self._exchange.wait_for_room(limits.TURN_BYTES, IDLE_S):
                self._turn()

    def _turn(self) -> None:
        status = Drained.EMPTY
        if self._puller is None:
            self._receiver.kernel.begin()
        else:
            status = self._receiver.receive()[1]
        self._held = status is Drained.HELD
        self._more = status in (Drained.FULL, Drained.UNKNOWN_STREAM, Drained.UNKNOWN_RUN)
        taken = [source for source in self._inputs if self._offer(source)]
        self._inputs.rotate(-1)  # what filled the inbox this time comes last the next time
        arrivals = self._receiver.arrivals[: self._receiver.kernel.arrival_count]
        if len(arrivals) or self._unrecorded or self._refused:
            with self._exchange.fill() as filled:
                self._record(filled, arrivals, taken)
        if status is Drained.UNKNOWN_STREAM:
            self._decide_stream()
        elif status is Drained.UNKNOWN_RUN:
            self._decide_run()

    def _offer(self, source: ReplayInput) -> bool:
        """Lay the input's next chunk into the inbox, whole or not at all."""
        chunk = source.peek()
        slot = self._streams.slot(source.key)
        if chunk is None or slot is None:
            return False
        kernel = self._receiver.kernel
        if kernel.arrival_count == limits.MAX_ARRIVALS or kernel.room(slot) < len(chunk.rows):
            self._held = True
            return False
        kernel.offer(slot, np.ascontiguousarray(chunk.rows).view(np.uint8))
        self._more = True
        return True

    def _record(self, filled: Filled, arrivals: NDArray[np.void], taken: Iterable[ReplayInput]) -> None:
        for stream in self._unrecorded:
            filled.group.append(journal.STREAM, pack(stream))
            filled.streams.append(stream)
        self._unrecorded.clear()
        runs = self._sequencer.number(arrivals)
        record(
            self._streams,
            filled.group,
            self._receiver.inbox,
            runs,
            store_id=self._identity.store_id,
            epoch=self._identity.epoch,
        )
        advanced = np.unique(arrivals["run"])
        moved = self._refused | {
            self._runs[index]: (self._receiver.kernel.run_taken(index), 0)
            for index in advanced[advanced != NO_RUN].tolist()
        }
        self._refused = {}
        moved |= {source.name: source.take() for source in taken}
        for name, position in moved.items():
            filled.group.append(journal.SOURCE, pack(SourceRecord(name, position)))
        filled.sources.update(moved)
        remember(self._positions, moved)

    # ------------------------------------------------------------------ what is out of the ordinary

    def _decide_stream(self) -> None:
        unknown = self._receiver.unknown
        assert unknown is not None
        decision = refusal(unknown.key, unknown.kind, len(self._streams))
        if isinstance(decision, StreamKey):
            self._add_stream(decision, INGEST_OWNER)
            return
        why = decision.partition(":")[0]
        self.refusals[why] = self.refusals.get(why, 0) + 1
        if self.refusals[why] == 1:
            _LOG.warning("refused a stream: %s", decision)
        self._refuse(unknown)

    def _refuse(self, unknown: UnknownStream) -> None:
        """Drop the held message. A feed's rows behind it are not to wait for it: its run goes on."""
        source = unknown.key[0].decode("latin-1")
        try:
            StreamKey(source, "X", "1m").checked()
        except InvalidNameError:
            self._receiver.discard()  # no source that could have a position
            return
        index = self._receiver.kernel.find_run(unknown.key[0], unknown.store_id)
        if index is None:
            index = self._add_run(unknown)
        self._receiver.kernel.refuse(index)
        self._refused[self._runs[index]] = (self._receiver.kernel.run_taken(index), 0)

    def _decide_run(self) -> None:
        unknown = self._receiver.unknown
        assert unknown is not None
        self._add_run(unknown)

    def _add_run(self, unknown: UnknownStream) -> int:
        """Go on with a feed's run where the journal has it; the index in `_runs`."""
        name = feed_name(unknown.key[0].decode(), unknown.store_id)
        taken = self._positions.get(name, (0, 0))[0]
        index = self._receiver.kernel.add_run(unknown.key[0], unknown.store_id, taken, INGEST_OWNER)
        if index < len(self._runs):
            del self._runs[0]  # the kernel dropped its oldest, and the others moved down
        self._runs.append(name)
        return index

    def _add_stream(self, key: StreamKey, owner: int) -> int:
        slot = self._streams.add(key, stream_id=self._next_stream_id, owner=owner)
        self._streams.ring(slot).keep = 0  # nothing of it is in the store yet
        self._unrecorded.append(StreamRecord(self._next_stream_id, *key))
        self._next_stream_id += 1
        self._sequencer.add(0)
        return slot

"""The request thread: a ROUTER socket, one reply per request, and nobody waits behind a backfill.

    ROUTER ──► answer at once ──────────────────────────────────► reply
           └─► backfill ──► queue ──► from memory, one a turn ──► reply
                                └──► store's worker ──► done ──► reply

Each turn looks at what has arrived and answers everything but backfills; then one backfill is answered from
memory, and the next turn begins. What memory lacks goes to the store's worker, a thread of its own.

A reply that its peer has no room for is held until that peer reads, at most until the deadline; meanwhile
the peer's backfills are not worked on. So a peer that never reads costs the few replies in libzmq's queue
and those held. Every request ends in exactly one of `Counts`' columns.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final, Protocol

from flux.errors import DataError, StorageError
from flux.limits import (
    MAX_BACKFILL_QUEUE,
    MAX_ENVELOPE_FRAMES,
    MAX_HELD_REPLIES,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    MAX_REQUESTS_PER_PEER,
    REQUEST_DEADLINE_MS,
    REQUESTS_PER_TURN,
)
from flux.server.requests.listing import AGAIN
from flux.server.requests.view import StoreReader
from flux.slices import usual_slice
from flux.threads import WatchedThread
from flux.transport.sockets import Poller, Socket, Sockets, Wake, endpoint_of, receive, send_back

_HELD_RETRY_S: Final = 0.001
_IDLE_S: Final = 1.0
_RETRY_AFTER_MS: Final = 100


class Backfill(Protocol):
    """A request whose answer may take time."""

    def from_memory(self) -> bytes | None:
        """The reply, `listing.AGAIN` for another turn after the other requests, or None when the store is needed."""

    def from_store(self, store: StoreReader) -> bytes:
        """The reply; called in the worker's thread. May raise StorageError."""

    def unavailable(self, why: str, retry_after_ms: int) -> bytes:
        """The reply that says: not now."""

    def exhausted(self, why: str, retry_after_ms: int) -> bytes:
        """The reply that says: too much at once."""

    def internal(self, error: Exception) -> bytes:
        """The reply that says: a fault of the server's; the log has it."""


class Answering(Protocol):
    """What turns a request's frames into a reply (`answers.Answers`)."""

    def answer(self, body: Sequence[bytes]) -> bytes | Backfill:
        """The reply, or what has to be done for it. Raises nothing, whatever the frames hold."""


@dataclass(slots=True)
class Counts:
    """What became of the requests: received = replied + dropped_gone + dropped_full + waiting."""

    received: int = 0
    replied: int = 0  # handed to the socket
    dropped_gone: int = 0  # the peer left before its reply
    dropped_full: int = 0  # the peer did not read
    refused: int = 0  # of those replied: too many at once, too late or closing
    from_store: int = 0  # of those replied
    internal: int = 0  # of those replied: backfills that met a fault of the server's


@dataclass(slots=True, eq=False)
class _Job:
    """A backfill on its way. `envelope` is what the reply's frames begin with: the peer first."""

    backfill: Backfill
    envelope: list[bytes]
    deadline: float
    in_store: bool = False
    over: bool = False  # answered, by whoever came first


@dataclass(slots=True)
class _Held:
    """Replies that wait until their peer reads."""

    replies: deque[tuple[float, list[bytes]]] = field(default_factory=deque)
    bytes: int = 0


class Requests:
    """Answers requests at `endpoint`, or on a ROUTER that is bound already, from `start` until `stop`.

    `store` is read in the worker's thread, and journal with it; without one, what memory lacks is unavailable. `failed`
    is called from the thread that an unforeseen error ended.
    """

    def __init__(
        self,
        sockets: Sockets,
        endpoint: str | Socket,
        answers: Answering,
        store: StoreReader | None = None,
        *,
        failed: Callable[[BaseException], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self.sockets = sockets
        self.socket: Socket = sockets.router(endpoint) if isinstance(endpoint, str) else endpoint
        self.endpoint = endpoint_of(self.socket)
        self._answers = answers
        self._store = store
        self._failed = failed or (lambda _: None)
        self._clock = clock
        self._wake = Wake()
        self._stopping = False
        self._backlog: deque[_Job] = deque()  # not looked for yet
        self._jobs: set[_Job] = set()  # unanswered: those in the backlog and those at the store
        self._per_peer: dict[bytes, int] = {}
        self._held: dict[bytes, _Held] = {}
        self._to_store: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[_Job, bytes]] = deque()
        self._threads = [
            WatchedThread(run, name=name, failed=self._failed, wanted=lambda: not self._stopping)
            for run, name in ((self._run, "flux requests"), (self._work, "flux store"))
        ]

    @property
    def waiting(self) -> int:
        """Requests received and not yet answered: backfills, and replies held for peers that do not read."""
        return len(self._jobs) + sum(len(held.replies) for held in list(self._held.values()))

    def start(self) -> None:
        """Begin to answer. The socket belongs to the request thread from here on."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Refuse what still waits, close the socket and end both threads; whether they ended within `timeout` seconds
        each."""
        self._stopping = True
        self._wake.set()
        self._to_store.put(None)
        for thread in self._threads:
            thread.join(timeout)
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended:
            self._wake.close()
        return ended

    # The store's worker

    def _work(self) -> None:
        usual_slice()
        while (job := self._to_store.get()) is not None:
            if not job.over:
                self._done.append((job, self._read(job.backfill)))
                self._wake.set()

    def _read(self, backfill: Backfill) -> bytes:
        if self._store is None:
            return backfill.unavailable("these rows are no longer in memory, and there is no store", 0)
        try:
            return backfill.from_store(self._store)
        except (StorageError, DataError) as error:
            return backfill.unavailable(f"the store cannot be read: {error}", _RETRY_AFTER_MS)
        except Exception as error:  # whatever it was, it is this peer's answer and nobody's end
            return self._internal(backfill, error)

    def _internal(self, backfill: Backfill, error: Exception) -> bytes:
        self.counts.internal += 1
        return backfill.internal(error)

    # The request thread

    def _run(self) -> None:
        poller = Poller(self.socket, self._wake)
        try:
            while not self._stopping:
                if self._wake in poller.wait(self._patience()):
                    self._wake.clear()
                self._take()
                self._finish()
                self._from_memory()
                self._expire()
                self._retry_held()
            for job in list(self._jobs):
                self._refuse(job, job.backfill.unavailable("the server is closing", _RETRY_AFTER_MS))
            self._retry_held()
            for peer in list(self._held):
                self._drop_held(peer, gone=False)
        finally:
            self.sockets.release(self.socket)

    def _patience(self) -> float:
        if any(self._ready(job) for job in self._backlog):
            return 0.0
        if self._held:
            return _HELD_RETRY_S
        if self._jobs:
            first = min(job.deadline for job in self._jobs)
            return min(_IDLE_S, max(0.0, first - self._clock()))
        return _IDLE_S

    def _take(self) -> None:
        for _ in range(REQUESTS_PER_TURN):
            if self._stopping or (frames := receive(self.socket)) is None:
                return
            self.counts.received += 1
            envelope, body = split(frames)
            answer = self._answers.answer(body)
            if isinstance(answer, bytes):
                self._reply(envelope, answer)
            else:
                self._enqueue(envelope, answer)

    def _enqueue(self, envelope: list[bytes], backfill: Backfill) -> None:
        peer = envelope[0]
        if self._per_peer.get(peer, 0) >= MAX_REQUESTS_PER_PEER:
            why = f"{MAX_REQUESTS_PER_PEER} backfills are waiting already"
        elif len(self._jobs) >= MAX_BACKFILL_QUEUE:
            why = f"{MAX_BACKFILL_QUEUE} backfills of all clients are waiting already"
        else:
            job = _Job(backfill, envelope, self._clock() + REQUEST_DEADLINE_MS / 1_000)
            self._jobs.add(job)
            self._per_peer[peer] = self._per_peer.get(peer, 0) + 1
            self._backlog.append(job)
            return
        self.counts.refused += 1
        self._reply(envelope, backfill.exhausted(why, _RETRY_AFTER_MS))

    def _ready(self, job: _Job) -> bool:
        return job.envelope[0] not in self._held

    def _from_memory(self) -> None:
        """Answer the oldest backfill whose peer reads its replies, or hand it to the worker."""
        job = next((job for job in self._backlog if self._ready(job)), None)
        if job is None:
            return
        self._backlog.remove(job)
        try:
            reply = job.backfill.from_memory()
        except Exception as error:  # as in _read
            reply = self._internal(job.backfill, error)
        if reply is None:
            job.in_store = True
            self._to_store.put(job)
        elif reply == AGAIN:
            self._backlog.append(job)
        else:
            self._settle(job, reply)

    def _finish(self) -> None:
        while self._done:
            job, reply = self._done.popleft()
            if not job.over:
                self.counts.from_store += 1
                self._settle(job, reply)

    def _expire(self) -> None:
        now = self._clock()
        for job in [job for job in self._jobs if job.deadline <= now]:
            if not job.in_store:
                self._backlog.remove(job)
            self._refuse(
                job, job.backfill.unavailable("no time for this within the deadline", _RETRY_AFTER_MS)
            )

    def _refuse(self, job: _Job, reply: bytes) -> None:
        self.counts.refused += 1
        self._settle(job, reply)

    def _settle(self, job: _Job, reply: bytes) -> None:
        job.over = True
        self._jobs.remove(job)
        peer = job.envelope[0]
        self._per_peer[peer] -= 1
        if not self._per_peer[peer]:
            del self._per_peer[peer]
        self._reply(job.envelope, reply)

    # Replies

    def _reply(self, envelope: list[bytes], reply: bytes) -> None:
        frames = [*envelope, reply]
        peer = envelope[0]
        held = self._held.get(peer)
        sent = False if held is not None else send_back(self.socket, frames)
        if sent:
            self.counts.replied += 1
        elif sent is None:
            self.counts.dropped_gone += 1
        else:
            self._hold(peer, frames)

    def _hold(self, peer: bytes, frames: list[bytes]) -> None:
        held = self._held.setdefault(peer, _Held())
        size = len(frames[-1])
        if len(held.replies) >= MAX_HELD_REPLIES or held.bytes + size > MAX_REPLY_BYTES:
            self.counts.dropped_full += 1
            return
        held.replies.append((self._clock() + REQUEST_DEADLINE_MS / 1_000, frames))
        held.bytes += size

    def _retry_held(self) -> None:
        now = self._clock()
        for peer, held in list(self._held.items()):
            while held.replies:
                until, frames = held.replies[0]
                sent = send_back(self.socket, frames)
                if sent is None:
                    self._drop_held(peer, gone=True)
                    break
                if sent:
                    self.counts.replied += 1
                elif until <= now:
                    self.counts.dropped_full += 1
                else:
                    break
                held.replies.popleft()
                held.bytes -= len(frames[-1])
            if not held.replies:
                self._held.pop(peer, None)

    def _drop_held(self, peer: bytes, *, gone: bool) -> None:
        held = self._held.pop(peer)
        if gone:
            self.counts.dropped_gone += len(held.replies)
        else:
            self.counts.dropped_full += len(held.replies)
        held.replies.clear()


def split(frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """A ROUTER's message as (what the reply begins with, the request's own frames).

    A REQ peer puts an empty delimiter before its request, a DEALER may; routers on the way put their own
    peers before that. The reply begins as the request did.
    """
    try:
        at = frames.index(b"", 1, min(len(frames) - 1, MAX_ENVELOPE_FRAMES))
    except ValueError:
        at = 0
    if sum(map(len, frames[: at + 1])) > MAX_REQUEST_BYTES:
        at = 0  # it would wait in memory with the request: what is left is no request, and is told so
    return frames[: at + 1], frames[at + 1 :]

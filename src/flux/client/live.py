"""`flux.Live`: follow streams from Python, as an iterator, an async iterator or by callbacks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from flux.batch import Batch
from flux.client.callbacks import BatchCallback, ExceptionCallback, GapCallback, StateCallback, guarded
from flux.client.consuming import Consumer
from flux.client.deliver import Handover, LiveStatus, Notices
from flux.client.keeper import Keeper
from flux.client.loop import Loop
from flux.client.starting import Begin, TimeStart, begin_of
from flux.client.waiting import until
from flux.client.warmup import OnCacheError, Warmup, past
from flux.config import DEFAULT_SOURCE_ID, endpoints, value
from flux.errors import ConfigError, FluxError, NotFoundError
from flux.model import StreamKey
from flux.protocol.stream_state import StreamState
from flux.threads import WatchedThread
from flux.transport.forked import OfOneProcess, ending
from flux.transport.sockets import Wake

T = TypeVar("T")

CALL_TIMEOUT_S: Final = 30.0  # the loop turns far more often; a machine that is stalled is no fault of it


class Live(OfOneProcess):
    """Follows streams of one server: each row once, in order, repaired, also over restarts of either side.

    `pub` and `rep` are the server's endpoints (default: FLUX_LIVE_PUB, FLUX_CHUNK_REP, else this machine's).
    `cache`: a file that keeps the rows of every stream that is followed and, per stream, how far the consumer has
    come (`ack`), for `start="cache"`. One that is in use elsewhere, damaged, not writable, or no cache raises
    `InUseError`, `DataError` or `ConfigError`; with `on_cache_error="without"` the client goes on without a cache,
    which is logged once, and `start="cache"` then begins as "oldest".

    Batches come by iteration (`for`, `async for`), or to callbacks in a thread of their own; not by both. `with` and
    `async with` close it; one that is left in the middle of a loop without them has the cache until `stop` and
    `block_for_close` (`wait_for_close`). A
    consumer that does not ask for the next batch holds back its streams, at bounded cost, and loses nothing. In a
    process that was forked since it was made every call raises `FluxError`.
    """

    def __init__(
        self,
        *,
        cache: str | Path | None = None,
        on_cache_error: OnCacheError = "raise",
        pub: str | None = None,
        rep: str | None = None,
    ) -> None:
        if on_cache_error not in ("raise", "without"):
            raise ConfigError(f"on_cache_error is 'raise' or 'without', not {on_cache_error!r}")
        without = self._without = on_cache_error == "without"
        self._has_cache = cache is not None
        self._rep = rep
        self._keeper = None if cache is None else Keeper.open(Path(cache), without=without)
        self._wake = Wake()
        self._handover = Handover(self._wake.set)
        self._notices = Notices()
        self._loop = Loop(endpoints(pub, rep), self._handover, self._notices, self._wake, self._keeper)
        if self._keeper is not None:
            loop = self._loop
            self._keeper.when_broken(lambda error: loop.post(partial(loop.broke, error)))
            weakref.finalize(self, self._keeper.leave).atexit = False
        self._threads: list[WatchedThread] = []
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._consumer = Consumer(self._handover, self._keeper, self._ended.is_set)
        self._ended_waiters: list[Callable[[], None]] = []
        self._callbacks: list[tuple[BatchCallback, ExceptionCallback | None]] = []
        self._state_callbacks: list[StateCallback] = []
        self._running = False
        self._failure: FluxError | None = None

    # -- what to follow --------------------------------------------------------------------------------------

    def subscribe(
        self,
        symbols: str | Iterable[str],
        *,
        interval: str,
        source: str | None = None,
        start: Begin = None,
        warmup: Warmup | None = None,
    ) -> None:
        """Follow `symbols` (one, several, or "*" for all there are and will be) of a source and an interval.

        `start`: None (from now on), "cache" (after what this consumer was done with, nothing older; without a cache
        entry as "oldest"), "oldest" (all that the server keeps), a sequence (an int), or a time (a text, a datetime
        ...: see `flux.units`), for which the server is asked here and now, with what `Historical` raises. `warmup`,
        with `start="cache"`: so many rows, "1d" (back from the newest cached row; s, m, h, d, w) or "all" of what the
        cache has come first, at once, without the server, as batches with `cached` True: for what a consumer has to
        know again before it goes on, not for what it acts on. A stream that is followed already is left alone. Raises
        `InvalidNameError` for names outside the grammar, `ConfigError` for another `start` or `warmup`, and for
        `start="cache"` without a cache.
        """
        begin = begin_of(start)
        if begin == "cache" and not self._has_cache:
            raise ConfigError("start='cache' needs a cache: Live(cache=FILE)")
        if warmup is not None and begin != "cache":
            raise ConfigError(f"warmup goes with start='cache', not with {start!r}")
        wanted = past(warmup)
        given, source = source, value(source, "SOURCE_ID", DEFAULT_SOURCE_ID)
        if given is None:
            self._loop.assumed_source = source
        for symbol in [symbols] if isinstance(symbols, str) else symbols:
            if symbol == "*":
                StreamKey(source, "ANY", interval).checked()
                if isinstance(begin, TimeStart):
                    raise ConfigError("a time to start at needs the names of the streams, not '*'")
                self._post(partial(self._loop.follow_all, source, interval, begin, wanted))
            else:
                key = StreamKey(source, symbol, interval).checked()
                at = begin.sequence(key, self._rep) if isinstance(begin, TimeStart) else begin
                self._post(partial(self._loop.follow, key, at, wanted))

    def resync(self, key: StreamKey | str) -> None:
        """Forget what is cached of a stream and fetch all that the server keeps. Raises `NotFoundError`."""
        slot = self._slot(key)
        self._check_goes_on()
        self._call(lambda: self._loop.resync(slot))

    # -- rows ------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        self._begin_iteration()
        return self

    def __next__(self) -> Batch:
        self._begin_iteration()
        self._consumer.done()
        while (delivery := self._consumer.take(None)) is not None:
            if (batch := self._consumer.received(delivery)) is not None:
                return batch
        raise StopIteration

    def __aiter__(self) -> AsyncIterator[Batch]:
        self._begin_iteration()
        return self

    async def __anext__(self) -> Batch:
        self._begin_iteration()
        self._consumer.done()
        while True:
            closed = self._handover.closed  # looked at first: nothing comes after it
            delivery = self._consumer.take(0)
            if delivery is not None:
                if (batch := self._consumer.received(delivery)) is not None:
                    return batch
            elif closed:
                raise StopAsyncIteration
            else:
                await until(self._handover.when_changed)

    def ack(self, batch: Batch, *, upto: int | None = None) -> None:
        """This batch, the last one given, was handled for good, or its rows up to sequence `upto` were: a restart from
        the cache goes on after them.

        Asking for the next batch says that all of this one was, and so does leaving a `with` block without an error, in
        the thread that took it, unless `upto` said otherwise. Raises `FluxError` once the cache is closed."""
        self._consumer.ack(batch, upto)

    def add_callback(
        self, callback: BatchCallback, exception_callback: ExceptionCallback | None = None
    ) -> None:
        """Have `callback(batch)` called for every batch, in order, in a thread of its own; then it is acked.

        What it raises goes to `exception_callback`, else to the log. Before `start`.
        """
        self._before_start("add_callback")
        self._callbacks.append((callback, exception_callback))

    def add_gap_callback(self, callback: GapCallback) -> None:
        """Have `callback(gap)` called, between the batches before and after it, in the thread that gets these."""
        self._check_goes_on()
        self._consumer.gap_callbacks.append(callback)

    def add_state_callback(self, callback: StateCallback) -> None:
        """Have `callback(change)` called when a stream's state changes, in its own thread. Before `start`."""
        self._before_start("add_state_callback")
        self._state_callbacks.append(callback)

    def status(self, key: StreamKey | str) -> LiveStatus:
        """Where a stream stands; FAILED, with the reason, once something ended this Live. Raises `NotFoundError` if the
        stream is not followed."""
        slot = self._slot(key)
        found = self._call(lambda: self._loop.status(slot))
        if self._failure is not None:
            return replace(found, state=StreamState.FAILED, reason=str(self._failure))
        if (
            self._without
            and not found.reason
            and self._keeper is not None
            and self._keeper.failure is not None
        ):
            return replace(found, reason=f"without the cache: {self._keeper.failure}")
        return found

    def counters(self) -> dict[str, int]:
        """Messages and rows received since the start, and what was dropped, by reason (`checksum`, `verify`, ...).
        Drops are logged too, each reason at most once a second."""
        return self._call(lambda: self._loop.counters)

    def keys(self) -> list[StreamKey]:
        """The streams that are followed by now."""
        return self._call(lambda: self._loop.streams.keys())

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and receive; iterating does the same. A second call does nothing."""
        with self._lock:
            if self._running or self._ended.is_set():
                return
            self._running = True
            self._spawn("flux-live", self._run)
            if self._callbacks:
                self._spawn("flux-callbacks", self._run_callbacks)
            if self._state_callbacks:
                self._spawn("flux-states", self._run_state_callbacks)

    @ending
    def stop(self) -> None:
        """End: no more is received, consumers get what is there already. From any thread; does not wait."""
        self._finish(drain=True)

    @ending
    def terminate(self) -> None:
        """End at once: what was not taken yet is dropped (and comes again after a restart from the cache)."""
        self._finish(drain=False)

    def block_for_close(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, at most `timeout` seconds; False when it has not. Raises what ended it.

        The cache is closed by then if no other thread takes batches; else once that one has taken the last."""
        if not self._ended.wait(timeout):
            return False
        self._raise_failure()
        return True

    async def wait_for_close(self) -> None:
        """`block_for_close` for event loops."""
        await until(self._when_ended)
        self._raise_failure()

    def _raise_failure(self) -> None:
        """What ended it, or the cache after its last ack."""
        self._consumer.let_go(leaving=True)
        if self._failure is None and self._keeper is not None and not self._without:
            self._failure = self._keeper.failure
        if self._failure is not None:
            self._handover.told = True
            raise self._failure

    def __enter__(self) -> Self:
        return self

    @ending
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # who left because of one is not done with the batch
            self._consumer.leave()
        self.terminate()
        self._close(raising=error is None)

    async def __aenter__(self) -> Self:
        return self

    @ending
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `with`; the event loop goes on while the threads end and the cache is closed."""
        if error is None:
            self._consumer.leave()
        self.terminate()
        await asyncio.to_thread(self._close, raising=error is None)

    def _close(self, *, raising: bool) -> None:
        """Wait until all has ended, and give back what it had; `raising`: also that the cache has not the last acks."""
        for thread in self._threads:
            thread.join()
        self._wake.close()
        if self._keeper is not None:
            self._keeper.close()
            if raising and not self._without and self._keeper.failure is not None and not self._handover.told:
                self._raise_failure()

    # -- threads ---------------------------------------------------------------------------------------------

    def _spawn(self, name: str, run: Callable[[], None]) -> None:
        thread = WatchedThread(run, name=name, failed=self._thread_failed)
        self._threads.append(thread)
        thread.start()

    def _thread_failed(self, error: BaseException) -> None:
        """One of its threads met a fault of ours: that is this object's failure, and consumers get it."""
        if self._failure is None:
            self._failure = FluxError(f"a thread of this Live ended: {type(error).__name__}: {error}")
            self._failure.__cause__ = error
        self._handover.close(self._failure)
        self._finish(drain=False)

    def _run(self) -> None:
        try:
            self._failure = self._loop.run() or self._failure  # another thread's fault ends the loop, too
        except BaseException as error:
            self._thread_failed(error)
            raise
        finally:
            with self._lock:
                self._ended.set()
                waiters, self._ended_waiters = self._ended_waiters, []
            self._wake.close()
            self._consumer.let_go()
            for waiter in waiters:
                waiter()

    def _run_callbacks(self) -> None:
        # What ended it is raised by block_for_close and wait_for_close.
        with contextlib.suppress(FluxError):
            while (delivery := self._consumer.take(None)) is not None:
                batch = self._consumer.received(delivery)
                if batch is not None:
                    for callback, exception_callback in self._callbacks:
                        guarded(callback, batch, exception_callback)
                    self._consumer.done()

    def _run_state_callbacks(self) -> None:
        while (change := self._notices.take()) is not None:
            for callback in self._state_callbacks:
                guarded(callback, change, None)

    def _finish(self, *, drain: bool) -> None:
        with self._lock:
            if self._running:
                self._loop.stop(drain)
                return
            waiters, self._ended_waiters = self._ended_waiters, []
            self._ended.set()
        self._handover.close()
        self._notices.close()
        self._wake.close()
        self._consumer.let_go()
        for waiter in waiters:
            waiter()

    # -- small things ----------------------------------------------------------------------------------------

    def _begin_iteration(self) -> None:
        if self._callbacks:
            raise FluxError("batches go to the callbacks: iterate, or add callbacks, not both")
        self.start()

    def _before_start(self, what: str) -> None:
        if self._running or self._ended.is_set():
            raise FluxError(f"{what} comes before start")

    def _slot(self, key: StreamKey | str) -> int:
        key = StreamKey.parse(key) if isinstance(key, str) else key
        slot = self._call(lambda: self._loop.coordinator.slot(key))
        if slot is None:
            raise NotFoundError(f"{key} is not followed")
        return slot

    def _check_goes_on(self) -> None:
        if self._ended.is_set():
            raise FluxError("this Live has ended")

    def _post(self, act: Callable[[], None]) -> None:
        self._check_goes_on()
        self._loop.post(act)

    def _call(self, act: Callable[[], T]) -> T:
        """What `act` gives in the loop's thread; here, while or after there is none."""
        if not self._running:
            return act()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(act())
            except Exception as error:  # raised where it was asked for
                future.set_exception(error)

        self._loop.post(run, after_end=True)
        return future.result(CALL_TIMEOUT_S)

    def _when_ended(self, waiter: Callable[[], None]) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._ended_waiters.append(waiter)
                return
        waiter()

"""The codec across processes: frames lie in shared memory, workers decode them where they lie, nothing is copied.

    python -m flux.examples.multiprocess_worker

    parent                         one block of shared memory                         workers (spawn)
    encode(out=slot) ────────────► │ slot 0 │ slot 1 │ ... │ slot 7 │ ◄──────── decode(slot): rows are a view
         │                                                                                ▲     │
         └── (slot, size) ────────────────────── a few bytes by pipe ─────────────────────┘     │
         ◄───────────────────────────────── the summary, plain numbers ─────────────────────────┘

Who owns what:

- The block belongs to the parent: it makes it, and it alone unlinks it, when no worker is left. A worker maps it
  once, when it starts, and only for as long as it lives.
- A slot belongs to one side at a time. The parent writes it, then gives it away with `submit`; it is the worker's
  until its answer is there; then the parent may write it again. So nothing is written that somebody reads, and that
  is the whole of the locking. There are no more frames under way than slots.
- `decode` lends: a batch is a view of the slot and dies with the call that made it. What leaves a worker is copied
  out of it (here: numbers). A view that is kept would show the next frame's bytes one day, and `close` refuses to
  unmap memory that still has one.

The worker verifies the frame like any other: the parent may be wrong too.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from typing import NamedTuple

import numpy as np

import flux

SLOTS = 8
SLOT_BYTES = 64 * 1024  # 1,000 candles of 64 bytes and a head
WORKERS = 2


class Summary(NamedTuple):
    """What a worker finds in a frame."""

    candles: int
    turnover: float
    volume: float


def lent(block: SharedMemory, slot: int, size: int = SLOT_BYTES) -> memoryview:
    """The first `size` bytes of a slot, to be released before the block is closed: use it in `with`."""
    assert block.buf is not None  # None once it is closed
    return block.buf[slot * SLOT_BYTES : slot * SLOT_BYTES + size]


def summarize(frame: memoryview) -> Summary:
    """Reads a frame of candles. Raises `DecodeError` where it is none."""
    batch = flux.codec.decode(frame)
    return Summary(len(batch), float(batch.turnover.sum()), float(batch.volume.sum()))


class Worker:
    """A worker's side: the block, mapped once in each worker process."""

    _block: SharedMemory  # unmapped by the system when the process ends

    @classmethod
    def attach(cls, name: str) -> None:
        """Runs once in each worker, before its first frame."""
        cls._block = SharedMemory(name)

    @classmethod
    def summarize(cls, slot: int, size: int) -> Summary:
        """Decodes the frame in `slot`, which is this process's until this returns."""
        with lent(cls._block, slot, size) as frame:
            return summarize(frame)


def sample(frames: int, rows: int = 900) -> Iterator[np.ndarray[tuple[int], np.dtype[np.void]]]:
    """The rows of each frame, in one array that is used again."""
    candles = np.zeros(rows, flux.CANDLE)
    candles["flags"] = flux.CandleFlag.CLOSED | flux.CandleFlag.TRADED
    for i in range(frames):
        candles["volume"] = 2.0
        candles["turnover"] = 2.0 * (100 + i % 10)
        yield candles


def run(frames: int) -> list[Summary]:
    """The parent's side: all summaries, in the order in which they came back. Raises `BrokenProcessPool` where a
    worker died."""
    encoder = flux.codec.Encoder(flux.StreamKey("SIM", "BTCUSDT", "1m"))
    done: list[Summary] = []
    free = list(range(SLOTS))
    under_way: dict[Future[Summary], int] = {}

    def take_back() -> None:
        ready, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for future in ready:
            free.append(under_way.pop(future))
            done.append(future.result())

    block = SharedMemory(create=True, size=SLOTS * SLOT_BYTES)
    try:
        with ProcessPoolExecutor(
            WORKERS, get_context("spawn"), initializer=Worker.attach, initargs=(block.name,)
        ) as workers:
            for number, rows in enumerate(sample(frames)):
                if not free:
                    take_back()
                slot = free.pop()
                with lent(block, slot) as out:
                    size = encoder.encode(rows, 1 + number * len(rows), out=out)
                under_way[workers.submit(Worker.summarize, slot, size)] = slot
            while under_way:
                take_back()
    finally:
        block.close()
        block.unlink()
    return done


def main() -> None:
    """Sends 500 frames through two workers and prints what they add up to."""
    done = run(500)
    volume = sum(summary.volume for summary in done)
    vwap = sum(summary.turnover for summary in done) / volume
    print(f"{len(done)} frames in {SLOTS} slots, {sum(summary.candles for summary in done)} candles")
    print(f"volume {volume:.0f}, vwap {vwap}")


if __name__ == "__main__":
    main()

"""The codec inside an asyncio service: frames come in over ZeroMQ, are decoded, and each is answered.

    python -m flux.examples.asyncio_service

    client (DEALER) ──frame──► ROUTER ► taken ► decode ──JSON──► client
                                        (at most PENDING wait)

A frame is decoded right in the event loop: that takes well under a microsecond and no copy, far less than handing it
to a thread would. At most PENDING frames wait for their answer; while there is no room the service takes nothing from
its socket, libzmq's queue fills, and then the client waits: nothing grows without a bound.

`Service.stop` ends it cleanly: what was taken is answered, what was not stays with libzmq. Cancelling the task that
runs `Service.serve` ends it at once.

This spends Python on every message, which is right for messages of your own. To follow the streams of a flux server
use `flux.Live`, which does not.
"""

from __future__ import annotations

import asyncio
import json

import numpy as np
import zmq
import zmq.asyncio

import flux
from flux.codec import Candles, DecodeError

PENDING = 64  # frames taken and not yet answered
DEADLINE_S = 60.0  # for the whole conversation of `main`


def answer(frame: memoryview) -> bytes:
    """What a client is told about its frame, as JSON. The rows are read where they arrived; no view of them is kept."""
    try:
        batch = flux.codec.decode(frame)
    except DecodeError as error:
        return json.dumps({"error": error.reason, "offset": error.offset}).encode()
    if not isinstance(batch, Candles):
        return json.dumps({"error": f"{type(batch).__name__} instead of candles", "offset": 0}).encode()
    told = {"stream": str(batch.key), "candles": len(batch), "volume": float(batch.volume.sum())}
    return json.dumps(told).encode()


class Service:
    """Answers the frames that reach one ROUTER socket, which it closes at its end."""

    def __init__(self, context: zmq.asyncio.Context, endpoint: str) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.MAXMSGSIZE, flux.limits.MAX_FRAME_BYTES)
        self._socket.set(zmq.RCVHWM, PENDING)
        self._socket.bind(endpoint)
        self.endpoint = self._socket.get_string(zmq.LAST_ENDPOINT)
        self.answered = 0
        self._room = asyncio.Semaphore(PENDING)
        self._taken: asyncio.Queue[list[zmq.Frame] | None] = asyncio.Queue(PENDING + 1)  # one for the end
        self._stopping = asyncio.Event()

    async def serve(self) -> None:
        """Runs until `stop`, or until its task is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._answer())
                receiving = tasks.create_task(self._receive())
                await self._stopping.wait()
                receiving.cancel()
                self._taken.put_nowait(None)
        finally:
            self._socket.close(linger=1_000)  # ms for answers that are on their way

    def stop(self) -> None:
        """Take no more frames; `serve` returns when those it has are answered."""
        self._stopping.set()

    async def _receive(self) -> None:
        while True:
            # Room first, then the message: wherever this is cancelled, no message is in its hands.
            await self._room.acquire()
            await self._socket.poll()
            self._taken.put_nowait(await self._socket.recv_multipart(zmq.DONTWAIT, copy=False))

    async def _answer(self) -> None:
        while (frames := await self._taken.get()) is not None:
            peer, frame = frames[0], frames[-1]
            await self._socket.send_multipart([peer.bytes, answer(frame.buffer)])
            self.answered += 1
            self._room.release()


async def ask(context: zmq.asyncio.Context, endpoint: str, frames: list[bytes]) -> list[dict[str, object]]:
    """A client: the answers to `frames`, in their order. Never has more than PENDING of them under way, because a
    ROUTER drops what a client that does not read has no room for."""
    answers: list[dict[str, object]] = []
    with context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        for sent, frame in enumerate(frames):
            if sent - len(answers) == PENDING:
                answers.append(json.loads(await socket.recv()))
            await socket.send(frame)
        while len(answers) < len(frames):
            answers.append(json.loads(await socket.recv()))
    return answers


def sample(frames: int, rows: int = 60) -> list[bytes]:
    """Frames of candles as another service would send them, and one that lost a bit on its way."""
    candles = np.zeros(rows, flux.CANDLE)
    candles["volume"] = 0.5
    encoder = flux.codec.Encoder(flux.StreamKey("SIM", "BTCUSDT", "1m"))
    made = [encoder.encode(candles, 1 + i * rows) for i in range(frames)]
    damaged = bytearray(made[0])
    damaged[-8] ^= 1
    return [*made, bytes(damaged)]


async def talk() -> None:
    """Service and client in one event loop, over TCP."""
    context = zmq.asyncio.Context()
    try:
        service = Service(context, "tcp://127.0.0.1:*")
        async with asyncio.TaskGroup() as tasks:  # should the client fail, the service is cancelled
            tasks.create_task(service.serve())
            async with asyncio.timeout(DEADLINE_S):
                answers = await ask(context, service.endpoint, sample(1_000))
            service.stop()
    finally:
        context.term()
    good = [told for told in answers if "error" not in told]
    print(f"{len(good)} frames answered, the last: {good[-1]}")
    print(f"refused: {[told for told in answers if 'error' in told]}")
    print(f"stopped after {service.answered} answers")


def main() -> None:
    """Sends 1,001 frames to the service, one of them damaged, and prints what it said."""
    asyncio.run(talk())


if __name__ == "__main__":
    main()

"""A server for the client's tests: real sockets and real answers over rows in memory, with loss on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from flux import codec
from flux.model import MARK, StreamKey
from flux.schema import messages
from flux.server.requests.answers import Answers
from flux.server.requests.router import Requests
from flux.server.requests.view import StoreReader
from flux.transport.sockets import Sockets, endpoint_of
from flux.transport.topics import BEAT, stream_topic
from tests.patience import PATIENCE_S
from tests.unit.served import Served, Stream, rows_at


def eventually(met: Callable[[], object], what: str = "") -> None:
    """Wait until `met` is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline, what or "it did not happen"
        time.sleep(0.002)


class LiveServer:
    """Publishes from the thread of the test; requests have their own."""

    answers: type[Answers] = Answers

    def __init__(
        self,
        served: Served | None = None,
        pub: str = "tcp://127.0.0.1:*",
        rep: str = "tcp://127.0.0.1:*",
        store: StoreReader | None = None,
    ) -> None:
        self.served = served or Served()
        self.sockets = Sockets()
        self.publisher = self.sockets.publisher(pub)
        self.pub = endpoint_of(self.publisher.socket)
        self.requests = Requests(self.sockets, rep, self.answers(self.served), store)
        self.rep = self.requests.endpoint
        self.requests.start()
        self.beats = 0
        self.boot_id = 1

    def stream(self, key: StreamKey) -> Stream:
        return next(stream for stream in self.served.all if stream.key == key)

    def add(self, key: StreamKey, count: int = 0) -> None:
        rows = rows_at(range(1_700_000_000_000, 1_700_000_000_000 + 1_000 * count, 1_000), key.kind)
        self.served.all.append(Stream(key, len(self.served.all) + 1, rows))

    def publish(self, key: StreamKey, count: int, lose: Iterable[int] = (), size: int = 1) -> None:
        """`count` more rows in messages of `size`; those that begin with a sequence of `lose` are not
        sent.
        """
        stream, lost = self.stream(key), set(lose)
        begin = stream.head
        more = rows_at(range(1_800_000_000_000 + begin, 1_800_000_000_000 + begin + count), key.kind)
        stream.rows = np.concatenate([stream.rows, more])
        encoder = codec.Encoder(key)
        for first in range(begin + 1, begin + count + 1, size):
            if first not in lost:
                frame = encoder.encode(
                    stream.rows[first - 1 : first - 1 + size],
                    first,
                    epoch=self.served.epoch,
                    store_id=self.served.store_id,
                    stream_id=stream.stream_id,
                )
                self.publisher.socket.send_multipart([stream_topic(key), frame])

    def beat(self) -> None:
        self.beats += 1
        marks = np.zeros(len(self.served.all), MARK)
        marks["latest_sequence"] = [stream.head for stream in self.served.all]
        marks["stream_id"] = [stream.stream_id for stream in self.served.all]
        frame = messages.heartbeat(
            store_id=self.served.store_id,
            epoch=self.served.epoch,
            boot_id=self.boot_id,
            server_time_ns=0,
            number=self.beats,
            interval_ms=1_000,
            marks=marks,
        )
        self.publisher.socket.send_multipart([BEAT, frame])

    def subscribed(self, topic: bytes) -> None:
        """Wait until somebody subscribes. A client asks for heartbeats first, then for its streams: wait for these."""

        def told() -> bool:
            self.publisher.drain()
            return topic in self.publisher.subscriptions.prefixes

        eventually(told, f"nobody subscribed to {topic!r}")

    def close(self) -> None:
        self.requests.stop()
        self.sockets.close()

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

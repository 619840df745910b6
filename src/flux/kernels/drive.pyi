"""The loops of the load generator's processes, without the GIL (`ext/loadgen/drive.h`). No object here is thread-safe.

Addresses are of C structs that whoever calls keeps alive, and so are buffers, writable and contiguous. Times are
CLOCK_MONOTONIC ns where they are not said to be of the run.
"""

from typing import Final, final

TIME: Final[int]
DONE: Final[int]
LAID: Final[int]
TAKEN: Final[int]
WOKEN: Final[int]
HELD: Final[int]
SOCKET: Final[int]
COUNT_BYTES: Final[int]
"""Bytes of a `Flight`'s counts for its publishers together, and for each subscriber."""

@final
class Flight:
    """Messages under way, counted in memory that several processes share: at most `most`.

    `counts` has COUNT_BYTES for the publishers and as many for each subscriber, all 0 at first.
    """

    def __new__(cls, counts: object, subscribers: int, most: int) -> Flight: ...
    def take(self, count: int) -> bool:
        """Whether `count` more messages may be under way; then they are, until each subscriber has received them."""

@final
class Publisher:
    """Numbers, encodes and sends a publisher's share of a load, a piece of at most `piece` messages at a time.

    It has `messages` of them, the first `warmup` of them unmeasured; nothing is sent from `end_ns` on. `rows` takes a
    piece's CANDLE rows, `runs` as many RUN records as it has messages, the group's memory all of its records. With
    `numbers` (int64, a piece) a piece is laid into the group, and Python sends it.
    """

    def __new__(
        cls,
        load: int,
        slip: int,
        streams: int,
        group: int,
        calls: int,
        socket: int,
        *,
        store_id: int,
        epoch: int,
        messages: int,
        warmup: int,
        start_ns: int,
        end_ns: int,
        tick_ns: int,
        piece: int,
        rows: object,
        runs: object,
        numbers: object | None,
        flight: Flight | None,
    ) -> Publisher: ...
    def run(self, until_ns: int) -> int:
        """Send what is due, each tick, until `until_ns`: TIME, DONE, LAID or SOCKET."""
    @property
    def messages(self) -> int:
        """Numbered so far."""
    @property
    def due(self) -> int:
        """By the last look at the clock."""
    @property
    def error(self) -> int:
        """The errno behind a SOCKET."""

@final
class Feeder:
    """Pushes a load as the feed run `run`. `slots` (u4) takes a piece's streams, `scratch` an encoded message."""

    def __new__(
        cls,
        load: int,
        slip: int,
        streams: int,
        calls: int,
        socket: int,
        *,
        run: int,
        messages: int,
        warmup: int,
        start_ns: int,
        end_ns: int,
        tick_ns: int,
        piece: int,
        rows: object,
        slots: object,
        scratch: object,
    ) -> Feeder: ...
    def run(self, until_ns: int) -> int:
        """Push what is due, each tick, until `until_ns`: TIME, DONE or SOCKET."""
    @property
    def messages(self) -> int:
        """Taken by the socket so far."""
    @property
    def due(self) -> int:
        """By the last look at the clock."""
    @property
    def blocked(self) -> int:
        """Times the socket was full."""
    @property
    def error(self) -> int:
        """The errno behind a SOCKET."""

@final
class Subscriber:
    """Receives into rings and accounts, a bite of at most `bite` messages at a time.

    `measure_ns` (from, until: ns of the run): what arrives then is measured, whatever its number. With a flight it
    tells there, as subscriber `number`, how many messages have arrived.
    """

    def __new__(
        cls,
        receiver: int,
        load: int,
        tally: int,
        rings: int,
        schedule: int,
        send: int,
        interval: int,
        *,
        socket_fd: int,
        wake_fd: int,
        bite: int,
        start_ns: int,
        measure_ns: tuple[int, int] | None,
        flight: Flight | None,
        number: int,
    ) -> Subscriber: ...
    def run(self, until_ns: int, goal: int, once: bool) -> int:
        """Receive until `until_ns` (TIME), until the highest sequences add up to `goal` and nothing waits (DONE), with
        `once` until one bite brought something (TAKEN), or until the wake flag is up (WOKEN), a message is held that
        is of no stream here (HELD), or the socket fails (SOCKET)."""
    @property
    def messages(self) -> int:
        """Received so far, whatever became of them."""

from typing import Any, Final, TypeAlias, final

import numpy as np
from typing_extensions import Buffer as _PlainBuffer

# numpy declares its arrays as buffers from Python 3.12 on only.
_Buffer: TypeAlias = _PlainBuffer | np.ndarray[Any, Any]

TIME: Final[int]
WOKEN: Final[int]
NO_ROOM: Final[int]

SPARE: Final[int]
WAITING: Final[int]
STAND_IN: Final[int]
RECALLED: Final[int]
TAKEN: Final[int]
KEPT: Final[int]

COMMITTED: Final[int]
COMMIT_HEARD: Final[int]
COMMIT_NO_ROOM: Final[int]
COMMIT_REFUSED: Final[int]
COMMIT_UNMARKED: Final[int]
COMMIT_ASKED: Final[int]

def number(streams: int, arrivals: _Buffer, runs: _Buffer) -> int: ...

@final
class Exchange:
    def __new__(cls, first: int, second: int, beat: _Buffer) -> Exchange: ...
    def leave_beat(self, frame: _Buffer, timeout_ns: int) -> bool: ...
    def room(self, need: int, records: int, timeout_ns: int) -> bool: ...
    def lock(self) -> int: ...
    def unlock(self) -> None: ...
    def take(self, timeout_ns: int) -> bool: ...
    @property
    def taken(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def stood_in(self) -> int: ...
    @property
    def empty(self) -> bool: ...
    def give_back(self) -> None: ...
    def close(self) -> None: ...
    def committed(self, file: int, offset: int) -> None: ...
    def wait_past(self, file: int, offset: int, timeout_ns: int) -> tuple[int, int]: ...

@final
class Turns:
    def __new__(
        cls,
        exchange: Exchange,
        receiver: int,
        *,
        store_id: int,
        epoch: int,
        max_rows: int,
        room: int,
        room_records: int,
        pull_fd: int,
        wake_fd: int,
    ) -> Turns: ...
    def run(self, timeout_ns: int) -> int: ...
    def record(self) -> None: ...
    @property
    def turned_ns(self) -> int: ...

@final
class Commits:
    def __new__(
        cls,
        exchange: Exchange,
        end: int,
        fence: int,
        receiver: int,
        streams: int,
        calls: int,
        socket: int,
        *,
        store_id: int,
        epoch: int,
        disk: bool,
        ask_always: bool,
        beat_topic: bytes,
        scratch: _Buffer,
        heard: _Buffer,
    ) -> Commits: ...
    def run(
        self, timeout_ns: int, order: _Buffer | None = None, spoilt: _Buffer | None = None
    ) -> tuple[int, int, tuple[int, int, int], int, int, int]: ...
    def send_beat(self) -> None: ...
    @property
    def beats(self) -> int: ...

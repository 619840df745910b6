from typing import Any, Final, TypeAlias, final

import numpy as np
from typing_extensions import Buffer as _PlainBuffer

# numpy declares its arrays as buffers from Python 3.12 on only.
_Buffer: TypeAlias = _PlainBuffer | np.ndarray[Any, Any]

TIME: Final[int]
WOKEN: Final[int]
NO_ROOM: Final[int]

def push(
    calls: int,
    socket: int,
    streams: int,
    rows: _Buffer,
    slots: _Buffer,
    count: int,
    rows_each: int,
    first: int,
    run: int,
    origin_ns: int,
    scratch: _Buffer,
) -> tuple[int, int]: ...

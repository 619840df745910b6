from typing import Any, Final, TypeAlias

import numpy as np
from typing_extensions import Buffer

# numpy declares its arrays as buffers from Python 3.12 on only.
_Buffer: TypeAlias = Buffer | np.ndarray[Any, Any]

OUTCOMES: Final[tuple[str, ...]]

def fault(kind: int, row: Buffer) -> int: ...
def look_back(kind: int, row: Buffer, earlier: Buffer) -> int: ...
def flags(kind: int, given: int, outcome: int) -> int: ...
def grid(kind: int, interval: bytes) -> int: ...
def faults(
    kind: int, rows: _Buffer, out: _Buffer, grid_ms: int = 0, latest_ms: int = 2**63 - 1
) -> int: ...

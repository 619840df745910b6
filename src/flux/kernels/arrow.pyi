from typing import Any

import numpy as np

_Rows = np.ndarray[Any, np.dtype[np.void]]
_Sequences = np.ndarray[Any, np.dtype[np.uint64]]

def export_schema(kind: int, metadata: bytes) -> Any: ...
def export_array(
    rows: _Rows, kind: int, sequences: int | _Sequences, metadata: bytes, requested: Any = None
) -> tuple[Any, Any]: ...
def export_stream(
    rows: _Rows, kind: int, sequences: int | _Sequences, metadata: bytes, requested: Any = None
) -> Any: ...
def live() -> int: ...

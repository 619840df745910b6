"""A user's function over the rows of a bucket, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

Aggregate = Callable[..., Any]


def compiled(aggregate: Aggregate, values: int) -> Aggregate:
    """`each(rows, spans, values)`: the user's function over the rows of every span."""
    try:
        import numba  # late: 0.2 s, and only for those who bring a function
    except ImportError as error:
        raise ImportError("aggregate= needs numba: pip install 'flux-marketdata[numba]'") from error
    compile_: Any = numba.njit  # its types differ between versions
    function = aggregate if hasattr(aggregate, "py_func") else compile_(aggregate)

    def each_value(rows: Any, spans: Any, out: Any) -> None:
        for i in range(len(spans)):
            out[i] = function(rows[spans[i, 0] : spans[i, 0] + spans[i, 1]])

    def each_row(rows: Any, spans: Any, out: Any) -> None:
        for i in range(len(spans)):
            function(rows[spans[i, 0] : spans[i, 0] + spans[i, 1]], out[i])

    return cast(Aggregate, compile_(each_row if values else each_value))

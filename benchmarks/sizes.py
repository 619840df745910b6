"""How much the benchmarks measure: as the gates do; FLUX_BENCH_FULL=1 as the table of what each station must reach
does; FLUX_BENCH_SMALL=1 as little as shows that they run."""

from __future__ import annotations

import os
from typing import Final, TypeVar

FULL: Final = "FLUX_BENCH_FULL"
SMALL: Final = "FLUX_BENCH_SMALL"

Size = TypeVar("Size", int, float)


def of(small: Size, usual: Size, full: Size | None = None) -> Size:
    """The one that the environment asks for; `full` is the usual one where it is not given."""
    if os.environ.get(SMALL) == "1":
        return small
    return full if full is not None and os.environ.get(FULL) == "1" else usual

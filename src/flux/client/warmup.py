"""What a consumer asks of its cache before anything new: `warmup=500`, `warmup="1d"`, `warmup="all"`."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, TypeAlias

from flux.errors import ConfigError

Warmup: TypeAlias = int | str
"""So many rows, a duration ("90s", "30m", "6h", "1d", "2w") back from the newest cached row, or "all"."""

OnCacheError: TypeAlias = Literal["raise", "without"]

_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class Past(NamedTuple):
    """How much of a stream's cached rows: the newest `rows`, none older than `ms` before the newest (None: any)."""

    rows: int | None = None
    ms: int | None = None


def past(warmup: Warmup | None) -> Past | None:
    """What `warmup` asks for; None for nothing. Raises `ConfigError` for what it cannot be."""
    if warmup is None:
        return None
    if isinstance(warmup, int) and not isinstance(warmup, bool) and warmup >= 1:
        return Past(warmup)
    if warmup == "all":
        return Past()
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", warmup) if isinstance(warmup, str) else None
    if found is None:
        raise ConfigError(
            f"warmup is a number of rows, a duration such as '1d' or '90m', or 'all', not {warmup!r}"
        )
    return Past(ms=int(found[1]) * _UNITS_MS[found[2]])

"""What a publisher does wrong on purpose, so that the instrument itself can be tested: every n-th message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flux.errors import ConfigError

MAX_EVERY: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Faults:
    """Each a number n: messages n - 1, 2n - 1, .. (from 0) of each publisher are hit; 0 = none.

    Where several hit one message, the first of this list does.
    """

    drop: int = 0  # numbered, but not sent
    corrupt: int = 0  # a bit of its payload flipped
    reorder: int = (
        0  # sent behind the next message of its stream that arrives; a stream's last one is not hit
    )
    duplicate: int = 0  # sent twice

    def __bool__(self) -> bool:
        return any((self.drop, self.corrupt, self.reorder, self.duplicate))

    def checked(self, rows: int) -> Faults:
        """These, once they are known to be possible with so many rows per message; else ConfigError."""
        for name in ("drop", "corrupt", "reorder", "duplicate"):
            every: int = getattr(self, name)
            if not 0 <= every <= MAX_EVERY:
                raise ConfigError(f"--fault {name}={every}: not 1 to {MAX_EVERY:,}")
        if self and rows != 1:
            raise ConfigError(f"--fault needs messages of one row, not --rows {rows}")
        return self

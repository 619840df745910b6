"""What the tests of `flux.Historical` ask for: the stream of `long_server`."""

from __future__ import annotations

from typing import Final

from flux.model import StreamKey

KEY: Final = StreamKey("SIM", "BTCUSDT", "1m")
T0: Final = 1_700_000_040_000  # ms, the first row
MINUTE: Final = 60_000
ROWS: Final = 25_000

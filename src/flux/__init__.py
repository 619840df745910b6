"""flux: a live market-data bridge.

A feed sends candles or trades; flux numbers them, keeps them, sends them on, and lets any consumer that was away, slow
or robbed by the network get exactly what it missed.

               codec            ring                     window
    wire bytes ─────► rows ─────────────► ordered rows ─────────► buckets ──► store (at rest)
     (transport)  decode      place by sequence,       resample      └──► codec ──► transport (publish)
                              drop repeats, see gaps

Names are resolved on first use, so `import flux.codec` loads numpy and the kernels alone.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing takes longer to load than all else here
if TYPE_CHECKING:
    from typing import Any

_HOMES = {
    "CANDLE": "flux.model",
    "CandleFlag": "flux.model",
    "Cursor": "flux.model",
    "Feed": "flux.feed.push",
    "FluxError": "flux.errors",
    "Gap": "flux.model",
    "Historical": "flux.client.historical",
    "Live": "flux.client.live",
    "QUOTE": "flux.model",
    "Ring": "flux.ring",
    "StreamKey": "flux.model",
    "TRADE": "flux.model",
    "Window": "flux.window",
    "resample": "flux.window",
}

_MODULES = ("codec", "errors", "indicator", "limits", "model", "testing", "window")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
    elif name in _MODULES:
        value = importlib.import_module(f"flux.{name}")
    else:
        raise AttributeError(f"module 'flux' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

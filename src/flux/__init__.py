"""flux: a live market-data bridge.

A feed sends candles or trades; flux numbers them, keeps them, sends them on, and lets any consumer that was away, slow
or robbed by the network get exactly what it missed.

               codec            ring                     window
    wire bytes ─────► rows ─────────────► ordered rows ─────────► buckets ──► store (at rest)
     (transport)  decode      place by sequence,       resample      └──► codec ──► transport (publish)
                              drop repeats, see gaps

Names are resolved on first use, so `import flux.codec` loads numpy and the kernels alone.
"""

import importlib as _importlib

_HOMES = {
    "Batch": "flux.batch",
    "CANDLE": "flux.model",
    "CandleFlag": "flux.model",
    "Candles": "flux.batch",
    "Cursor": "flux.model",
    "Feed": "flux.feed.push",
    "FluxError": "flux.errors",
    "Gap": "flux.model",
    "Historical": "flux.client.historical",
    "Live": "flux.client.live",
    "QUOTE": "flux.model",
    "Quotes": "flux.batch",
    "Ring": "flux.ring",
    "StreamKey": "flux.model",
    "TRADE": "flux.model",
    "TradeFlag": "flux.model",
    "Trades": "flux.batch",
    "Window": "flux.window",
    "resample": "flux.window",
}

_MODULES = ("codec", "errors", "indicator", "limits", "model", "testing", "window")

__all__ = [*_HOMES, *_MODULES, "__version__"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(_importlib.import_module(home), name)
    elif name in _MODULES:
        value = _importlib.import_module(f"flux.{name}")
    elif name == "__version__":
        value = _importlib.import_module("importlib.metadata").version("flux-marketdata")
    else:
        raise AttributeError(f"module 'flux' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

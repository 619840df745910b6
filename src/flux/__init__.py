"""flux: a live market-data bridge.

A feed sends candles, trades or quotes; a server numbers them, keeps them and broadcasts them, and lets any client that
was away, slow or robbed by the network get exactly what it missed.

                  codec           ring
    wire bytes ─────────► rows ─────────────► ordered rows ──► consumer, cache ──► Window ──► buckets
    (transport)  verify        place by sequence,                                resample, indicator
                 decode        drop repeats, see gaps

    Live         follow streams: every row once, in order, repaired
    Historical   the same rows by request
    Feed         send rows of your own to a server
    codec        messages from rows and back, without sockets
    resample, Window, indicator    longer candles and indicators, in bulk and live
    testing      a real server with faults to inject; `flux serve` is the one to run

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

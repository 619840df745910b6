"""Who is measured, and what each needs to be installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import zmq

from benchmarks.peers.bus import brokers, over_flux, over_libzmq
from benchmarks.peers.bus.spec import Result, Spec
from benchmarks.peers.bus.trial import Started, no_broker, python_end, trial

Run = Callable[[Spec], Result]


class Peer(NamedTuple):
    """A line of the table."""

    name: str
    keeps: str  # what is on disk when the server dies
    needs: Callable[[], str]  # what is missing, "" when it can be measured
    make: Callable[[Path], Run]  # the folder is the peer's as long as it is measured


def _nothing() -> str:
    return ""


def _lacks(program: str, *packages: str) -> Callable[[], str]:
    def needs() -> str:
        lacking = [package for package in packages if importlib.util.find_spec(package) is None]
        if lacking:
            return f"Python package {', '.join(lacking)} is not installed (extra `peers`)"
        return "" if brokers.installed(program) else f"{program} is not installed"

    return needs


def _in_python(name: str, module: str, started: Started = no_broker) -> Callable[[Path], Run]:
    return lambda _: lambda spec: trial(name, spec, python_end(module), started)


def _in_c(folder: Path) -> Run:
    command = over_libzmq.build(folder)
    return lambda spec: trial("libzmq in C", spec, command)


def _flux(name: str, mode: str) -> Callable[[Path], Run]:
    return lambda _: over_flux.Loadgen(name, mode)


_REDIS = _lacks("redis-server", "redis", "hiredis")
_NATS = _lacks("nats-server", "nats")
_AOF = ("--appendonly", "yes", "--appendfsync", "everysec")

PEERS = {
    "flux": Peer("flux pubsub", "-", _nothing, _flux("flux pubsub", "pubsub")),
    "libzmq": Peer("libzmq in C", "-", over_libzmq.missing, _in_c),
    "pyzmq": Peer("pyzmq", "-", _nothing, _in_python("pyzmq", "over_zmq")),
    "asyncio": Peer("zmq.asyncio", "-", _nothing, _in_python("zmq.asyncio", "over_zmq_asyncio")),
    "redis": Peer("Redis pub/sub", "-", _REDIS, _in_python("Redis pub/sub", "over_redis", brokers.redis())),
    "nats": Peer("NATS core", "-", _NATS, _in_python("NATS core", "over_nats", brokers.nats())),
    "through": Peer(
        "flux through", "journal, synced each 100 ms; store", _nothing, _flux("flux through", "through")
    ),
    "streams": Peer(
        "Redis streams", "-", _REDIS, _in_python("Redis streams", "over_redis_streams", brokers.redis())
    ),
    "streams-aof": Peer(
        "Redis streams, AOF",
        "log, synced each second",
        _REDIS,
        _in_python("Redis streams, AOF", "over_redis_streams", brokers.redis(*_AOF)),
    ),
    "jetstream": Peer(
        "NATS JetStream",
        "file, synced each 2 min",
        _NATS,
        _in_python("NATS JetStream", "over_jetstream", brokers.nats("-js")),
    ),
}


def versions() -> dict[str, str]:
    """Of what takes part, as far as it is installed."""
    found = {"libzmq": zmq.zmq_version()}
    for package in ("flux-marketdata", "pyzmq", "redis", "hiredis", "nats-py", "uvloop"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found |= {
        name: brokers.version(name) for name in ("redis-server", "nats-server") if brokers.installed(name)
    }
    return found

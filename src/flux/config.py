"""What a process was asked to be: flags over FLUX_* over defaults, in one frozen object per command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from flux.errors import ConfigError
from flux.limits import GIB, GROUP_BYTES, JOURNAL_FILE_BYTES

DEFAULT_LIVE_PUB: Final = "tcp://127.0.0.1:5556"
DEFAULT_CHUNK_REP: Final = "tcp://127.0.0.1:5557"
DEFAULT_INGEST_PULL: Final = "tcp://127.0.0.1:5558"
DEFAULT_SOURCE_ID: Final = "SIM"

Durability = Literal["disk", "process"]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a client finds its server."""

    live_pub: str
    chunk_rep: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A file to replay: as fast as it goes, at a multiple of its own times, or `batch_rows` each `tick_s` seconds."""

    path: Path
    key: str | None = None
    speed: float | None = None
    tick_s: float | None = None
    batch_rows: int = 1
    limit: int | None = None
    loop: bool = False
    skip_bad_rows: bool = False


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `flux serve` runs. `ingest` None: no socket for feeds."""

    data: Path
    live_pub: str = DEFAULT_LIVE_PUB
    chunk_rep: str = DEFAULT_CHUNK_REP
    ingest: str | None = None
    durability: Durability = "disk"
    replays: tuple[Replay, ...] = field(default=())
    source_id: str = DEFAULT_SOURCE_ID
    insecure: bool = False
    journal_file_bytes: int = JOURNAL_FILE_BYTES

    def __post_init__(self) -> None:
        if self.durability not in ("disk", "process"):
            raise ConfigError(f"durability is disk or process, not {self.durability!a}")
        if not 4 * GROUP_BYTES <= self.journal_file_bytes <= GIB:
            raise ConfigError(
                f"journal_file_bytes is {4 * GROUP_BYTES} to {GIB} bytes, not {self.journal_file_bytes}"
            )


def value(flag: str | None, name: str, default: str, environment: Mapping[str, str] = os.environ) -> str:
    """A flag if it was given, else the environment's FLUX_`name` if it is set and not empty, else the default."""
    return flag if flag is not None else environment.get(f"FLUX_{name}") or default


def endpoints(live_pub: str | None = None, chunk_rep: str | None = None) -> Endpoints:
    """Where the server is: as given, else FLUX_LIVE_PUB and FLUX_CHUNK_REP, else the defaults on this machine."""
    return Endpoints(
        value(live_pub, "LIVE_PUB", DEFAULT_LIVE_PUB), value(chunk_rep, "CHUNK_REP", DEFAULT_CHUNK_REP)
    )

"""A real server with the fault dials: in this process (`server`), or as a process of its own that can be killed.

python -m flux.testing.server --data DIR --replay FILE --drop 0.05 ...
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flux.config import Replay, ServeConfig
from flux.server.service import Server
from flux.testing.faults import Faults

ANY_PORT = "tcp://127.0.0.1:*"


class FaultyServer(Server):
    """A server in this process; the dials of `faults` may be turned while it runs, and `faults.injected` counts."""

    def __init__(self, config: ServeConfig, faults: Faults) -> None:
        super().__init__(config, faults=faults)
        self.faults = faults


@contextmanager
def server(
    *,
    data: str | Path | None = None,
    replay: str | Path | None = None,
    drop: float = 0.0,
    gap_every: int = 0,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    corrupt: float = 0.0,
    seed: int = 0,
) -> Iterator[FaultyServer]:
    """A running server on free ports of this machine: `.live_pub`, `.chunk_rep`, `.ingest` say where, and the dials
    of `.faults` may be turned meanwhile.

    `data`: its directory (a temporary one, gone afterwards). The dials are those of `Faults`.
    """
    faults = Faults(
        drop=drop, gap_every=gap_every, duplicate=duplicate, reorder=reorder, corrupt=corrupt, seed=seed
    )
    with ExitStack() as stack:
        directory = data or stack.enter_context(tempfile.TemporaryDirectory(prefix="flux-"))
        config = ServeConfig(
            data=Path(directory),
            live_pub=ANY_PORT,
            chunk_rep=ANY_PORT,
            ingest=ANY_PORT,
            replays=() if replay is None else (Replay(Path(replay)),),
        )
        running = FaultyServer(config, faults)
        running.start()
        try:
            yield running
        finally:
            running.stop()

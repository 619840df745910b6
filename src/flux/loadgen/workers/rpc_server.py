"""The server that mode `rpc` starts: a process that ends with its parent, and its data with it.

`python -m flux.loadgen.workers.rpc_server`. Commands: `serve` starts it, and starts it again where it runs already (its
rings then hold the newest rows alone, and older pages come out of the database); it answers `serving` with its
endpoints.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from flux.config import ServeConfig
from flux.errors import FluxError
from flux.loadgen.process import Commands, tell
from flux.server.service import Server

ANY_PORT = "tcp://127.0.0.1:*"


def serve(directory: Path, commands: Commands) -> None:
    """Serve until the parent says stop or is gone."""
    config = ServeConfig(
        data=directory, live_pub=ANY_PORT, chunk_rep=ANY_PORT, ingest=ANY_PORT, durability="process"
    )
    server: Server | None = None
    try:
        while commands.take()["command"] == "serve" and not commands.stopping:
            if server is not None:
                server.stop()
            server = Server(config)
            server.start()
            tell("serving", rpc=server.chunk_rep, ingest=server.ingest, directory=str(directory))
    finally:
        if server is not None:
            server.stop()


def main() -> int:
    commands = Commands()
    with tempfile.TemporaryDirectory(prefix="flux-loadgen-") as directory:
        try:
            serve(Path(directory), commands)
        except FluxError as error:
            tell("failed", why=str(error))
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())

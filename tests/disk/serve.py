"""A server on a data directory, with a journal of small files, so that a short life sees rotations.

python -m tests.disk.serve FILE_BYTES [the arguments of `flux serve`]
"""

from __future__ import annotations

import logging
import sys

from flux.cli.serve import config_of, parser
from flux.errors import FluxError
from flux.server.foreground import serve


def main(file_bytes: int, arguments: list[str]) -> int:
    """What `flux serve` does, and its exit code."""
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    config = config_of(parser().parse_args(arguments))
    if file_bytes:
        object.__setattr__(config, "journal_file_bytes", file_bytes)  # smaller than is allowed
    try:
        return serve(config)
    except FluxError as error:
        print(f"flux serve: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

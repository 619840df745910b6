"""`flux rebuild DIR`: fill the database anew from the journal; with --cut, cut a damaged journal first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux rebuild",
        description="Fill a data directory's database anew from its journal. The old database is set aside once the "
        "new one is complete. The server must have stopped.",
        epilog="A journal that is damaged in the middle stops a start and a rebuild (exit 4); the message says what a "
        "cut would lose. --salvage keeps every group that reads, and of the others the rows that the database has; "
        "what is lost all the same is a gap to clients that ask for it. --cut keeps only what stands before the "
        "damage. When rows may be gone that a client has seen, the next start begins a new epoch, so that clients "
        "drop them. Exit codes: 0 done, 1 runtime error, 2 usage, 3 in use, 4 the journal needs a decision.",
    )
    made.add_argument("directory", metavar="DIR", type=Path, help="the data directory")
    made.add_argument(
        "--salvage",
        action="store_true",
        help="keep every group of a damaged journal that reads, and what the database has of the others",
    )
    made.add_argument("--cut", action="store_true", help="cut a damaged journal after its last good group")
    return made


def run(arguments: argparse.Namespace) -> int:
    from flux.server.storage.rebuild import rebuild  # late: --help needs no database

    done = rebuild(arguments.directory, cut=arguments.cut, salvage_all=arguments.salvage, say=_say)
    aside = f"; the old database is {done.aside.name}" if done.aside else ""
    kept = f" and {done.from_database} that only the database had" if done.from_database else ""
    print(f"flux rebuild: {done.rows} rows from the journal{kept}{aside}")
    if done.first_file > 1:
        _say(
            f"the journal begins at file {done.first_file}: rows older than that are not in the new database"
        )
    return 0


def _say(text: str) -> None:
    print(f"flux rebuild: {text}", file=sys.stderr, flush=True)

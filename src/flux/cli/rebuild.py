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
        epilog="A journal that is damaged in the middle stops a start and a rebuild (exit 4), and what a cut would "
        "lose is said. --cut then keeps what stands before the damage; the next start begins a new epoch, so that "
        "clients drop the rows that are gone. Exit codes: 0 done, 1 runtime error, 2 usage, 3 in use, 4 the journal "
        "needs a decision.",
    )
    made.add_argument("directory", metavar="DIR", type=Path, help="the data directory")
    made.add_argument("--cut", action="store_true", help="cut a damaged journal behind its last good group")
    return made


def run(arguments: argparse.Namespace) -> int:
    from flux.server.rebuild import rebuild  # late: --help needs no database

    done = rebuild(arguments.directory, cut=arguments.cut, say=_say)
    aside = f"; the old database is {done.aside.name}" if done.aside else ""
    print(f"flux rebuild: {done.rows} rows from the journal{aside}")
    if done.first_file > 1:
        _say(
            f"the journal begins at file {done.first_file}: rows older than that are not in the new database"
        )
    return 0


def _say(text: str) -> None:
    print(f"flux rebuild: {text}", file=sys.stderr, flush=True)

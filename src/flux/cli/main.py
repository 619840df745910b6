"""`flux VERB ...`: finds the verb, loads its file alone, and turns errors into exit codes.

Exit codes: 0 ok, 1 runtime error, 2 usage or configuration, 3 in use, 4 data needs a decision, 5 the demo's verdict
failed, 130 interrupted, 143 terminated before it was done.
"""

from __future__ import annotations

from flux.cli.terminal import Terminal  # isort: skip  (first, and all else as late as can be: see there)

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Final

VERBS: Final = {
    "demo": "a server, a client, a gap repaired and a kill survived, in one terminal",
    "serve": "run the server",
    "sub": "follow streams",
    "get": "fetch a range of one stream",
    "streams": "list the server's streams",
    "rebuild": "fill the database anew from the journal",
    "doctor": "check this installation, this machine and a data directory",
    "version": "print the version",
}

UNTIL_STOPPED: Final = ("serve", "sub")  # they run until they are stopped: SIGTERM is success


def _parser() -> argparse.ArgumentParser:
    import argparse

    made = argparse.ArgumentParser(
        prog="flux",
        description="A live market-data bridge: candles numbered, kept, broadcast, and what was missed served.",
        epilog="verbs:\n" + "\n".join(f"  {verb:<9} {what}" for verb, what in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "verb", metavar="VERB", nargs="?", help="one of those below; `flux VERB --help` describes it"
    )
    made.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def _run(argv: Sequence[str] | None, terminal: Terminal) -> int:
    import difflib
    import importlib
    import logging
    import os

    arguments = _parser().parse_args(argv)
    if arguments.verb is None:
        _parser().print_help(sys.stderr)
        return 2
    if arguments.verb not in VERBS:
        near = difflib.get_close_matches(arguments.verb, VERBS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"flux: no verb {arguments.verb!a}{hint} (flux --help lists them)", file=sys.stderr)
        return 2
    terminal.name, terminal.until_stopped = f"flux {arguments.verb}", arguments.verb in UNTIL_STOPPED
    level = os.environ.get("FLUX_LOG") or "WARNING"
    if level.upper() not in logging.getLevelNamesMapping():
        print(f"flux: FLUX_LOG is debug, info, warning, error or critical, not {level!a}", file=sys.stderr)
        return 2
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    verb = importlib.import_module(f"flux.cli.{arguments.verb}")
    parsed = verb.parser().parse_args(arguments.rest)
    terminal.loaded()
    code: int = verb.run(parsed)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit code."""
    with Terminal("flux", whole=argv is None) as terminal:
        return terminal.run(lambda: _run(argv, terminal))


if __name__ == "__main__":
    sys.exit(main())

"""`flux VERB ...`: finds the verb, loads its file alone, and turns errors into exit codes.

Exit codes: 0 ok, 1 runtime error, 2 usage or configuration, 3 in use, 4 data needs a decision, 5 the demo's verdict
failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from flux.errors import FluxError

VERBS: Final = {
    "demo": "a server, a client, a gap repaired and a kill survived, in one terminal",
    "serve": "run the server",
    "sub": "follow streams",
    "get": "fetch a range of one stream",
    "streams": "list the server's streams",
    "rebuild": "fill the database anew from the journal",
    "doctor": "say what this installation and this machine can do, and what is wrong",
    "version": "say which version this is",
}

EXIT_INTERRUPTED: Final = 130


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux",
        description="A live market-data bridge: candles numbered, kept, broadcast, and what was missed served.",
        epilog="verbs:\n" + "\n".join(f"  {verb:<9} {what}" for verb, what in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "verb", metavar="VERB", nargs="?", help="one of those below; `flux VERB --help` tells more"
    )
    made.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.verb is None:
        _parser().print_help(sys.stderr)
        return 2
    if arguments.verb not in VERBS:
        near = difflib.get_close_matches(arguments.verb, VERBS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"flux: no verb {arguments.verb!a}{hint} (flux --help lists them)", file=sys.stderr)
        return 2
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
    try:
        code: int = verb.run(verb.parser().parse_args(arguments.rest))
        sys.stdout.flush()
        return code
    except FluxError as error:
        print(f"flux {arguments.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone: that is their way to say "enough".
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"flux {arguments.verb}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

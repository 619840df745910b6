"""`flux version`."""

from __future__ import annotations

import argparse
from importlib import metadata

from flux.transport.sockets import libzmq_version


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog="flux version", description="Print the version.")


def run(_: argparse.Namespace) -> int:
    flux = metadata.version("flux-marketdata")
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "pyzmq", "duckdb"))
    print(f"flux {flux} (schema 1 and 2; {libraries}, libzmq {libzmq_version()})")
    return 0

"""Real servers with faults on purpose: for the demo, for tests of flux and for tests of what is built on it."""

from flux.testing.faults import Faults
from flux.testing.server import server

__all__ = ["Faults", "server"]

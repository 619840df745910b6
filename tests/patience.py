"""How long a test waits for what must happen."""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 60.0
"""Seconds. What is waited for takes milliseconds; a machine that is stalled, or shared with five others, is no
failure of the code. A test that expects nothing to happen does not wait this long."""

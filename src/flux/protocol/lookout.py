"""What is missing when nothing comes: who waits in vain gets one warning, after WARN_AFTER_MS, that names it.

    no publisher · no answers · a stream that the server does not know · two endpoints of different servers

Each is told once for as long as it lasts. It is looked at in every turn, so it costs a few comparisons.
"""

from __future__ import annotations

from flux.limits import WARN_AFTER_MS
from flux.protocol.core import Core
from flux.protocol.effects import Tell, Warn
from flux.protocol.schedule import MS
from flux.protocol.stream_state import LIVE, StreamState


class Lookout:
    """Beside the coordinator: it reads the core, and adds warnings to its effects."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._since: dict[str, int] = {}  # what is wrong, and since when
        self._said: set[str] = set()

    def look(self, now: int, beat_store: int) -> None:
        """See what is wrong; `beat_store`: whose heartbeats come, 0 while none do."""
        wrong = self._wrong(beat_store)
        if not wrong and not self._since:
            return
        for subject in list(self._since):
            if subject not in wrong:
                del self._since[subject]
                self._said.discard(subject)
        for subject, reason in wrong.items():
            since = self._since.setdefault(subject, now)
            if subject not in self._said and now - since >= WARN_AFTER_MS * MS:
                self._said.add(subject)
                self._core.effects.append(Warn(reason))
                if subject == "publisher":
                    self._tell_all()

    def next_ns(self) -> int | None:
        """When a warning is due."""
        due = [since for subject, since in self._since.items() if subject not in self._said]
        return min(due) + WARN_AFTER_MS * MS if due else None

    def _wrong(self, beat_store: int) -> dict[str, str]:
        core = self._core
        if not core.wanted or core.failed:
            return {}
        if not core.linked:
            return {"publisher": core.unlinked()}
        wrong = {}
        if core.unanswered:
            wrong["requests"] = (
                f"{core.requests} does not answer requests: is it a server's request endpoint?"
            )
        if core.unknown:
            wrong["stream"] = self._unknown()
        stream = next(iter(core.streams.values()), None)
        if stream is not None and stream.phase is LIVE and beat_store and stream.store_id != beat_store:
            wrong["store"] = (
                f"{core.live} and {core.requests} belong to different servers: their stores differ"
            )
        return wrong

    def _unknown(self) -> str:
        core = self._core
        slot, reason = next(iter(core.unknown.items()))
        others = f", and {len(core.unknown) - 1} streams more" if len(core.unknown) > 1 else ""
        return f"{core.streams[slot].key} is waited for{others}: {reason}"

    def _tell_all(self) -> None:
        """Streams that never left CONNECTING have told nobody."""
        for stream in self._core.streams.values():
            if self._core.columns.state[stream.slot] == StreamState.CONNECTING:
                self._core.effects.append(
                    Tell(stream.slot, stream.key, StreamState.CONNECTING, self._core.unlinked())
                )

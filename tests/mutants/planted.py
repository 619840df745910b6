"""The fixed list: changes that a test must notice, by name. In Python it is what once was changed and noticed by
nobody; of the C code see `planted_in_c.py`.

`old` stands in the file once (or, with `every`, at least once); where it no longer does, the entry has to follow the
code, and `tools/mutate --planted` says so.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.planted_in_c import IN_C, SYNCS, Planted

_LIVE: Final = (
    "system/test_client_clock*",
    "unit/test_clock*",
    "unit/test_live*",
    "unit/test_requester*",
    "unit/test_sockets*",
)

_PROMISES: Final = (
    Planted(
        "sync-of-a-group",
        "ext/append.h",
        "if (sync && fdatasync(end->fd)) return -1;",
        "",
        SYNCS,
    ),
    Planted(
        "sync-of-the-syncer",
        "src/flux/journal/journal.py",
        "        try:\n            os.fdatasync(self._end.fd)\n",
        "        try:\n            pass\n",
        SYNCS,
    ),
    Planted(
        "cursor-ahead",
        "src/flux/server/requests/live_view.py",
        "        self.cursors_ahead += 1\n",
        "        return\n",
        ("system/test_identity*", "unit/test_router*"),
    ),
    Planted(
        "late-cache",
        "src/flux/limits.py",
        "CACHE_FLUSH_MS: Final = 250",
        "CACHE_FLUSH_MS: Final = 600_000",
        ("unit/test_limits*", "unit/test_keeper*", "unit/test_cache*"),
    ),
    Planted(
        "no-recent-marks",
        "src/flux/server/pipeline/heartbeat.py",
        'heads["moved_ns"] > now - limits.MARK_RECENT_MS * 1_000_000',
        "np.zeros(len(heads), bool)",
        ("unit/test_heartbeat*",),
    ),
    Planted("wall-clock", "src/flux/client/loop.py", "monotonic_ns", "time_ns", _LIVE, every=True),
    Planted(
        "cold-rings",
        "src/flux/server/storage/warm.py",
        "min(streams.ring(slot).capacity, WARM_ROWS, head.head)",
        "0",
        ("unit/test_service*", "unit/test_warm*", "system/test_feed*", "system/test_durab*"),
    ),
    Planted(
        "loop-age",
        "src/flux/server/vitals.py",
        "turned = max(self.loop_turned_ns, self.also_turned())",
        "turned = time.monotonic_ns()",
        ("unit/test_heartbeat*",),
    ),
    Planted(
        "marks-stand-still",
        "src/flux/server/pipeline/heartbeat.py",
        "self._mark_from = self._mark_from + size if self._mark_from + size < len(heads) else 0",
        "self._mark_from = 0",
        ("unit/test_heartbeat*",),
    ),
    Planted(
        "no-back-off",
        "src/flux/transport/sockets.py",
        "        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)\n",
        "",
        ("unit/test_sockets*",),
    ),
    Planted(
        "log-repeats",
        "src/flux/limits.py",
        "LOG_REPEAT_NS: Final = 1_000_000_000",
        "LOG_REPEAT_NS: Final = 1",
        ("unit/test_limits*", "unit/test_drops*"),
    ),
    Planted(
        "store-in-silence",
        "src/flux/server/storage/projection.py",
        'self._vitals.set("store", State.DEGRADED, without_database(self._projection.directory, error))',
        "pass",
        ("unit/test_projector*",),
    ),
    Planted(
        "sync-in-silence",
        "src/flux/server/pipeline/syncer.py",
        'self._vitals.set("sync", State.UNHEALTHY, f"the journal does not sync: {error}")',
        "pass",
        ("unit/test_syncer*", *SYNCS),
    ),
    Planted(
        "last-sync-in-silence",
        "src/flux/server/pipeline/committer.py",
        'self._vitals.set("sync", State.UNHEALTHY, f"the journal does not sync: {error}")',
        "pass",
        ("unit/test_syncer*", "unit/test_committer*", *SYNCS),
    ),
    Planted(
        "no-deadline",
        "src/flux/limits.py",
        "REQUEST_DEADLINE_MS: Final = 2_000",
        "REQUEST_DEADLINE_MS: Final = 4_900",
        ("unit/test_limits*", "unit/test_router*"),
    ),
    Planted(
        "replies-held-for-ever",
        "src/flux/server/requests/router.py",
        "if len(held.replies) >= MAX_HELD_REPLIES or held.bytes + size > MAX_REPLY_BYTES:",
        "if False:",
        ("unit/test_router*",),
    ),
    Planted(
        "replies-without-bound",
        "src/flux/limits.py",
        "MAX_HELD_REPLIES: Final = 1_024",
        "MAX_HELD_REPLIES: Final = 1_000_000",
        ("unit/test_limits*", "unit/test_router*"),
    ),
    Planted(
        "notices-without-bound",
        "src/flux/limits.py",
        "MAX_NOTICES: Final = 10_000",
        "MAX_NOTICES: Final = 100_000_000",
        ("unit/test_limits*", "unit/test_live_limits*"),
    ),
    Planted(
        "pending-without-bound",
        "src/flux/limits.py",
        "CACHE_PENDING_ROWS: Final = 1_000_000",
        "CACHE_PENDING_ROWS: Final = 1_000_000_000",
        ("unit/test_limits*", "unit/test_keeper*", "unit/test_cache*"),
    ),
    Planted(
        "a-cache-that-broke",
        "src/flux/client/keeper.py",
        "            if self._broken:\n                return\n            self._broken, self.failure",
        "            if not self._broken:\n                return\n            self._broken, self.failure",
        ("unit/test_keeper*", "unit/test_cache*", "unit/test_live*"),
    ),
    Planted(
        "ingest-without-bound",
        "src/flux/transport/sockets.py",
        "socket = self._make(zmq.PULL, send=1, receive=INGEST_HWM,",
        "socket = self._make(zmq.PULL, send=1, receive=0,",
        ("unit/test_sockets*", "unit/test_limits*"),
    ),
    Planted(
        "queued-for-nobody",
        "src/flux/transport/sockets.py",
        "socket.setsockopt(zmq.IMMEDIATE, 1)",
        "socket.setsockopt(zmq.IMMEDIATE, 0)",
        ("unit/test_sockets*", "system/test_feed*"),
    ),
)

__all__ = ["PLANTED", "Planted"]

PLANTED: Final = (*_PROMISES, *IN_C)

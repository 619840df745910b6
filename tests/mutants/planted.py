"""The fixed list: changes that a test must notice, by name. In C there is no mutator, so its commit path is here line
by line; in Python it is what once was changed and noticed by nobody.

`old` stands in the file once (or, with `every`, at least once); where it no longer does, the entry has to follow the
code, and `tools/mutate --planted` says so.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Planted(NamedTuple):
    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...] = ()  # globs below tests/, before those that are nearest to the file anyway
    every: bool = False


_SYNCS: Final = ("system/test_syncs*", "unit/test_journal_s*", "unit/test_recover_disk*")
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
        "ext/bridge.h",
        "if (sync && fdatasync(j->fd)) return -1;",
        "",
        _SYNCS,
    ),
    Planted(
        "sync-of-the-syncer",
        "src/flux/journal/journal.py",
        "        try:\n            os.fdatasync(self._fd)\n",
        "        try:\n            pass\n",
        _SYNCS,
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
        ("unit/test_syncer*", *_SYNCS),
    ),
    Planted(
        "last-sync-in-silence",
        "src/flux/server/pipeline/committer.py",
        'self._vitals.set("sync", State.UNHEALTHY, f"the journal does not sync: {error}")',
        "pass",
        ("unit/test_syncer*", "unit/test_committer*", *_SYNCS),
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
        "            if self._broken:\n                return\n            self._broken = True\n",
        "            if not self._broken:\n                return\n            self._broken = True\n",
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

_COMMIT: Final = (
    Planted(
        "marks-after-publish",
        "ext/bridge.h",
        "    flux_mark_committed(c->streams, g, flux_clock(CLOCK_MONOTONIC));\n"
        "    flux_exchange_committed(x, j->file, j->offset);\n"
        "    flux_publish(c->zmq, c->socket, c->streams, g, NULL, NULL, g->count, c->scratch, c->scratch_size, "
        "&c->sent);\n",
        "    flux_publish(c->zmq, c->socket, c->streams, g, NULL, NULL, g->count, c->scratch, c->scratch_size, "
        "&c->sent);\n"
        "    flux_mark_committed(c->streams, g, flux_clock(CLOCK_MONOTONIC));\n"
        "    flux_exchange_committed(x, j->file, j->offset);\n",
    ),
    Planted("no-fence", "ext/bridge.h", "if (flux_fence_store(j, c->store_id, c->epoch)) {", "if (0) {"),
    Planted("one-fence-page", "ext/bridge.h", "    int slot = 1 - j->slot;\n", "    int slot = j->slot;\n"),
    Planted(
        "fence-refused",
        "ext/bridge.h",
        "        j->offset = start;\n        if (j->synced > start) j->synced = start;\n        return 1;\n",
        "        return 1;\n",
        ("unit/test_fence*",),
    ),
    Planted("fence-serial", "ext/bridge.h", "    j->serial++;\n", ""),
    Planted("runs-unmarked", "ext/bridge.h", "    flux_mark_runs(c->receiver, g);\n", ""),
    Planted(
        "streams-unmarked",
        "ext/bridge.h",
        "    flux_mark_committed(c->streams, g, flux_clock(CLOCK_MONOTONIC));\n",
        "",
    ),
    Planted("position-untold", "ext/bridge.h", "    flux_exchange_committed(x, j->file, j->offset);\n", ""),
    Planted(
        "noted-groups", "ext/bridge.h", "if (x->filled[x->taken].noted || c->by_python", "if (c->by_python"
    ),
    Planted("past-the-limit", "ext/bridge.h", "j->offset + g->used + FLUX_COMMIT_SIZE > j->limit)", "0)"),
    Planted(
        "refused-write",
        "ext/bridge.h",
        "        if (written < 0) return -1;\n",
        "        if (written < 0) break;\n",
        ("system/test_full_disk*",),
    ),
    Planted(
        "short-write", "ext/bridge.h", "        size -= (uint64_t)written;\n", "        size = 0;\n", _SYNCS
    ),
    Planted(
        "interrupted-write",
        "ext/bridge.h",
        "        if (written < 0 && errno == EINTR) continue;\n",
        "",
        _SYNCS,
    ),
    Planted("offset-stays", "ext/bridge.h", "    j->offset += size;\n", ""),
    Planted("synced-stays", "ext/bridge.h", "    if (sync) j->synced = j->offset;\n", ""),
    Planted("first-again", "ext/bridge.h", "s->turn_next = s->head + 1;", "s->turn_next = s->head;"),
    Planted("one-run-a-turn", "ext/bridge.h", "        s->turn_next += a->rows;\n", ""),
    Planted(
        "another-run-of-that-place",
        "ext/bridge.h",
        "        if (run->serial != e->label >> 32) continue;\n",
        "",
    ),
    Planted("source-each-turn", "ext/bridge.h", "r->runs[run].taken != r->runs[run].recorded)", "1)"),
    Planted("source-forgotten", "ext/bridge.h", "    run->recorded = run->taken;\n", ""),
    Planted(
        "a-group-lost",
        "ext/bridge.h",
        "        if (x->handed || flux_commit_group(c, j)) {",
        "        if (flux_commit_group(c, j)) {",
    ),
    Planted("lent-with-disk", "ext/bridge.h", "c->disk ? NULL : &lender", "&lender"),
    # Not `f->noted` in flux_exchange_borrow: what is noted is handed to the committer all the same (flux_commit_group).
    Planted("borrow-any-size", "ext/exchange.h", "f->group->used > most)", "0)"),
    Planted(
        "borrow-from-nobody",
        "ext/exchange.h",
        "if (!x->lender || !x->waiting || x->lent",
        "if (!x->lender || x->lent",
    ),
    Planted("noted-for-ever", "ext/exchange.h", "    x->filled[x->taken].noted = 0;\n", ""),
    Planted("beat-twice", "ext/bridge.h", "        x->beat_size = 0;\n", ""),
    Planted("group-crc", "ext/journal.h", "flux_put32(body + 16, crc);", "flux_put32(body + 16, 0);"),
    Planted("commit-of-others", "ext/journal.h", "flux_get64(body) != scan->group ||", ""),
    Planted(
        "header-crc",
        "ext/journal.h",
        "    if (flux_crc32c(0, record, 8) != flux_get32(record + 8)) return FLUX_SCAN_HEADER;\n",
        "",
    ),
    Planted(
        "body-crc",
        "ext/journal.h",
        "return flux_crc32c(0, body + from, length - from - 4) == flux_get32(body + length - 4);",
        "return 1;",
    ),
    Planted("resumes", "ext/journal.h", "            scan->resumes = 1;\n", ""),
    Planted(
        "entries-full", "ext/journal.h", "group->count == group->entry_capacity || group->used", "group->used"
    ),
    Planted(
        "admit-time",
        "ext/admit.h",
        "return ms >= FLUX_TIME_FIRST_MS && ms < FLUX_TIME_LAST_MS;",
        "return ms > FLUX_TIME_FIRST_MS && ms < FLUX_TIME_LAST_MS;",
    ),
    Planted("admit-high-low", "ext/admit.h", "    if (c->high < c->low) return FLUX_ADMIT_HIGH_LOW;\n", ""),
    Planted(
        "admit-order",
        "ext/admit.h",
        "(uint64_t)order > (uint64_t)highest : order > highest",
        "order > highest : order > highest",
    ),
    Planted(
        "admit-repeat",
        "ext/admit.h",
        "            if (flux_row_same(kind, row, other)) return FLUX_ADMIT_REPEAT;\n",
        "",
    ),
    Planted("admit-grid", "ext/admit.h", "    if (grid_ms && ts % grid_ms) return FLUX_ADMIT_GRID;\n", ""),
    Planted(
        "admit-late",
        "ext/admit.h",
        "return seen ? FLUX_ADMIT_CORRECTION : FLUX_ADMIT_LATE;",
        "return FLUX_ADMIT_CORRECTION;",
    ),
    Planted(
        "admit-flags",
        "ext/admit.h",
        "flags &= known & ~(correction | FLUX_LATE);",
        "flags &= known;",
    ),
)

PLANTED: Final = (*_PROMISES, *_COMMIT)

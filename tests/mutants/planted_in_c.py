"""The planted faults of the C code, where there is no mutator: its commit path line by line, and what it admits."""

from __future__ import annotations

from typing import Final, NamedTuple


class Planted(NamedTuple):
    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...] = ()  # globs below tests/, before those that are nearest to the file anyway
    every: bool = False


SYNCS: Final = ("system/test_syncs*", "unit/test_journal_s*", "unit/test_recover_disk*")
_KERNEL: Final = ("kernels/test_marks*", "kernels/test_stand*", "unit/test_exchange*", "unit/test_fence*")
_MARKS: Final = "    flux_mark_committed(c->streams, g, flux_clock(CLOCK_MONOTONIC));\n"
_POSITION: Final = "    flux_position_move(&c->exchange->position, c->end->file, c->end->offset);\n"
_PUBLISH: Final = (
    "    flux_publish(c->zmq, c->socket, c->streams, g, o->entries, o->spoilt, o->count, c->scratch, c->scratch_size, "
    "&c->sent);\n"
)

IN_C: Final = (
    Planted(
        "marks-after-publish",
        "ext/commit.h",
        _MARKS + _POSITION + _PUBLISH,
        _POSITION + _PUBLISH + _MARKS,
        _KERNEL,
    ),
    Planted("position-after-publish", "ext/commit.h", _POSITION + _PUBLISH, _PUBLISH + _POSITION, _KERNEL),
    Planted("no-fence", "ext/commit.h", "if (flux_fence_store(", "if (0 && flux_fence_store(", _KERNEL),
    Planted("one-fence-page", "ext/append.h", "{f->fd, 1 - f->slot,", "{f->fd, f->slot,", _KERNEL),
    Planted(
        "fence-refused",
        "ext/commit.h",
        "        flux_end_take_back(end, start);",
        "        (void)start;",
        _KERNEL,
    ),
    Planted(
        "fence-slot-of-a-refusal",
        "ext/append.h",
        "(uint64_t)next.slot * FLUX_FENCE_PAGE)) return -1;\n    *f = next;\n    return 0;",
        "(uint64_t)next.slot * FLUX_FENCE_PAGE)) return *f = next, -1;\n    *f = next;\n    return 0;",
        _KERNEL,
    ),
    Planted("fence-serial", "ext/append.h", "file, f->serial + 1};", "file, f->serial};", _KERNEL),
    Planted("runs-unmarked", "ext/commit.h", "    flux_mark_runs(c->receiver, g);\n", "", _KERNEL),
    Planted("streams-unmarked", "ext/commit.h", _MARKS, "", _KERNEL),
    Planted("position-untold", "ext/commit.h", _POSITION, "", _KERNEL),
    Planted(
        "python-not-asked",
        "ext/commit.h",
        "if (f->by_python || c->ask_always) {",
        "if (c->ask_always) {",
        _KERNEL,
    ),
    Planted(
        "never-asked", "ext/commit.h", "if (f->by_python || c->ask_always) {", "if (f->by_python) {", _KERNEL
    ),
    Planted(
        "asked-after-showing",
        "ext/commit.h",
        "            flux_exchange_keep(x);\n",
        "            flux_show(c, f->group, NULL);\n            flux_exchange_keep(x);\n",
        _KERNEL,
    ),
    Planted(
        "order-for-ever",
        "ext/commit.h",
        "flux_commit_held(c, held ? order : NULL)",
        "flux_commit_held(c, order)",
        _KERNEL,
    ),
    Planted(
        "heard-for-ever",
        "ext/commit.h",
        "else if (!held && flux_hear_subscriber(c))",
        "else if (flux_hear_subscriber(c))",
        _KERNEL,
    ),
    Planted(
        "heard-too-late",
        "ext/commit.h",
        "flux_hear_subscriber(c) ? FLUX_COMMIT_HEARD : flux_keep(c, g);",
        "flux_keep(c, g);",
        _KERNEL,
    ),
    Planted(
        "past-the-limit",
        "ext/append.h",
        "return end->offset + g->used + FLUX_COMMIT_SIZE <= end->limit;",
        "return end->offset + g->used <= end->limit;",
        _KERNEL,
    ),
    Planted(
        "no-limit", "ext/commit.h", "if (!flux_end_fits(end, g)) return FLUX_COMMIT_NO_ROOM;", "", _KERNEL
    ),
    Planted(
        "refused-write",
        "ext/append.h",
        "        if (written < 0) return -1;\n",
        "        if (written < 0) break;\n",
        ("system/test_full_disk*",),
    ),
    Planted(
        "short-write", "ext/append.h", "        size -= (uint64_t)written;\n", "        size = 0;\n", SYNCS
    ),
    Planted(
        "interrupted-write",
        "ext/append.h",
        "        if (written < 0 && errno == EINTR) continue;\n",
        "",
        SYNCS,
    ),
    Planted("offset-stays", "ext/append.h", "    end->offset += size;\n", "", _KERNEL),
    Planted(
        "offset-of-a-refusal",
        "ext/append.h",
        "if (flux_write_all(end->fd, g->data, size, end->offset)) return -1;",
        "if (flux_write_all(end->fd, g->data, size, end->offset)) return end->offset += size, -1;",
        _KERNEL,
    ),
    Planted(
        "spoiled-stays",
        "ext/append.h",
        "    if (end->spoiled < end->offset + size) end->spoiled = end->offset + size;\n",
        "",
        ("unit/test_journal*",),
    ),
    Planted("synced-stays", "ext/append.h", "    if (sync) end->synced = end->offset;\n", "", _KERNEL),
    Planted(
        "synced-of-a-refusal",
        "ext/append.h",
        "    if (end->synced > offset) end->synced = offset;\n",
        "",
        _KERNEL,
    ),
    Planted("first-again", "ext/bridge.h", "s->turn_next = s->head + 1;", "s->turn_next = s->head;"),
    Planted("one-run-a-turn", "ext/bridge.h", "        s->turn_next += a->rows;\n", ""),
    Planted(
        "another-run-of-that-place",
        "ext/commit.h",
        "        if (run->serial != e->label >> 32) continue;\n",
        "",
    ),
    Planted(
        "source-each-turn",
        "ext/bridge.h",
        "if (!run || run->taken == run->recorded) continue;",
        "if (!run) continue;",
    ),
    Planted("source-forgotten", "ext/bridge.h", "        run->recorded = run->taken;\n", ""),
    Planted(
        "a-group-lost",
        "ext/exchange.h",
        "        took = FLUX_TOOK_LEFT;\n",
        "        took = FLUX_TOOK_NONE;\n",
        _KERNEL,
    ),
    Planted(
        "left-and-committed-at-once",
        "ext/exchange.h",
        "        took = FLUX_TOOK_LEFT;\n",
        "        took = FLUX_TOOK_NEW;\n",
        _KERNEL,
    ),
    Planted(
        "stand-in-with-disk",
        "ext/bridge.pyx",
        "NULL if disk or ask_always else c",
        "NULL if ask_always else c",
        _KERNEL,
    ),
    Planted(
        "stand-in-unasked",
        "ext/bridge.pyx",
        "NULL if disk or ask_always else c",
        "NULL if disk else c",
        _KERNEL,
    ),
    Planted("stand-in-for-python", "ext/exchange.h", "x->closed || f->by_python ||", "x->closed ||", _KERNEL),
    Planted("stand-in-of-any-size", "ext/exchange.h", "f->group->used > most)", "0)", _KERNEL),
    Planted(
        "stand-in-for-nobody",
        "ext/exchange.h",
        "if (x->state != FLUX_WAITING || !x->committer",
        "if (!x->committer",
        _KERNEL,
    ),
    Planted(
        "recalled-and-not-woken",
        "ext/exchange.h",
        "left != FLUX_SPARE || x->state == FLUX_RECALLED;",
        "left != FLUX_SPARE;",
        _KERNEL,
    ),
    Planted(
        "left-and-not-woken",
        "ext/exchange.h",
        "left != FLUX_SPARE || x->state == FLUX_RECALLED;",
        "x->state == FLUX_RECALLED;",
        _KERNEL,
    ),
    Planted(
        "not-recalled",
        "ext/exchange.h",
        "    if (x->state == FLUX_STAND_IN) flux_exchange_go(x, FLUX_RECALLED);\n",
        "",
        _KERNEL,
    ),
    Planted(
        "not-cleared",
        "ext/exchange.h",
        "if (left == FLUX_SPARE) flux_group_clear(flux_exchange_other(x)->group);",
        "",
        _KERNEL,
    ),
    Planted(
        "unsent-and-written-again",
        "ext/commit.h",
        "flux_show(c, g, NULL))) left = FLUX_KEPT;",
        "flux_show(c, g, NULL))) left = FLUX_TAKEN;",
        _KERNEL,
    ),
    Planted("any-state", "ext/exchange.h", "        abort();\n", "", _KERNEL),
    Planted(
        "position-not-told",
        "ext/exchange.h",
        "    pthread_cond_broadcast(&p->moved);\n",
        "",
        ("unit/test_committer*", *_KERNEL),
    ),
    Planted("asked-for-ever", "ext/exchange.h", "    f->by_python = 0;\n", "", _KERNEL),
    Planted("beat-twice", "ext/commit.h", "    x->beat_size = 0;\n", "", _KERNEL),
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

"""Which tests are nearest to a file: those of its name first, then those of its room. A table by hand, for C, for lines
that run at an import, and for lines of which it is not known which tests run them (`known.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

ROOMS: Final = (
    "src/flux/server",
    "src/flux/client",
    "src/flux/protocol",
    "src/flux/journal",
    "src/flux/feed/push.py",
    "src/flux/feed/delivery.py",
)

_START: Final = (
    *(
        "unit/test_recover*",
        "unit/test_directory*",
        "unit/test_lineage*",
        "unit/test_records*",
        "unit/test_format*",
        "unit/test_files_between*",
        "unit/test_losses*",
        "unit/test_salvage*",
    ),
)
_COMMIT: Final = (
    *(
        "unit/test_committer*",
        "unit/test_exchange*",
        "kernels/test_bridge*",
        "unit/test_fence*",
        "unit/test_journal_s*",
    ),
    *("unit/test_stopping*", "unit/test_heartbeat*"),
)
_ASKED: Final = ("unit/test_router*", "unit/test_answers*", "unit/test_backfill*", "unit/test_pages*")
_PROTOCOL: Final = ("unit/test_coordinator.py", "unit/test_history*", "unit/test_coordinator_*")
_CLIENT: Final = (
    *(
        "unit/test_live*",
        "unit/test_historical*",
        "unit/test_cache*",
        "unit/test_keeper*",
        "unit/test_threads*",
    ),
    "unit/test_concurrent*",
)
_SERVED: Final = (
    *("unit/test_live.py", "unit/test_threads*", "unit/test_v1_publishing*", "unit/test_listing*"),
    *("system/test_database*", "system/test_syncs*"),
)
_PROJECTED: Final = ("unit/test_projector*", "contract/test_store*", "unit/test_duck*")

# By the beginning of a path; the longest that fits counts. The server of most tests in unit/ runs in a thread.
_BY_PATH: Final[dict[str, tuple[str, ...]]] = {
    "src/flux/server": (*_COMMIT, *_START, *_ASKED, *_SERVED),
    "src/flux/server/storage/recover": (
        *_START,
        "unit/test_committer*",
        "system/test_rebuild*",
        "system/test_bad_input*",
    ),
    "src/flux/server/storage/rebuild": (*_START, "system/test_rebuild*"),
    "src/flux/server/storage/damage": (*_START, "system/test_rebuild*"),
    "src/flux/server/storage/directory": _START,
    "src/flux/server/identity": _START,
    "src/flux/journal/records": (*_START, *_COMMIT),
    "src/flux/server/storage/projection": (*_PROJECTED, *_COMMIT),
    "src/flux/server/pipeline/committer": (*_COMMIT, *_SERVED),
    "src/flux/server/pipeline/exchange": (*_COMMIT, *_SERVED),
    "src/flux/server/pipeline/syncer": (*_COMMIT, *_SERVED),
    "src/flux/server/pipeline/sessions": (*_COMMIT, "system/test_feed*"),
    "src/flux/server/pipeline/inputs": (
        "unit/test_replay*",
        *_COMMIT,
        "system/test_feed*",
        "system/test_end_to_end*",
    ),
    "src/flux/server/memory": ("system/test_memory_watch*",),
    "src/flux/server/requests/router": (*_ASKED, "unit/test_requester*", *_SERVED),
    "src/flux/server/requests/answers": (*_ASKED, *_SERVED),
    "src/flux/server/requests/backfill": (*_ASKED, *_SERVED, "system/test_rebuild*"),
    "src/flux/server/requests/pages": (*_ASKED, *_SERVED),
    "src/flux/server/foreground": (
        "system/test_bad_input*",
        "system/test_durability*",
    ),
    "src/flux/client": _CLIENT,
    "src/flux/client/historical": ("unit/test_historical*", *_CLIENT),
    "src/flux/client/keeper": ("unit/test_cache*", *_CLIENT),
    "src/flux/client/cache": ("unit/test_cache*", *_CLIENT),
    "src/flux/protocol": (*_PROTOCOL, "unit/test_live*"),
    "src/flux/protocol/sequencer": ("unit/test_sequencer*", *_COMMIT),
    "src/flux/journal": ("unit/test_journal*", "kernels/test_journal*", *_START, *_COMMIT),
    "src/flux/journal/fence": ("unit/test_journal*", *_START, *_COMMIT),
    **dict.fromkeys(
        ("src/flux/feed/push", "src/flux/feed/delivery"),
        (
            "unit/test_descriptors*",
            "unit/test_threads*",
            "unit/test_feed_answers*",
            "system/test_feed*",
            "system/test_quiet_feeds*",
        ),
    ),
    "ext": (
        "kernels/test_marks*",
        "kernels/test_stand*",
        "system/test_borrowed*",
        "system/test_commit_path*",
        "system/test_syncs*",
        "kernels/test_bridge*",
        "kernels/test_admit*",
        "unit/test_journal*",
        *_COMMIT,
        "kernels/test_pump_record*",
    ),
}


def nearest(path: str) -> list[str]:
    """The test files for a source file, nearest first, as paths from the project's root. Never none.

    Raises ValueError for a file that is in none of the rooms.
    """
    own = Path(path).stem
    globs = [f"unit/test_{own}*", f"kernels/test_{own}*"]
    fitting = [begin for begin in _BY_PATH if path.startswith(begin)]
    if not fitting:
        raise ValueError(f"{path} is in none of the rooms")
    globs += _BY_PATH[max(fitting, key=len)]
    found = dict.fromkeys(name for glob in globs for name in matching(glob))
    assert found, path
    return list(found)


def matching(glob: str) -> list[str]:
    """The test files, from the project's root, that a glob below tests/ stands for."""
    names = sorted((ROOT / "tests").glob(glob if glob.endswith(".py") else f"{glob}.py"))
    return [str(name.relative_to(ROOT)) for name in names]


def named() -> set[str]:
    """Every glob of the table; one that stands for no file would leave a promise unwatched, and nobody know of it."""
    return {glob for globs in _BY_PATH.values() for glob in globs}


def sources() -> list[str]:
    """The files of the rooms that hold promises, in order."""
    found = []
    for room in ROOMS:
        at = ROOT / room
        found += [at] if at.suffix == ".py" else sorted(at.rglob("*.py"))
    return [str(one.relative_to(ROOT)) for one in found if one.exists()]

"""Every bound, with its unit, and how the bounds relate. Nothing in flux grows without one of these.

`server_bytes` adds up what a server may take in the worst case. Most bounds are kept where the thing itself is made.
What peers make libzmq keep is not: it bounds messages, and a message may have parts for ever. So a server watches its
own memory (`server/memory.py`) against that sum, and drops the connection that sent most of late while over it. A
client, which shares a process with others, watches its connections (`transport/intake.py`). Which queue each of these
bounds, and what happens when it is full: `docs/architecture.md`.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# Frames
MAX_LIVE_ROWS: Final = 64  # rows in a message that we publish
MAX_REPLY_ROWS: Final = 10_000  # rows in a reply
MAX_RANGE_ROWS: Final = (
    1 << 25
)  # rows that Historical.get_range puts together: 2 GiB of candles; iter_range has no bound
RANGE_SPARE_ROWS: Final = (
    10 * MAX_REPLY_ROWS
)  # rows that may be superseded by others before they are let go of
MAX_REPLY_BYTES: Final = 4 * MIB
MAX_REQUEST_BYTES: Final = 64 * KIB
MAX_FRAME_BYTES: Final = 4 * MIB  # any frame we accept (MAXMSGSIZE)
MAX_TOPIC_BYTES: Final = 128
MAX_HEAD_BYTES: Final = 384  # a v2 message before its first row
MAX_VERIFY_TABLES: Final = 1_000_000
MAX_CORRELATION_BYTES: Final = 4 * KIB  # longer ones decode, but are not echoed
MAX_STREAM_ID: Final = 1_048_576  # that a peer may name: a client keeps an array by it, 8 bytes each
MAX_HEARTBEAT_INTERVAL_MS: Final = 60_000  # that a server may announce

# Streams and rings
MAX_STREAMS: Final = 100_000
MAX_RUNS: Final = 1_024  # feed runs whose position is remembered
MAX_ROWLESS_RUNS: Final = MAX_RUNS // 4  # of them durable ones, and ones of one process, that have no rows
ONE_LIFE_PLACES: Final = MAX_RUNS // 8  # for runs of one process, however many durable ones there are
CLAIMS_PER_TURN: Final = 32  # runs registered or taken over in one turn of the loop
MAX_CLAIMS_WAITING: Final = 256  # for the loop; who comes then is told to ask again
NOTES_PER_GROUP: Final = 512  # streams, and as many positions, put into a group at once beside rows
LOOP_LATE_MS: Final = 5_000  # a loop that has not come round for so long takes no rows: the server is not OK
ONE_LIFE_RUNS: Final = (
    1 << 62
)  # a number: a feed's run from here on is of one process; below, durable or unregistered
RING_CLASSES: Final = ((16, 262_144), (64, 65_536), (256, 16_384), (4_096, 1_024), (MAX_STREAMS, 16))
"""(streams up to, rows per ring): the first streams of a process get long rings, later ones short ones."""
MAX_RING_BYTES: Final = 1 * GIB
MAPPED_RING_ROWS: Final = 4_096  # rings of so many rows or more are mapped twice in a row
MAX_MAPPED_RINGS: Final = 8_192  # of a process: each takes two of the 65,530 mappings that Linux allows it

# Windows
WINDOW_KEPT_ROWS: Final = 4_096  # newest rows a window remembers: what it can still correct
WINDOW_OPEN_ROWS: Final = (
    1_048_576  # rows of the open bucket that a window remembers: 64 MiB, twice that for moments
)
WINDOW_OUT_ROWS: Final = 65_536  # buckets written by one call of the kernel
AGGREGATE_ROWS: Final = 65_536  # rows between two calls of the user's function
MAX_BUCKET_ROWS: Final = 4_194_304  # rows of the open bucket that an aggregate may need: 256 MiB
RESAMPLED_BYTES: Final = 64 * MIB  # buckets of all intervals that a Resampler remembers
MAX_INDICATOR_ROWS: Final = 1_000_000  # rows that a rolling indicator looks back
ZONE_YEARS: Final = (1900, 2200)  # of days, weeks and months in a named zone
ZONE_HOURS: Final = 14  # from UTC at most, in a time that is written with its zone
ZONE_EDGES: Final = 4_000_000  # buckets below a day in one such list: 32 MB
ZONE_EDGE_LISTS: Final = 64  # lists of those days, by zone, interval and years

# Files to replay
CSV_BLOCK_BYTES: Final = 128 * KIB  # parsed at once: some 2 ms in which other threads wait
CSV_LINE_BYTES: Final = 64 * KIB  # more is no line
CSV_SAMPLE_ROWS: Final = 10_000  # looked at for the interval
MAX_FAULTS_LISTED: Final = 10

# Receiving
MAX_ARRIVALS: Final = 4_096  # messages per turn of a loop
INBOX_BYTES: Final = 2 * MIB  # rows per turn of a server's loop
MAX_INGEST_ROWS: Final = 4_096  # rows in a message of a feed
MAX_AHEAD_MS: Final = 60_000  # a live row may be so far ahead of the server's clock
MAX_FEED_REFUSED: Final = 10_000  # refused rows that a feed keeps for its caller, the last
MAX_REFUSED_LISTED: Final = 256  # refused rows of a run that can be asked for
INGEST_HWM: Final = 20_000  # messages
FEED_PENDING_BYTES: Final = 64 * MIB  # rows a feed keeps until they are committed

# Journal
JOURNAL_FILE_BYTES: Final = 256 * MIB
GROUP_BYTES: Final = 16 * MIB  # one group of records between two commits
TURN_RECORDS: Final = (
    2 * MAX_ARRIVALS + INBOX_BYTES // 40 // MAX_LIVE_ROWS + 64 + MAX_RUNS
)  # records of one turn: a batch per message, of which a stream's rows make one more where they are full and one more
# where its ring ends; the feeds' positions. A group is bounded in records as well as in bytes
TURN_BYTES: Final = INBOX_BYTES + TURN_RECORDS * (
    MAX_HEAD_BYTES + MAX_TOPIC_BYTES + 32
)  # with a head and a topic each
MAX_RECORD_BYTES: Final = 16 * MIB  # as read from a file: more is not a record
INDEX_BYTES: Final = (
    128 * MIB
)  # of where rows lie in the journal's files: 2 GiB of single rows of very many streams
PAST_READ_BYTES: Final = 32 * MIB  # of the journal read for one page: what is left comes with the next
PAST_SEARCH_ROWS: Final = 1_000_000  # of the journal looked at for a time
WARM_ROWS: Final = 4_096  # of a stream, out of the journal into its ring at a start
WARM_FILES: Final = 2  # of the journal read for that, the newest

# Publishing
LIVE_HWM: Final = 65_536  # messages per subscriber: x 64 rows of 64 bytes is 256 MiB, with heads under 320
MAX_SUBSCRIPTIONS: Final = 200_000  # prefixes of all subscribers together
MAX_SUBSCRIBE_BYTES: Final = 4 * KIB  # a frame that a subscriber sends; more disconnects it
SUBSCRIPTIONS_PER_LOOK: Final = 64  # messages of subscribers taken between two groups
V1_STREAMS_PER_LOOK: Final = 128  # streams whose version 1 subscription is looked up between two groups
LINGER_MS: Final = 500  # a closing socket waits this long for what it has still to send
HEARTBEAT_MS: Final = 1_000
MAX_MARKS: Final = 4_096  # per heartbeat message
MAX_REASON_CHARS: Final = 4_000  # of a heartbeat and of a health reply; the log has the whole of it
MARK_RECENT_MS: Final = 5_000  # a head that moved within this is in every heartbeat
MARK_ROUND_MS: Final = 30_000  # each head is in a heartbeat at least this often

# Memory
PEERS_BYTES: Final = (
    1 * GIB
)  # in libzmq's queues and for peers that do not read: three stopped subscribers, say
PROGRAM_BYTES: Final = 256 * MIB  # Python and the libraries
STREAM_BYTES: Final = 4 * KIB  # of a stream, beside its ring: names, heads of messages, tables
MEMORY_WATCH_MS: Final = 50  # the memory, and the descriptors, are looked at this often
MAX_DESCRIPTORS: Final = 16_384  # a server asks the system for so many; every connection takes one
FREE_DESCRIPTORS: Final = 256  # kept free of connections, where an eighth of all is not less

# Requests
MAX_ENVELOPE_FRAMES: Final = 16  # before a request: its peer, and routers on the way
MAX_REPLIES_PER_PEER: Final = 8  # in flight
MAX_HELD_REPLIES: Final = 1_024  # per peer, and MAX_REPLY_BYTES: waiting until those in flight are read
REQUEST_HWM: Final = 16  # requests per peer that wait to be looked at
MAX_REQUESTS_PER_PEER: Final = 16  # backfills of one peer that were looked at and wait for their answer
REQUESTS_PER_TURN: Final = 64  # looked at before the next backfill is answered
MAX_REQUEST_FRAME_BYTES: Final = (
    4 * MAX_REQUEST_BYTES
)  # up to here a request is told its limit, beyond it is cut off
MAX_BACKFILL_QUEUE: Final = 256  # backfills waiting for the store, all peers together
REQUEST_DEADLINE_MS: Final = 2_000
MAX_LIST_STREAMS: Final = 1_000
LIST_STREAMS_PER_TURN: Final = 1_000  # names looked at for one list before other requests have their turn
MAX_NEAR_NAMES: Final = 5
NEAR_SEARCH_NAMES: Final = 500  # streams looked at for names like one that is unknown
NEAR_COMPARED_NAMES: Final = 50  # names compared with it: up to 0.3 ms each
NEAR_LENGTH: Final = 4  # characters by which they are shorter or longer
NEAR_SEARCHES_PER_S: Final = 10  # of all clients together
SEARCH_ROWS: Final = 4_096  # rows looked at per step when a time is searched for in a ring
ZSTD_MIN_ROWS: Final = 256  # fewer are not worth compressing

# Threads
SLICE_NS: Final = 100_000  # a thread that carries rows keeps a core so long before others get it

# Store
PROJECT_ROWS: Final = 20_000  # of an ordinary step: memory for them stands ready from the start
PROJECT_MAX_ROWS: Final = 200_000
STORE_WAL_BYTES: Final = 64 * MIB  # write-ahead log at which a commit checkpoints
STORE_IDLE_WAL_BYTES: Final = 1 * MIB  # write-ahead log at which an idle moment is used for it
STORE_MEMORY_BYTES: Final = 512 * MIB  # DuckDB's own buffers, per open file
STORE_FRAME_BYTES: Final = 64 * MIB  # a message between a server and its store's process
STORE_TOLD_MS: Final = 500  # the process says how it is at least this often
STORE_SILENT_MS: Final = 3_000  # one that says nothing for so long is not asked any more
STORE_ANSWER_MS: Final = 1_000  # a read of it may take so long
STORE_REOPEN_S: Final = 10.0  # wait for other threads' statements before a failed file is opened again

# Client
MAX_DELIVERY_ROWS: Final = 65_536  # rows in one delivered batch
MAX_DELIVERY_BATCHES: Final = 64  # waiting for the consumer
MAX_NOTICES: Final = 10_000  # state changes waiting for callbacks
MAX_TURNS: Final = 4  # of the receiving loop before it looks at its other sockets
MAX_ASKS: Final = 16  # requests in flight per client
CLIENT_PARTIAL_BYTES: Final = (
    2 * MAX_FRAME_BYTES
)  # that came by a connection and are no whole message: more end it
CLIENT_QUEUE_BYTES: Final = (
    LIVE_HWM * (MAX_LIVE_ROWS * 64 + MAX_HEAD_BYTES + MAX_TOPIC_BYTES) + CLIENT_PARTIAL_BYTES
)  # that came by a connection and were not taken, whole messages included: more end it
ANSWER_LOOK_MS: Final = 100  # who waits for an answer looks this often whether what came is a whole message
ANSWERS_PER_LOOK: Final = 2 * MAX_ASKS  # frames of a server, then deadlines and stopping are looked at again
LINK_EVENTS_PER_LOOK: Final = 1_024  # connections made and lost of one socket
ASK_TIMEOUT_MS: Final = 3_000  # a client waits longer than a server may take
RECONNECT_MIN_MS: Final = 100
RECONNECT_MAX_MS: Final = 5_000
CACHE_FLUSH_MS: Final = 250  # an acked batch is in the cache this much later at most (C6)
CACHE_PENDING_ROWS: Final = 1_000_000  # acked and not yet in the cache: then consumers wait for the disk
REORDER_GRACE_MS: Final = 20  # a hole in a ring may close by itself for this long
MARK_GRACE_MS: Final = 100  # a heartbeat's mark may be ahead of the rows for this long
BACKOFF_MIN_MS: Final = 100
BACKOFF_MAX_MS: Final = 5_000
MAX_RETRY_AFTER_MS: Final = 60_000  # a server that asks for a longer wait gets this
PROBE_MS: Final = 1_000  # without proof of life, requests begin this long after the link is up: a v1 server
V1_POLL_MS: Final = 5_000  # a v1 server sends no marks: its head is asked for this often
WARN_AFTER_MS: Final = 2_000  # what keeps rows from coming is logged once after this long
BEATS_MISSED: Final = 3  # heartbeats missing before a link counts as stalled
MAX_RELINK_ASKS: Final = 1_024  # streams whose head is asked for after a reconnect; more wait for their mark
MAX_GAPS_LISTED: Final = 1_024

# Logs
LOG_REPEAT_NS: Final = 1_000_000_000  # the same reason at most once in this


def ring_rows(streams: int) -> int:
    """Rows of the ring that the next stream gets when `streams` already exist."""
    for upto, rows in RING_CLASSES:
        if streams < upto:
            return rows
    raise ValueError(f"{streams} streams: the limit is {MAX_STREAMS}")


def _rings_bytes(streams: int) -> int:
    """What the rings of so many streams take."""
    total, before = 0, 0
    for upto, rows in RING_CLASSES:
        total += max(0, min(streams, upto) - before) * rows * 64
        before = upto
    return total


def server_bytes(streams: int = MAX_STREAMS) -> dict[str, int]:
    """What a server with so many streams may take in the worst case, by what takes it."""
    return {
        "program": PROGRAM_BYTES + streams * STREAM_BYTES,
        "rings": _rings_bytes(streams),
        "journal": 2 * GROUP_BYTES + INBOX_BYTES + MAX_RECORD_BYTES,
        "index": INDEX_BYTES,
        "projection": PROJECT_MAX_ROWS * (4 * 64 + 3 * 48),
        "database": STORE_MEMORY_BYTES + STORE_WAL_BYTES,
        "requests": MAX_BACKFILL_QUEUE * MAX_REQUEST_FRAME_BYTES,
        "peers": PEERS_BYTES,
    }


assert _rings_bytes(MAX_STREAMS) <= MAX_RING_BYTES
assert 3 * LIVE_HWM * (MAX_LIVE_ROWS * 64 + MAX_HEAD_BYTES + MAX_TOPIC_BYTES) < PEERS_BYTES
assert MAX_STREAMS <= MAX_STREAM_ID
assert 2 * MAX_MAPPED_RINGS < 65_530 // 2
assert MAX_LIVE_ROWS * 64 + MAX_HEAD_BYTES < 8 * KIB
assert MAX_REPLY_ROWS * 64 + MAX_HEAD_BYTES <= MAX_REPLY_BYTES <= MAX_FRAME_BYTES
assert MAX_INGEST_ROWS * 64 + MAX_HEAD_BYTES <= MAX_FRAME_BYTES
assert MAX_INGEST_ROWS * 64 <= INBOX_BYTES
assert 2 * NOTES_PER_GROUP <= TURN_RECORDS  # there is room for a turn where they are put
assert 4 * CLAIMS_PER_TURN <= NOTES_PER_GROUP  # each moves a run, and may move another out of its place
assert 2 * TURN_BYTES <= GROUP_BYTES  # a turn goes on while the one before is being committed
assert GROUP_BYTES * 4 <= JOURNAL_FILE_BYTES
assert all(rows & (rows - 1) == 0 for _, rows in RING_CLASSES)
assert MAX_REPLY_ROWS <= MAX_DELIVERY_ROWS
assert MAX_FRAME_BYTES + MAX_TOPIC_BYTES + KIB < CLIENT_PARTIAL_BYTES  # no whole message is dropped
assert 2 * MAX_ASKS * MAX_FRAME_BYTES < CLIENT_QUEUE_BYTES
assert MAX_ASKS <= MAX_REQUESTS_PER_PEER <= MAX_HELD_REPLIES
assert ASK_TIMEOUT_MS > REQUEST_DEADLINE_MS
assert HEARTBEAT_MS <= MAX_HEARTBEAT_INTERVAL_MS
assert MARK_GRACE_MS + BACKOFF_MIN_MS < HEARTBEAT_MS  # a lost last row is repaired within two heartbeats
assert BACKOFF_MIN_MS < BACKOFF_MAX_MS

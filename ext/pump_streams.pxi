# The table of streams of one process, as Python sees it: included by pump.pyx.
#
#     slot ─► flux_stream { names, ring (borrowed), head ≥ committed, highest, owner, out: template of its frames }
#     key  ─► slot          by hash; see ext/streams.h

cdef class Streams:
    """The table of streams of one process; `limit` bounds it. See ext/streams.h."""

    cdef flux_streams table

    def __cinit__(self, uint32_t limit):
        if flux_streams_init(&self.table, limit) != 0:
            raise MemoryError(f"no memory for {limit} streams")

    def __dealloc__(self):
        flux_streams_free(&self.table)

    def __len__(self):
        return self.table.count

    def address(self):
        """Where the C struct is, for the bridge, which keeps this object alive."""
        return <uintptr_t>&self.table

    cdef flux_stream *at(self, uint32_t slot) except NULL:
        if slot >= self.table.count:
            raise IndexError(f"slot {slot} of {self.table.count}")
        return self.table.streams[slot]

    def add(self, bytes source, bytes symbol, bytes interval, bytes topic, bytes v1_topic, int kind,
            uint32_t stream_id, uintptr_t ring, uint32_t owner):
        """A new slot for a key that is not in the table; the ring at that address is borrowed for good."""
        if self.table.count >= self.table.limit:
            raise ValueError(f"{self.table.limit} streams is the limit")
        if self.find(source, symbol, interval) is not None:
            raise ValueError(f"stream {source!r} {symbol!r} {interval!r} is in the table already")
        cdef flux_stream *s = <flux_stream *>calloc(1, sizeof(flux_stream))
        cdef bytes names = topic + v1_topic + source + symbol + interval
        if s == NULL:
            raise MemoryError("no memory for a stream")
        s.names = <uint8_t *>malloc(len(names) + 1)
        if s.names == NULL or flux_template_make(&s.out, kind, source, len(source), symbol, len(symbol), interval,
                                                 len(interval)) != 0:
            free(s.names)
            free(s)
            raise ValueError("names too long for a stream")
        memcpy(s.names, <const char *>names, len(names))
        s.topic_size, s.v1_topic_size = len(topic), len(v1_topic)
        s.source_size, s.symbol_size, s.interval_size = len(source), len(symbol), len(interval)
        s.ring = <flux_ring *>ring
        s.kind = kind
        s.stream_id = stream_id
        s.owner = owner
        s.lowest = s.page = s.floor = -1 if kind == FLUX_ROWS_TRADE else INT64_MAX  # a trade's id is unsigned
        s.grid_ms = flux_grid_of(kind, interval, len(interval))
        s.highest = s.committed_highest = 0 if flux_row_size(kind) == 40 else INT64_MIN
        return flux_streams_add(&self.table, s)

    def find(self, bytes source, bytes symbol, bytes interval):
        """The slot of a key, or None."""
        cdef uint32_t slot = flux_streams_find(&self.table, <const char *>source, len(source), <const char *>symbol,
                                               len(symbol), <const char *>interval, len(interval))
        return None if slot == FLUX_NO_SLOT else slot

    def expect(self, uint32_t slot, uint64_t store_id, uint32_t epoch):
        """What frames of this stream must carry from now on to be placed (client)."""
        cdef flux_stream *s = self.at(slot)
        s.store_id, s.epoch = store_id, epoch

    def restore(self, uint32_t slot, uint64_t head, int64_t latest, int64_t highest, lowest=None):
        """Sets a stream to what recovery found: all of it is committed (server, before the first row). `lowest`: the
        lowest time or trade id of its rows; None = not known."""
        cdef flux_stream *s = self.at(slot)
        s.head = s.committed = head
        s.committed_ts = latest
        s.highest = s.committed_highest = highest
        if head and lowest is None:
            lowest = 0 if flux_row_size(s.kind) == 40 else INT64_MIN
        if head:
            s.lowest = s.page = s.floor = lowest

    def highest(self, uint32_t slot):
        """The highest time (candles, quotes) or trade id admitted so far."""
        return self.at(slot).highest

    def head(self, uint32_t slot):
        """The highest sequence recorded, committed or not."""
        return self.at(slot).head

    def stream_id(self, uint32_t slot):
        """The number that this stream's frames carry."""
        return self.at(slot).stream_id

    def committed(self, uint32_t slot):
        """(highest sequence that may be shown, its time). From any thread."""
        cdef flux_stream *s = self.at(slot)
        return s.committed, s.committed_ts

    def own(self, uint32_t slot, uint32_t owner):
        """Gives the stream to an input (S19); 0 = nobody yet."""
        self.at(slot).owner = owner

    def owner(self, uint32_t slot):
        return self.at(slot).owner

    def refused(self, uint32_t slot):
        """Rows of this stream that were refused since the start, for whatever reason. From any thread."""
        return self.at(slot).refused

    def want_v1(self, uint32_t slot, bint wanted):
        """Whether `publish` also sends version 1 batches of this stream."""
        cdef flux_stream *s = self.at(slot)
        cdef const uint8_t *source = s.names + s.topic_size + s.v1_topic_size
        if wanted and s.out_v1 == NULL and s.kind == FLUX_ROWS_CANDLE:
            s.out_v1 = <flux_v1_template *>calloc(1, sizeof(flux_v1_template))
            if s.out_v1 == NULL:
                raise MemoryError("no memory for a version 1 template")
            flux_v1_template_make(s.out_v1, <const char *>source, s.source_size, <const char *>source + s.source_size,
                                  s.symbol_size, <const char *>source + s.source_size + s.symbol_size,
                                  s.interval_size)
        s.wanted_v1 = wanted

    def heads(self, object out):
        """Fills `out` (HEAD records, one per slot) and returns how many; from any thread."""
        cdef _Borrowed buffer = _Borrowed(out, True)
        cdef uint32_t i, n = self.table.count
        cdef uint64_t *w = <uint64_t *>buffer.view.buf
        cdef flux_stream *s
        if n > <uint64_t>buffer.view.len // 48:
            n = <uint32_t>(buffer.view.len // 48)
        with nogil:
            for i in range(n):
                s = self.table.streams[i]
                (<uint32_t *>(w + 6 * i))[0] = s.stream_id
                (<uint32_t *>(w + 6 * i))[1] = s.kind
                w[6 * i + 1] = s.committed
                w[6 * i + 2] = <uint64_t>s.committed_ts
                w[6 * i + 3] = <uint64_t>s.moved_ns
                w[6 * i + 4] = s.ring.first
                w[6 * i + 5] = <uint64_t>s.committed_highest
        return n

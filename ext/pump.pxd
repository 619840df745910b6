"""What ext/pump.h and the headers behind it declare, for pump.pyx (which takes this file by its name)."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from row cimport flux_candle


cdef extern from "errno.h" nogil:
    int ECANCELED


cdef extern from "time.h" nogil:
    int CLOCK_MONOTONIC


cdef extern from "pump.h" nogil:
    ctypedef struct flux_ring:
        uint8_t *rows
        uint64_t first
        uint64_t contiguous
        uint64_t keep
        uint64_t capacity
        uint32_t row_size

    ctypedef struct flux_template:
        uint32_t row_size

    ctypedef struct flux_v1_template:
        pass

    ctypedef struct flux_group:
        uint32_t count

    ctypedef struct flux_view:
        uint8_t row_kind
        uint8_t tag
        uint32_t source_at, source_size, symbol_at, symbol_size, interval_at, interval_size
        uint64_t start_sequence, store_id
        uint32_t epoch, stream_id, row_count

    ctypedef struct flux_stream:
        flux_ring *ring
        uint64_t head, reserved, committed, store_id
        int64_t committed_ts, committed_highest, moved_ns, highest
        uint32_t epoch, stream_id, owner
        uint8_t kind, wanted_v1
        uint16_t topic_size, v1_topic_size, source_size, symbol_size, interval_size
        uint8_t *names
        flux_template out
        flux_v1_template *out_v1
        int64_t lowest, page, floor, grid_ms
        uint64_t refused

    ctypedef struct flux_streams:
        flux_stream **streams
        uint32_t count, limit

    ctypedef struct flux_zmq:
        int (*msg_init)(void *)
        int (*msg_recv)(void *, void *, int)
        int (*msg_close)(void *)
        void *(*msg_data)(void *)
        size_t (*msg_size)(const void *)
        int (*msg_more)(const void *)
        int (*send)(void *, const void *, size_t, int)
        int (*error)()

    ctypedef struct flux_zmq_msg:
        pass

    ctypedef struct flux_python_frame:
        void *owner
        const void *data
        size_t size
        int more

    int flux_python_errno
    void *flux_python_raised

    ctypedef struct flux_arrival:
        uint32_t stream, rows

    ctypedef struct flux_run_rows:
        pass

    ctypedef struct flux_feed_run:
        uint64_t run_id, taken, recorded, committed
        uint32_t source_hash, owner, serial, name_size, incarnation, committed_incarnation
        uint8_t *name
        uint64_t refused_total

    ctypedef struct flux_refused:
        pass

    ctypedef struct flux_unsound:
        uint64_t sequence
        uint32_t slot, fault

    ctypedef struct flux_receiver:
        flux_zmq zmq
        void *socket
        flux_streams *streams
        int server, topic_frames
        uint64_t max_frame, max_rows
        flux_arrival *arrivals
        uint32_t arrival_count, arrival_limit
        uint8_t *inbox
        uint64_t inbox_used, inbox_limit
        uint8_t *others
        uint64_t others_used, others_limit
        flux_candle *scratch
        flux_feed_run *runs
        uint32_t run_count, run_limit, run_serial
        flux_zmq_msg message
        int holding, socket_errno
        flux_view held
        uint32_t held_slot
        int64_t ahead_ms
        uint64_t turn
        uint32_t *last_refused
        flux_unsound last_unsound
        uint32_t last_shared
        uint64_t *counters

    ctypedef struct flux_sent:
        uint64_t sent, sent_v1, bytes
        int error

    enum:
        FLUX_COUNTERS
        FLUX_FULL
        FLUX_SOCKET_ERROR
        FLUX_INTERRUPTED
        FLUX_COUNT_REFUSED_STREAM
        FLUX_NO_SLOT
        FLUX_NO_RUN
        FLUX_RUN_NAME_MAX
        FLUX_REFUSED_KEPT
        FLUX_ADMIT_OUTCOMES
        FLUX_COUNT_OWNER

    uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size)
    int flux_template_make(flux_template *t, int kind, const char *source, size_t source_size, const char *symbol,
                           size_t symbol_size, const char *interval, size_t interval_size)
    int flux_v1_template_make(flux_v1_template *t, const char *source, size_t source_size, const char *symbol,
                              size_t symbol_size, const char *interval, size_t interval_size)
    int flux_streams_init(flux_streams *t, uint32_t limit)
    void flux_streams_free(flux_streams *t)
    void flux_streams_forget_routes(flux_streams *t)
    uint32_t flux_streams_add(flux_streams *t, flux_stream *s)
    uint32_t flux_streams_find(const flux_streams *t, const void *source, size_t source_size, const void *symbol,
                               size_t symbol_size, const void *interval, size_t interval_size)
    uint32_t flux_find_run(const flux_receiver *r, uint64_t run_id, uint32_t source_hash)
    uint64_t flux_room(const flux_receiver *r, const flux_stream *s)
    flux_arrival *flux_arrive(flux_receiver *r, uint32_t slot, const flux_view *v)
    void flux_admit_rows(flux_receiver *r, uint32_t slot, flux_arrival *a, const uint8_t *rows, uint64_t n,
                         flux_feed_run *feed, uint64_t first)
    void flux_turn_begin(flux_receiver *r)
    void flux_receiver_free(flux_receiver *r)
    uint32_t flux_copy_refused(const flux_feed_run *run, uint64_t after, uint64_t upto, flux_refused *out)
    int64_t flux_grid_of(int kind, const char *interval, size_t size)
    int flux_receive(flux_receiver *r)
    void flux_let_go(flux_receiver *r)
    void flux_refuse(flux_receiver *r, uint32_t run)
    int flux_pump_record(flux_streams *t, flux_group *g, const uint8_t *inbox, const flux_run_rows *runs, uint32_t run_count,
                    uint64_t store_id, uint32_t epoch, uint32_t max_rows)
    void flux_publish(const flux_zmq *zmq, void *socket, flux_streams *t, flux_group *g, const uint32_t *order,
                      const uint8_t *spoilt, uint32_t count, uint8_t *scratch, size_t scratch_size, flux_sent *sent)
    void flux_mark_committed(flux_streams *t, const flux_group *g, int64_t now_ns)
    int64_t flux_clock(int clock)
    uint64_t flux_refill(flux_streams *t, const uint8_t *data, uint64_t have, uint64_t end, const uint32_t *slots,
                         uint32_t ids, int *broken)

    ctypedef struct pthread_mutex_t:
        pass

    int pthread_mutex_init(pthread_mutex_t *lock, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)

    ctypedef struct flux_outbox:
        pthread_mutex_t lock
        flux_zmq zmq
        void *socket
        uint8_t *data
        uint64_t capacity, head, next, tail, queued, sent, committed, before, run
        uint32_t incarnation
        int closed
        int error

    ctypedef struct flux_outbox_row:
        uint32_t stream_id
        const uint8_t *row

    void flux_outbox_find(const flux_outbox *o, const flux_refused *refused, uint32_t count, flux_outbox_row *out)
    size_t flux_encoded_size(const flux_template *t, uint32_t n)
    uint64_t flux_outbox_space(size_t frame)
    uint64_t flux_outbox_need(const flux_template *t, uint64_t n, uint32_t most)
    int flux_outbox_fits(const flux_outbox *o, uint64_t need, uint64_t largest)
    void flux_outbox_send(flux_outbox *o)
    void flux_outbox_put(flux_outbox *o, const flux_template *t, uint32_t stream_id, const uint8_t *rows, uint64_t n,
                         uint32_t most)
    void flux_outbox_begin_anew(flux_outbox *o, uint64_t run, uint32_t incarnation, const flux_template *const *templates, uint8_t *scratch)
    void flux_outbox_commit(flux_outbox *o, uint64_t committed)
    int flux_admit_fault(int kind, const void *row, int64_t grid_ms, int64_t latest_ms)

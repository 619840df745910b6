/* libzmq's functions, called by pointer: whichever libzmq pyzmq has loaded, no header and no link needed.
 * Signatures: zmq.h of libzmq 4.x. A zmq_msg_t is 64 bytes, aligned as a pointer.
 *
 *   flux_zmq ──► libzmq's own functions                                  socket = libzmq's pointer
 *           └──► functions of pump.pyx that call pyzmq, frame by frame   socket = the Python object
 *
 * All that is done with messages is the same code over either table; only its speed differs. */
#ifndef FLUX_ZMQ_CALLS_H
#define FLUX_ZMQ_CALLS_H

#include <stddef.h>
#include <stdint.h>

#define FLUX_ZMQ_DONTWAIT 1
#define FLUX_ZMQ_SNDMORE 2

typedef struct {
    void *words[8];
} flux_zmq_msg;

typedef struct {
    int (*msg_init)(flux_zmq_msg *);
    int (*msg_recv)(flux_zmq_msg *, void *socket, int flags);
    int (*msg_close)(flux_zmq_msg *);
    void *(*msg_data)(flux_zmq_msg *);
    size_t (*msg_size)(const flux_zmq_msg *);
    int (*msg_more)(const flux_zmq_msg *);
    int (*send)(void *socket, const void *data, size_t size, int flags);
    int (*error)(void);
} flux_zmq;

/* A frame in a flux_zmq_msg of the second table. */
typedef struct {
    void *owner; /* the bytes object; NULL = none */
    const void *data;
    size_t size;
    int more;
} flux_python_frame;

_Static_assert(sizeof(flux_python_frame) <= sizeof(flux_zmq_msg), "a frame fits a message");

/* What a call through the second table leaves behind for its own thread: errno, and an exception (a signal's, say) that
 * is raised when the C code has come back. */
__attribute__((unused)) static _Thread_local int flux_python_errno;
__attribute__((unused)) static _Thread_local void *flux_python_raised;

#endif

# libzmq's functions by way of pyzmq, where its symbols cannot be had: included by pump.pyx.
#
#     flux_receive ──msg_recv──► python_msg_recv ──GIL──► receive_frame(socket, flags) ─► bytes | errno
#                                       │                        └─ raises ─► kept, comes out of the call that it ended
#                                       └─► flux_python_frame { owner ─► the bytes, data, size, more }

cdef object receive_frame = None, send_frame = None


def bind_python(receive, send):
    """Takes what stands in for libzmq's functions where these cannot be had.

    `receive(socket, flags)` gives (frame, whether more of the message follows) or an errno, `send(socket, frame,
    flags)` 0 or an errno. An exception ends the call that they serve, and comes out of it.
    """
    global receive_frame, send_frame
    receive_frame, send_frame = receive, send


cdef int failed(object error) noexcept:
    """Keeps an exception until the C code has come back: -1, and an errno that no call of libzmq has."""
    global flux_python_errno, flux_python_raised
    drop_raised()
    Py_INCREF(error)
    flux_python_raised = <void *>error
    flux_python_errno = ECANCELED
    return -1


cdef drop_raised():
    global flux_python_raised
    if flux_python_raised != NULL:
        Py_DECREF(<object>flux_python_raised)
        flux_python_raised = NULL


cdef raise_kept():
    if flux_python_raised == NULL:
        return
    error = <object>flux_python_raised
    drop_raised()
    raise error


cdef int python_msg_init(void *message) noexcept nogil:
    memset(message, 0, sizeof(flux_python_frame))
    return 0


cdef int python_msg_recv(void *message, void *socket, int flags) noexcept with gil:
    global flux_python_errno
    cdef flux_python_frame *frame = <flux_python_frame *>message
    try:
        got = receive_frame(<object>socket, flags)
        if isinstance(got, int):
            flux_python_errno = got
            return -1
        data, more = <tuple>got
        Py_INCREF(data)
        frame.owner, frame.data, frame.size = <void *>data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        frame.more = bool(more)
        return 0
    except BaseException as error:
        return failed(error)


cdef int python_msg_close(void *message) noexcept with gil:
    cdef flux_python_frame *frame = <flux_python_frame *>message
    if frame.owner != NULL:
        Py_DECREF(<object>frame.owner)
    memset(message, 0, sizeof(flux_python_frame))
    return 0


cdef void *python_msg_data(void *message) noexcept nogil:
    return <void *>(<flux_python_frame *>message).data


cdef size_t python_msg_size(const void *message) noexcept nogil:
    return (<const flux_python_frame *>message).size


cdef int python_msg_more(const void *message) noexcept nogil:
    return (<const flux_python_frame *>message).more


cdef int python_send(void *socket, const void *data, size_t size, int flags) noexcept with gil:
    global flux_python_errno
    try:
        flux_python_errno = send_frame(<object>socket, PyBytes_FromStringAndSize(<const char *>data, size), flags)
        return -1 if flux_python_errno else <int>size
    except BaseException as error:
        return failed(error)


cdef int python_error() noexcept nogil:
    return flux_python_errno


cdef flux_zmq by_python
by_python.msg_init, by_python.msg_recv, by_python.msg_close = python_msg_init, python_msg_recv, python_msg_close
by_python.msg_data, by_python.msg_size, by_python.msg_more = python_msg_data, python_msg_size, python_msg_more
by_python.send, by_python.error = python_send, python_error


def calls(bint native):
    """The address of the table of functions: libzmq's own, or those by way of pyzmq."""
    return <uintptr_t>(&bound if native else &by_python)

/* Sockets and descriptors, which are not recorded: they can only be made to fail. Part of shim.c. */
#ifndef FLUX_SHIM_SOCKETS_H
#define FLUX_SHIM_SOCKETS_H

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "shim.h"

#define FAILING(NAME, CLASS, PARAMETERS, ARGUMENTS) \
    int NAME PARAMETERS { \
        REAL(NAME); \
        LOCK(); \
        int failed = shim_fails(CLASS, #NAME), error = errno; \
        UNLOCK(); \
        errno = failed ? error : errno; \
        return failed ? -1 : real ARGUMENTS; \
    }

FAILING(socket, CALL_SOCKET, (int domain, int type, int protocol), (domain, type, protocol))
FAILING(bind, CALL_SOCKET, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size))
FAILING(listen, CALL_SOCKET, (int fd, int waiting), (fd, waiting))
FAILING(accept, CALL_SOCKET, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size))
FAILING(accept4, CALL_SOCKET, (int fd, struct sockaddr *address, socklen_t *size, int flags), (fd, address, size, flags))
FAILING(epoll_create1, CALL_DESCRIPTOR, (int flags), (flags))
FAILING(eventfd, CALL_DESCRIPTOR, (unsigned initial, int flags), (initial, flags))
FAILING(memfd_create, CALL_DESCRIPTOR, (const char *name, unsigned flags), (name, flags))

static int controlled(int (*real)(int, int, ...), int fd, int command, void *argument) {
    char path[SHIM_PATH];
    if ((command == F_DUPFD_CLOEXEC || command == F_DUPFD) && shim_path_of(fd, path)) {
        LOCK();
        int failed = shim_fails(CALL_DESCRIPTOR, path), error = errno;
        UNLOCK();
        if (failed) {
            errno = error;
            return -1;
        }
    }
    return real(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
    REAL(fcntl);
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    return controlled(real, fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    REAL(fcntl64);
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    return controlled(real, fd, command, argument);
}

#endif

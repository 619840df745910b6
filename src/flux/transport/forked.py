"""What has sockets and threads is of no use in a process that was forked after it was made, and says so there.

libzmq serves only the process that made its sockets (in another one a call is begun again for ever), and of the threads
only the one that forked is there: nobody sends, nobody receives, a lock may be held for ever. So every such object is
known here from its construction on, and in a forked process

    every use of it            raises a FluxError that names the process which made it
    what ends it (`ending`)    returns at once
    what it has                is never given back: a database, say, would write into the file of the other process

It costs nothing before a fork: the child changes the class of what it inherited, before anything else runs in it.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Final, Self, TypeVar

from flux.errors import FluxError

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "_flux_ending"


def elsewhere(what: str, pid: int) -> FluxError:
    """What is raised in a process other than `pid`, which made `what`."""
    return FluxError(
        f"this {what} was made in process {pid}, and this is process {os.getpid()}: make one after the fork"
    )


def only_here(what: str) -> Callable[[], None]:
    """A check that raises FluxError in every process but this one."""
    made_in = os.getpid()

    def check() -> None:
        if os.getpid() != made_in:
            raise elsewhere(what, made_in)

    return check


class OfOneProcess:
    """The base of every class that has sockets: see the module."""

    _inherited: ClassVar[bool] = False
    _made_in: int

    def __new__(cls, *_: object, **__: object) -> Self:
        made = super().__new__(cls)
        made._made_in = os.getpid()
        _ALIVE[id(made)] = made
        return made


_ALIVE: Final[weakref.WeakValueDictionary[int, OfOneProcess]] = weakref.WeakValueDictionary()


def ending(method: F) -> F:
    """Marks what ends an object: in a forked process it returns at once."""

    @functools.wraps(method)
    def at_once(self: OfOneProcess, *args: Any, **options: Any) -> Any:
        return None if type(self)._inherited else method(self, *args, **options)

    @functools.wraps(method)
    async def awaited(self: OfOneProcess, *args: Any, **options: Any) -> Any:
        return None if type(self)._inherited else await method(self, *args, **options)

    made: Any = awaited if inspect.iscoroutinefunction(method) else at_once
    setattr(made, _MARK, True)
    found: F = made
    return found


def _refuse(self: OfOneProcess, *_: object) -> Any:
    raise elsewhere(type(self).__name__, object.__getattribute__(self, "_made_in"))


def _attribute(self: OfOneProcess, name: str) -> Any:
    """Also a method that was bound before the fork looks for what the object has here."""
    kind: Any = type(self)
    if name in kind._endings or (name.startswith("__") and name.endswith("__")):
        return object.__getattribute__(self, name)
    return _refuse(self)


def _inherited(cls: type[OfOneProcess]) -> type[OfOneProcess]:
    """The class that an inherited object of `cls` has."""
    endings = {
        name: value
        for base in reversed(cls.__mro__)
        for name, value in vars(base).items()
        if hasattr(value, _MARK)
    }
    special = {
        name: _refuse
        for name in set(dir(cls)) - set(dir(object)) - set(endings)
        if name.startswith("__")
        and name.endswith("__")
        and inspect.isfunction(inspect.getattr_static(cls, name))
    }
    space = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__getattribute__": _attribute,
        "_inherited": True,
        "_endings": frozenset(endings),
    }
    kind: Any = type(cls)  # a metaclass of one's own
    made: type[OfOneProcess] = kind(cls.__name__, (cls,), {**special, **endings, **space})
    return made


def _forked() -> None:
    """In the child: what it inherited stays as it is, for ever."""
    for one in list(_ALIVE.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
        one.__class__ = _inherited(type(one))
    _ALIVE.clear()


os.register_at_fork(after_in_child=_forked)

"""A Python program of a host, run inside the simulation: its real text, the system answered by the host.

Made for libvirt's hook. The program gets its own `os`, `open`, `fcntl`, `time`, `select`, `subprocess`,
`syslog` and `sys`: files below the mount are those of the simulated store, /proc shows the simulated QEMU
processes, and nothing of this machine is touched. All else is Python's own. What it asks for and nobody
simulates is an error that nothing swallows.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import posixpath
import random
import select
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from tests.sim.files import CHILD, LIBVIRTD, PID, StoreHangs, Tree
from tests.sim.store import MOUNT

if TYPE_CHECKING:
    from tests.sim.host import SimHost


class Unsimulated(BaseException):
    """The program uses something that the simulation does not have: add it here."""


class PowerLost(BaseException):
    """The host's power went while the program changed the store: nothing more of it happens."""


class _ChildEnded(BaseException):
    """The forked half of the program called _exit."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    rc: int
    out: str
    err: str


@dataclass(slots=True)
class _Open:
    """What a file descriptor stands for: a path, or a pipe with its bytes."""

    path: str = ""
    append: bool = False
    pipe: bytearray | None = None
    #: key in the store's locks, while it is held through this descriptor
    lock: str = ""


def run(host: SimHost, text: str, argv: Sequence[str], stdin: str) -> Ended:
    """Run a Python program with a `main(argv)` on a host, to its end and in no simulated time."""
    process = Process(host, argv, stdin)
    scope = process.scope(text)
    if "ask" in scope:
        scope["ask"] = process.in_halves(scope["ask"])
    try:
        rc = int(scope["main"](list(argv)))
    except SystemExit as end:
        rc = int(end.code or 0)
    except PowerLost:
        return Ended(137, "", "the host lost its power")
    finally:
        process.end()
    return Ended(rc, "".join(process.out), process.err.decode("utf-8", "replace"))


@lru_cache(maxsize=64)
def _compiled(text: str) -> CodeType:
    return compile(text, "program of a simulated host", "exec", dont_inherit=True)


class _Namespace(SimpleNamespace):
    """A module's stand-in."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Unsimulated(f"a program of a simulated host uses {name}: add it to {__file__}")


class Process:
    """One run of a program: its descriptors, what it prints, and the system that it sees."""

    def __init__(self, host: SimHost, argv: Sequence[str], stdin: str) -> None:
        self._host = host
        self._tree = Tree(host)
        self._clock = host.cluster.clock
        self._random = random.Random(f"{host.name} {host.cluster.scheduler.time} {' '.join(argv)}")
        self._fds: dict[int, _Open] = {}
        self._next_fd = 3
        #: which half of a fork runs: "" (none is under way), "child" or "parent"
        self._half = ""
        self._said = bytearray()
        self._hangs = False
        self._dead = False
        self.out: list[str] = []
        self.err = bytearray()
        modules = {
            "os": self._os(),
            "time": self._time(),
            "fcntl": _Namespace(LOCK_EX=2, LOCK_NB=4, LOCK_UN=8, flock=self._flock),
            "select": _Namespace(POLLIN=select.POLLIN, poll=self._poller),
            "subprocess": _Namespace(
                DEVNULL=-3, TimeoutExpired=subprocess.TimeoutExpired, run=self._run_program
            ),
            "syslog": _Namespace(
                LOG_DAEMON=24, LOG_WARNING=4, LOG_INFO=6, openlog=_nothing, syslog=self._syslog
            ),
            "sys": _Namespace(
                argv=list(argv),
                stdin=SimpleNamespace(buffer=io.BytesIO(stdin.encode("utf-8", "surrogateescape"))),
                exit=_leave,
            ),
        }
        self.builtins: dict[str, Any] = {
            **vars(builtins),
            "open": self._open_file,
            "print": lambda *words: self.out.append(" ".join(map(str, words)) + "\n"),
            "__import__": _importer(modules),
            "compile": lambda text, *_: _compiled(text),
        }

    def scope(self, text: str) -> dict[str, Any]:
        """Load the program: what it defines, by name."""
        found: dict[str, Any] = {"__name__": "program", "__builtins__": self.builtins}
        exec(_compiled(text), found)
        return found

    def end(self) -> None:
        """What a process's end does by itself: its locks go; those of a host without power only later."""
        for fd in list(self._fds):
            self._close(fd)

    def _changes(self, path: str) -> None:
        """Before each change of a file. Raises PowerLost when the host's power goes then, or has gone."""
        if not self._dead and path.startswith(MOUNT + "/") and self._host.loses_power_now():
            self._dead = True
        if self._dead:
            raise PowerLost

    def in_halves(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        """A function that forks once, called once as the child and then as the parent of that child."""

        def both(*args: Any) -> Any:
            self._said, self._hangs, self._half = bytearray(), False, "child"
            before = set(self._fds)
            try:
                ask(*args)
            except _ChildEnded as ended:
                self._hangs = isinstance(ended.__context__, StoreHangs)
                if self._dead:
                    raise PowerLost from None
            for fd in set(self._fds) - before:
                self._close(fd)
            self._half = "parent"
            try:
                return ask(*args)
            finally:
                self._half = ""

        return both

    # -- os ------------------------------------------------------------------------------------------

    def _os(self) -> _Namespace:
        constants = {name: getattr(os, name) for name in dir(os) if name.startswith("O_")}
        same = ("fsdecode", "fsencode", "major", "minor", "strerror")
        paths = {name: getattr(posixpath, name) for name in ("join", "dirname", "basename", "normpath")}
        return _Namespace(
            **constants,
            **{name: getattr(os, name) for name in same},
            path=_Namespace(exists=lambda path: self._tree.exists(path), **paths),
            open=self._open,
            close=self._close,
            read=self._read,
            write=self._write,
            fsync=_nothing,
            dup2=_nothing,
            fchmod=_nothing,
            stat=self._stat,
            fstat=self._fstat,
            mkdir=self._mkdir,
            makedirs=_nothing,
            listdir=lambda at: self._tree.names(self._fds[at].path if isinstance(at, int) else at),
            unlink=self._unlink,
            rename=self._rename,
            replace=self._rename,
            urandom=self._random.randbytes,
            getpid=lambda: CHILD if self._half == "child" else PID,
            getppid=lambda: LIBVIRTD,
            pipe=self._pipe,
            fork=self._fork,
            kill=_nothing,
            waitpid=self._waitpid,
            WNOHANG=os.WNOHANG,
            readlink=self._tree.link,
            scandir=self._scandir,
            _exit=self._exit,
        )

    def _at(self, path: str, dir_fd: int | None) -> str:
        folder = "/" if dir_fd is None else self._fds[dir_fd].path
        return posixpath.normpath(posixpath.join(folder, path))

    def _new_fd(self, opened: _Open) -> int:
        self._next_fd += 1
        self._fds[self._next_fd] = opened
        return self._next_fd

    def _open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        path = self._at(path, dir_fd)
        if path == "/dev/null":
            return self._new_fd(_Open(path))
        if flags & os.O_DIRECTORY:
            if not self._tree.is_folder(path):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return self._new_fd(_Open(path))
        there = self._tree.exists(path)
        if there and flags & os.O_EXCL:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if not there and not flags & os.O_CREAT:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if flags & (os.O_WRONLY | os.O_RDWR) and self._host.view.read_only and path.startswith(MOUNT + "/"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        if not there:
            self._changes(path)
            self._tree.make(path)
        elif flags & os.O_TRUNC:
            self._changes(path)
            self._tree.write(path, b"")
        return self._new_fd(_Open(path, append=bool(flags & os.O_APPEND)))

    def _close(self, fd: int) -> None:
        opened = self._fds.pop(fd)
        if not opened.lock:
            return
        locks = self._host.view.store.locks
        if self._dead:
            # The cluster frees it when it has thrown the host out.
            self._host.cluster.after(self._host.cluster.eviction, lambda: locks.pop(opened.lock, None))
        else:
            locks.pop(opened.lock, None)

    def _read(self, fd: int, size: int) -> bytes:
        pipe = self._fds[fd].pipe
        if pipe is None:
            raise Unsimulated("os.read of a file")
        data = bytes(pipe[:size])
        del pipe[:size]
        return data

    def _write(self, fd: int, data: bytes) -> int:
        if fd == 2:
            self.err += data
            return len(data)
        opened = self._fds[fd]
        if opened.pipe is not None:
            opened.pipe += data
        elif opened.path != "/dev/null":
            self._changes(opened.path)
            before = self._tree.read(opened.path) if opened.append else b""
            self._tree.write(opened.path, before + bytes(data))
        return len(data)

    def _stat(self, path: str) -> SimpleNamespace:
        device, inode, block = self._tree.stat(posixpath.normpath(path))
        kind = stat.S_IFBLK if block else stat.S_IFREG
        return SimpleNamespace(st_mode=kind | 0o600, st_dev=device, st_ino=inode, st_rdev=block, st_nlink=1)

    def _fstat(self, fd: int) -> SimpleNamespace:
        path = self._fds[fd].path
        return SimpleNamespace(st_dev=self._tree.device(path), st_mtime=self._tree.written(path))

    def _scandir(self, folder: str) -> AbstractContextManager[list[SimpleNamespace]]:
        """Entries of a folder of libvirt's."""
        return nullcontext([self._entry(folder, name) for name in self._tree.names(folder)])

    def _entry(self, folder: str, name: str) -> SimpleNamespace:
        path = f"{folder}/{name}"
        status = SimpleNamespace(st_mtime_ns=self._tree.stamp(path), st_ino=1)
        return SimpleNamespace(name=name, path=path, is_file=lambda **_: True, stat=lambda **_: status)

    def _waitpid(self, pid: int, _: int) -> None:
        """A child that was abandoned is gone as soon as its store answers."""
        if pid == -1:
            raise ChildProcessError

    def _rename(
        self, old: str, new: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        self._changes(self._at(new, dst_dir_fd))
        self._tree.rename(self._at(old, src_dir_fd), self._at(new, dst_dir_fd))

    def _mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._changes(self._at(path, dir_fd))
        self._tree.make_folder(self._at(path, dir_fd))

    def _unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self._changes(self._at(path, dir_fd))
        self._tree.remove(self._at(path, dir_fd))

    # -- a child, one half after the other -----------------------------------------------------------

    def _pipe(self) -> tuple[int, int]:
        return self._new_fd(_Open(pipe=self._said)), self._new_fd(_Open(pipe=self._said))

    def _fork(self) -> int:
        if not self._half:
            raise Unsimulated("a fork outside of ask()")
        return 0 if self._half == "child" else CHILD

    def _exit(self, code: int) -> NoReturn:
        raise _ChildEnded

    def _poller(self) -> _Namespace:
        def poll(milliseconds: float) -> list[tuple[int, int]]:
            return [] if self._hangs else [(0, select.POLLIN)]

        return _Namespace(register=_nothing, poll=poll)

    # -- other modules -------------------------------------------------------------------------------

    def _time(self) -> _Namespace:
        def now() -> float:
            return self._clock.now() + self._host.clock_skew

        def strftime(form: str, moment: time.struct_time | None = None) -> str:
            return time.strftime(form, moment or time.localtime(now()))

        return _Namespace(
            time=now,
            monotonic=lambda: self._clock.now() - self._host.booted_at,
            localtime=lambda seconds=None: time.localtime(now() if seconds is None else seconds),
            gmtime=lambda seconds=None: time.gmtime(now() if seconds is None else seconds),
            strftime=strftime,
            sleep=_no_sleep,
        )

    def _flock(self, fd: int, how: int) -> None:
        opened = self._fds[fd]
        start = f"{MOUNT}/.vmfab/"
        if not opened.path.startswith(start):
            return
        locks = self._host.view.store.locks
        key = opened.path[len(start) :]
        if key in locks:
            if how & 4:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            # Whoever has it keeps it longer than any deadline, as far as this moment can tell.
            raise StoreHangs
        locks[key] = self
        opened.lock = key

    def _open_file(
        self,
        file: str | int,
        mode: str = "r",
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase:
        if "r" in mode:
            path = self._fds[file].path if isinstance(file, int) else posixpath.normpath(file)
            data = _Source(self._tree.read(path), lambda: self._new_fd(_Open(path)))
            return data if "b" in mode else io.TextIOWrapper(data, encoding, errors, newline)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if "a" in mode else os.O_TRUNC)
        fd = file if isinstance(file, int) else self._open(file, flags)
        sink = _Sink(lambda text: self._write(fd, text))
        return sink if "b" in mode else io.TextIOWrapper(sink, encoding, errors, newline)

    def _run_program(self, argv: Sequence[str], **_: Any) -> SimpleNamespace:
        if list(argv) != ["systemctl", "is-system-running"]:
            raise Unsimulated(f"the program {argv}")
        return SimpleNamespace(returncode=0, stdout=b"running\n", stderr=b"")

    def _syslog(self, priority: int, line: str) -> None:
        self._host.syslog.append(line)


class _Source(io.BytesIO):
    """A file that is read; it gets a descriptor when it is asked for one."""

    def __init__(self, data: bytes, descriptor: Callable[[], int]) -> None:
        super().__init__(data)
        self.fileno = descriptor  # type: ignore[method-assign]


class _Sink(io.BytesIO):
    """A file that is written, in one piece, when it is flushed."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__()
        self._to = write

    def flush(self) -> None:
        if self.closed or not self.getvalue():
            return
        data = self.getvalue()
        self.seek(0)
        self.truncate()
        self._to(data)

    def close(self) -> None:
        self.flush()
        super().close()


def _importer(modules: Mapping[str, Any]) -> Callable[..., Any]:
    def importer(name: str, *args: Any, **more: Any) -> Any:
        return modules[name] if name in modules else builtins.__import__(name, *args, **more)

    return importer


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _leave(code: int = 0) -> NoReturn:
    raise SystemExit(code)


def _no_sleep(seconds: float) -> NoReturn:
    raise Unsimulated("a program that sleeps")

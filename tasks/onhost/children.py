"""Child processes: every one has a deadline, and none outlives the agent unless it must.

Reads are killed when the agent ends. A change that libvirt is asked for (start, destroy, define, ...) is
left to end by itself: libvirtd carries it out anyway, whether or not its client lives to hear the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time

from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

#: How many times longer than usual every read may take; see the operation "patience".
_patience = 1.0
_lock = threading.Lock()
_doomed: set[int] = set()
_unreaped: set[int] = set()


def be_patient(times: float) -> None:
    """Give every read from now on so many times longer; changes have their own deadlines."""
    global _patience
    _patience = times


def extended(seconds: float) -> float:
    """How long a read may take that usually gets so many seconds."""
    return seconds * _patience


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    survives: bool = False,
    keep: Sequence[int] = (),
) -> tuple[int, str, str]:
    """Run a program to its end: (rc, out, err).

    With `survives` the end of the agent does not kill it, and the file descriptors `keep` stay open in it.
    Raises Problem "deadline" after `timeout` seconds, without `survives` extended (then it was killed),
    FileNotFoundError if there is no such program.
    """
    if not survives:
        timeout = extended(timeout)
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd="/",
        start_new_session=True,
        pass_fds=tuple(keep) if survives else (),
    )
    if not survives:
        with _lock:
            _doomed.add(process.pid)
    try:
        data = None if stdin is None else stdin.encode("utf-8", "surrogateescape")
        out, err = process.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        raise Problem("deadline", f"{argv[0]} did not end within {timeout:g} s") from None
    finally:
        with _lock:
            _doomed.discard(process.pid)
            if process.poll() is None:
                _unreaped.add(process.pid)
    return process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")


def ask(work: Callable[[], Any], *, timeout: float, what: str) -> Any:
    """The JSON-able result of `work`, done in a forked child, so that a hung file system hangs only that.

    Problems raised by `work` arrive here. Raises Problem "store" when there is no result after `timeout`
    seconds, extended; the message names `what`.
    """
    pid, result, keep = spawn(work, held=False)
    os.close(keep)
    try:
        return answer(pid, result, timeout=timeout, what=what)
    finally:
        reap(pid)


def spawn(work: Callable[[], Any], *, held: bool) -> tuple[int, int, int]:
    """Fork a child that does `work` and writes its result: (pid, fd to read it from, fd that holds it).

    With `held` the child lives on after its result, until a byte is written to the third value or all
    copies of it are closed: whatever `work` locked stays locked until then.
    """
    _reap_all()
    result_r, result_w = os.pipe()
    keep_r, keep_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(work, result_w, keep_r if held else -1)
    os.close(result_w)
    os.close(keep_r)
    if not held:
        with _lock:
            _doomed.add(pid)
    return pid, result_r, keep_w


def _child(work: Callable[[], Any], result: int, keep: int) -> None:
    """The forked child's life. Only this thread exists here; nothing that takes a lock may be called."""
    try:
        # Inherited descriptors would keep the ssh channel and other children's pipes open.
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in (result, keep):
                with contextlib.suppress(OSError):  # the one that listed the folder
                    os.close(int(name))
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            said: dict[str, Any] = {"ok": work()}
        except Problem as problem:
            said = {"error": problem.wire()}
        except OSError as error:
            said = {"error": {"kind": "store", "message": f"{error.strerror} ({error.filename})"}}
        except Exception as error:
            said = {"error": {"kind": "bug", "message": f"{type(error).__name__}: {error}"}}
        data = memoryview(json.dumps(said).encode())
        while data:
            data = data[os.write(result, data) :]
        os.close(result)
        if keep >= 0 and "ok" in said:
            os.read(keep, 1)
    finally:
        os._exit(0)


def answer(pid: int, result: int, *, timeout: float, what: str) -> Any:
    """Read a child's result and close the descriptor; kills the child when it is late."""
    timeout = extended(timeout)
    until = time.monotonic() + timeout
    poller = select.poll()
    poller.register(result, select.POLLIN)
    data = b""
    try:
        while True:
            left = until - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                kill(pid)
                raise Problem("store", f"{what} hangs (no answer within {timeout:g} s)")
            more = os.read(result, 65536)
            if not more:
                break
            data += more
    finally:
        os.close(result)
    if not data:
        raise Problem("bug", f"the child asked about {what} died")
    said = json.loads(data)
    if "error" in said:
        raise Problem(said["error"]["kind"], said["error"]["message"])
    return said["ok"]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def reap(pid: int, *, timeout: float = 0.5) -> bool:
    """Wait for a child's end; one in an uninterruptible sleep is left for later (False)."""
    until = time.monotonic() + timeout
    pause = 0.0005
    while True:
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            done = pid
        if done:
            with _lock:
                _doomed.discard(pid)
            return True
        if time.monotonic() > until:
            with _lock:
                _unreaped.add(pid)
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def lives(pid: int) -> bool:
    """Whether a child has not ended; says nothing about one that was waited for already."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _reap_all() -> None:
    with _lock:
        waiting = list(_unreaped)
    for pid in waiting:
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            done = pid
        if done:
            with _lock:
                _unreaped.discard(pid)
                _doomed.discard(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def end_all() -> None:
    """Kill what must not outlive the agent. Takes no lock for longer than a moment."""
    got = _lock.acquire(timeout=1)
    doomed = list(_doomed)
    if got:
        _lock.release()
    for pid in doomed:
        _kill_group(pid)
        kill(pid)


def together(*works: Callable[[], Any]) -> list[Any]:
    """Results of several works done at the same time, each in a thread; the first exception is raised."""
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def one(index: int, work: Callable[[], Any]) -> None:
        try:
            results[index] = work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i, w), daemon=True) for i, w in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results

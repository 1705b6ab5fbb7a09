"""The agent's loop: requests as JSON lines in, replies and events as JSON lines out.

    request  {"id": 7, "op": "observe", "args": {...}, "deadline": 10.0}
    reply    {"id": 7, "ok": {...}}  or  {"id": 7, "error": {"kind", "message", "rc"?}}
    event    {"id": 7, "event": {...}}, zero or more before the reply

Requests are served at the same time, each in a thread. The agent ends at once when its input ends or nothing
has been heard for `SILENCE` seconds: it never decides anything alone. Changes that libvirt was asked for go
on (see `children`), and what was locked stays locked until they have ended (see `storelocks`).

The operations, by arguments and reply; `uuid` is in libvirt's spelling, {} an empty reply. Store paths are
relative to MOUNT/.vmfab. The values of facts are those that `tasks.cluster.asking.wire` reads.

    ping          {}                                -> {}
    patience      {times}                           -> {}; reads may take so many times longer from now on
    observe       {mount, plan}                     -> facts of host, libvirt and store; XML only with `plan`
    running       {mount}                           -> {at, domains, processes, files, store}
    clock         {}                                -> {at}
    look          {mount, paths}                    -> {files: {path: what it is}}
    store.held    {mount, paths}                    -> {held: {path: text of who holds that lock}}
    store.images  {mount, seconds}                  -> {images, complete, why}: see `survey`
    dumpxml       {uuid, inactive, security}        -> {xml}
    watch         {uuid, seconds}                   -> {state, reason}, early when its process ends
    define        {xml, mirror?: {mount, host}}     -> {}; see `remembering` for `mirror`
    undefine      {uuid, mirror?}                   -> {}
    autostart     {uuid, on}                        -> {}
    start         {uuid, mirror?}                   -> {state}
    shutdown, reboot {uuid}                         -> {}
    destroy       {uuid, graceful}                  -> {state}
    wait_off      {uuid, timeout, ask_again: s or null}
                  -> {off, state, waited, ended_at: epoch or null};
                     events {waited, asked} each second, {asked, problem} when asking again failed
    save_running  {write, path?}                    -> {before: names or null, after: names}
    note_running  {add, remove, path?}              -> {before, after}
    store.init    {mount}                           -> {store_id}
    store.read    {mount, path}                     -> {text: str or null}
    store.list    {mount, path}                     -> {names}
    store.read_dir {mount, path, unless?, after?}   -> {files: {name: text}, next}, without those that end so;
                                                       unless next is "", there is more after that name
    store.write   {mount, path, text, exclusive}    -> {}; error "locked" with the text of what exists
    store.append  {mount, path, text}               -> {}
    store.remove, store.makedirs {mount, path}      -> {}
    store.lock    {mount, path, holder: JSON}       -> {}; error "locked" with the holder's text
    store.unlock  {mount, path}                     -> {}
    store.seize   {mount, path}                     -> {text}; as store.lock, but the file has to exist (error
                                                       "file") and keeps its text
    store.holds   {mount, path}                     -> {held}: is what was locked or seized here still held?
    store.stat    {mount, path}                     -> {mtime: epoch or null, now: epoch}
    store.swap    {mount, path, changes: [[path, expected text or null, new text or null]]}
                  -> {}, under a flock on `path`; error "file" when a file is not as expected
    file.read     {path}                            -> {text: str or null, mode, sha256: str or null}
    file.write    {path, text, mode, expect: sha256 or null}
                  -> {kept: path or null}; error "file" when what is there is not what was expected
    file.remove   {path, expect: sha256}            -> {kept: path or null}; the same
    command       {argv, input?, timeout}           -> {rc, out, err}
    network       {}                                -> links, routes, netplan's files, ...: see `network`
    netplan.check {files: {name: text}}             -> {rc, said}: what netplan makes of them, off to the side
    work          {argv, timeout, log, env}         -> {rc, out}; events {waited, line} each second
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import sys
import threading
import time

from . import (
    children,
    facts,
    files,
    lifecycle,
    network,
    remembering,
    runninglist,
    storechild,
    storefiles,
    storelocks,
    survey,
    virsh,
    work,
)
from .problem import Problem, absolute_of, bad, flag_of, seconds_of, text_of, texts_of, uuid_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Args = dict[str, Any]
    Operation = Callable[["Request"], Args]

PROTOCOL = 1
#: Seconds without a word from the laptop, which sends one every 5 s, until the agent ends.
SILENCE = 30.0
#: Seconds of a deadline kept for telling how things stand after a change.
_RESERVE = 5.0

_out: queue.SimpleQueue[bytes] = queue.SimpleQueue()


class Request:
    """One request: its arguments, how long it may take, and how to tell of progress."""

    def __init__(self, number: Any, args: Args, deadline: float) -> None:
        self.number = number
        self.args = args
        self._until = time.monotonic() + deadline
        self._half = deadline / 2

    def left(self, most: float) -> float:
        """Seconds for a read, before they are extended: at most `most`, or what remains; never quite none."""
        return min(most, max(0.5, (self._until - time.monotonic()) / children.extended(1.0)))

    def for_change(self) -> float:
        """Seconds that a change may take, so that the state afterwards can still be told."""
        return max(1.0, self._until - time.monotonic() - min(children.extended(_RESERVE), self._half))

    @property
    def patience(self) -> float:
        """Seconds that the store gets for it."""
        return self.left(storechild.SLOW)

    def event(self, what: Args) -> None:
        say({"id": self.number, "event": what})

    @property
    def mount(self) -> str:
        return absolute_of(self.args, "mount")

    @property
    def uuid(self) -> str:
        return uuid_of(self.args)

    def text(self, key: str) -> str:
        return text_of(self.args, key)

    def flag(self, key: str) -> bool:
        return flag_of(self.args, key)


def main() -> None:
    """Serve until the input ends. Never returns."""
    told, teller = os.pipe()
    os.set_blocking(teller, False)
    # A signal that comes just before poll() would otherwise wait with it for the next line.
    signal.set_wakeup_fd(teller)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_speak, daemon=True).start()
    say({"hello": hello()})
    rest = b""
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(told, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poller.poll(SILENCE * 1000)]
        if not ready or told in ready:
            end()
        data = os.read(0, 65536)
        if not data:
            end()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                _take(line)


def end() -> None:
    """End now, whatever threads and hung file systems may say."""
    children.end_all()
    os._exit(0)


def hello() -> Args:
    version = ".".join(str(n) for n in sys.version_info[:3])
    return {"protocol": PROTOCOL, "host": os.uname().nodename, "python": version, "boot_id": facts.boot_id()}


def say(message: Args) -> None:
    _out.put(json.dumps(message, separators=(",", ":")).encode() + b"\n")


def _speak() -> None:
    """Write what was said. A laptop that does not read holds up only this thread."""
    try:
        while True:
            data = _out.get()
            while data:
                data = data[os.write(1, data) :]
    except OSError:
        end()


def _take(line: bytes) -> None:
    try:
        message = json.loads(line)
        number, op = message["id"], message["op"]
        args, deadline = message.get("args", {}), float(message.get("deadline", 60.0))
        if not isinstance(args, dict):
            raise TypeError("args")
    except (ValueError, KeyError, TypeError, AttributeError):
        say({"id": None, "error": {"kind": "bad-request", "message": f"not understood: {line[:200]!r}"}})
        return
    if op == "ping":
        say({"id": number, "ok": {}})
        return
    request = Request(number, args, deadline)
    threading.Thread(target=_serve, args=(op, request), daemon=True).start()


def _serve(op: str, request: Request) -> None:
    try:
        operation = OPERATIONS.get(op)
        if operation is None:
            raise bad(f"there is no operation {op!r}")
        say({"id": request.number, "ok": operation(request)})
    except Problem as problem:
        say({"id": request.number, "error": problem.wire()})
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        what = f"{op}: {type(error).__name__}: {error}{where}"
        say({"id": request.number, "error": {"kind": "bug", "message": what}})


# -- operations ----------------------------------------------------------------------------------------


def _patience(r: Request) -> Args:
    children.be_patient(seconds_of(r.args, "times"))
    return {}


def _dumpxml(r: Request) -> Args:
    flags = [
        f"--{n}" for n, on in (("inactive", r.flag("inactive")), ("security-info", r.flag("security"))) if on
    ]
    return {"xml": virsh.run("dumpxml", r.uuid, *flags, timeout=r.left(virsh.READ))}


def _define(r: Request) -> Args:
    lifecycle.change("define", "/dev/stdin", timeout=r.for_change(), stdin=r.text("xml"))
    remembering.defined(r.args.get("mirror"), r.text("xml"))
    return {}


def _undefine(r: Request) -> Args:
    lifecycle.undefine(r.uuid, r.for_change())
    remembering.undefined(r.args.get("mirror"), r.uuid)
    return {}


def _autostart(r: Request) -> Args:
    lifecycle.change("autostart", r.uuid, *([] if r.flag("on") else ["--disable"]), timeout=r.for_change())
    return {}


def _start(r: Request) -> Args:
    state = lifecycle.start(r.uuid, timeout=r.for_change())
    remembering.started(r.args.get("mirror"), r.uuid)
    return {"state": state}


def _watch(r: Request) -> Args:
    state, reason = lifecycle.watch(r.uuid, seconds_of(r.args, "seconds"))
    return {"state": state, "reason": reason}


def _shutdown(r: Request) -> Args:
    lifecycle.change("shutdown", r.uuid, timeout=r.for_change())
    return {}


def _wait_off(r: Request) -> Args:
    again = None if r.args.get("ask_again") is None else seconds_of(r.args, "ask_again")
    return lifecycle.wait_off(r.uuid, seconds_of(r.args, "timeout"), again, r.event)


def _destroy(r: Request) -> Args:
    lifecycle.change(
        "destroy", r.uuid, *(["--graceful"] if r.flag("graceful") else []), timeout=r.for_change()
    )
    return {"state": lifecycle.state_after(r.uuid)}


def _reboot(r: Request) -> Args:
    lifecycle.change("reboot", r.uuid, timeout=r.for_change())
    return {}


def _save_running(r: Request) -> Args:
    path = absolute_of(r.args, "path", runninglist.PATH)
    running = virsh.names(virsh.run("list", "--name", timeout=r.left(virsh.READ)))
    if r.flag("write"):
        before, after = runninglist.write(path, running)
        return {"before": before, "after": after}
    before = runninglist.read(path)
    return {"before": before, "after": runninglist.in_order(before or [], running)}


def _note_running(r: Request) -> Args:
    path = absolute_of(r.args, "path", runninglist.PATH)
    before, after = runninglist.note(path, texts_of(r.args, "add"), texts_of(r.args, "remove"))
    return {"before": before, "after": after}


def _store_read_dir(r: Request) -> Args:
    unless = r.text("unless") if "unless" in r.args else ""
    after = r.text("after") if "after" in r.args else ""
    found, following = storefiles.read_dir(r.mount, r.text("path"), r.patience, unless, after)
    return {"files": found, "next": following}


def _store_write(r: Request) -> Args:
    exclusive = r.flag("exclusive")
    storefiles.write(r.mount, r.text("path"), r.text("text"), exclusive=exclusive, timeout=r.patience)
    return {}


def _store_append(r: Request) -> Args:
    storefiles.append(r.mount, r.text("path"), r.text("text"), r.patience)
    return {}


def _store_remove(r: Request) -> Args:
    storefiles.remove(r.mount, r.text("path"), r.patience)
    return {}


def _store_makedirs(r: Request) -> Args:
    storefiles.makedirs(r.mount, r.text("path"), r.patience)
    return {}


def _store_lock(r: Request) -> Args:
    storelocks.lock(r.mount, r.text("path"), _signed(r.text("holder")), r.patience)
    return {}


def _signed(holder: str) -> str:
    """The holder's text with this host and process: who ends the process breaks the lock."""
    try:
        data = json.loads(holder)
    except ValueError:
        raise bad("holder is no JSON") from None
    if not isinstance(data, dict):
        raise bad("holder is no JSON object")
    return json.dumps({**data, "host": os.uname().nodename, "pid": os.getpid()}, ensure_ascii=False)


def _store_unlock(r: Request) -> Args:
    storelocks.unlock(r.mount, r.text("path"))
    return {}


def _store_swap(r: Request) -> Args:
    changes = r.args.get("changes")
    if not isinstance(changes, list) or not all(_is_change(c) for c in changes):
        raise bad("changes are not [[path, text or null, text or null]]")
    storefiles.swap(r.mount, r.text("path"), [(c[0], c[1], c[2]) for c in changes], r.patience)
    return {}


def _is_change(change: Any) -> bool:
    return (
        isinstance(change, list)
        and len(change) == 3
        and isinstance(change[0], str)
        and all(text is None or isinstance(text, str) for text in change[1:])
    )


def _file_write(r: Request) -> Args:
    mode, expect = r.args.get("mode"), r.args.get("expect")
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
        raise bad(f"mode is {mode!r}")
    if expect is not None and not isinstance(expect, str):
        raise bad(f"expect is {expect!r}")
    return {"kept": files.write(absolute_of(r.args, "path"), r.text("text"), mode, expect)}


def _command(r: Request) -> Args:
    argv = texts_of(r.args, "argv")
    if not argv:
        raise bad("argv is empty")
    timeout = seconds_of(r.args, "timeout")
    try:
        rc, out, err = children.run(argv, timeout=timeout, stdin=r.args.get("input"))
    except (FileNotFoundError, PermissionError) as error:
        raise bad(f"{argv[0]}: {error.strerror}") from None
    return {"rc": rc, "out": out, "err": err}


def _netplan_check(r: Request) -> Args:
    texts = r.args.get("files")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise bad("files is no mapping of names to texts")
    return network.check(texts)


def _work(r: Request) -> Args:
    argv, env = texts_of(r.args, "argv"), r.args.get("env", {})
    if not argv:
        raise bad("argv is empty")
    if not isinstance(env, dict) or not all(isinstance(v, str) for v in env.values()):
        raise bad(f"env is {env!r}")
    return work.run(argv, seconds_of(r.args, "timeout"), absolute_of(r.args, "log"), env, r.event)


#: Operation -> what serves it. The first group never changes anything.
OPERATIONS: dict[str, Operation] = {
    "patience": _patience,
    "observe": lambda r: facts.observe(r.mount, plan=r.flag("plan")),
    "running": lambda r: facts.running(r.mount),
    "dumpxml": _dumpxml,
    "clock": lambda r: survey.clock(),
    "look": lambda r: facts.look(r.mount, texts_of(r.args, "paths")),
    "store.held": lambda r: {"held": survey.held(r.mount, texts_of(r.args, "paths"), r.patience)},
    "store.images": lambda r: survey.images(r.mount, seconds_of(r.args, "seconds")),
    "watch": _watch,
    "network": lambda r: network.facts(),
    "netplan.check": _netplan_check,
    "store.read": lambda r: {"text": storefiles.read(r.mount, r.text("path"), r.patience)},
    "store.list": lambda r: {"names": storefiles.names(r.mount, r.text("path"), r.patience)},
    "store.read_dir": _store_read_dir,
    "store.stat": lambda r: storefiles.stat(r.mount, r.text("path"), r.patience),
    "store.holds": lambda r: {"held": storelocks.holds(r.mount, r.text("path"), r.patience)},
    "file.read": lambda r: files.read(absolute_of(r.args, "path")),
    "define": _define,
    "undefine": _undefine,
    "autostart": _autostart,
    "start": _start,
    "shutdown": _shutdown,
    "wait_off": _wait_off,
    "destroy": _destroy,
    "reboot": _reboot,
    "save_running": _save_running,
    "note_running": _note_running,
    "store.init": lambda r: {"store_id": storefiles.init(r.mount, r.patience)},
    "store.write": _store_write,
    "store.append": _store_append,
    "store.remove": _store_remove,
    "store.makedirs": _store_makedirs,
    "store.lock": _store_lock,
    "store.unlock": _store_unlock,
    "store.seize": lambda r: {"text": storelocks.seize(r.mount, r.text("path"), r.patience)},
    "store.swap": _store_swap,
    "file.write": _file_write,
    "file.remove": lambda r: {"kept": files.remove(absolute_of(r.args, "path"), r.text("expect"))},
    "command": _command,
    "work": _work,
}

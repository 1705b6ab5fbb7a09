"""The operations of a host's agent as typed methods: the one place that knows their names and wire forms.

The wire form of each operation is described where it is served, in `tasks.onhost.serve`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tasks.cluster.asking import wire
from tasks.cluster.asking.hostfiles import Ended, HostFile
from tasks.cluster.asking.link import Link, Progress
from tasks.cluster.asking.network import Network, network
from tasks.cluster.asking.storeimages import Survey, survey
from tasks.cluster.errors import HostError
from tasks.cluster.model import FileId, HostFacts, RunningNow

#: Seconds. Reads answer at once or the host has a problem; changes wait for libvirt's own time-outs
#: (virsh destroy gives up after about 40 s).
READ = 8.0
CHANGE = 60.0

#: Hears what long work on a host is at: the host's alias, and a line.
Working = Callable[[str, str], object]

T = TypeVar("T")


class HostOps:
    """What can be asked of one host and done on it.

    Every method raises HostError (the host said no) or LinkLost (no answer came). Those under "reads"
    never change anything on the host.
    """

    def __init__(self, link: Link, mount: str, working: Working | None = None, patience: float = 1.0) -> None:
        """What is answered at once may take `patience` times longer than usual; the host is told."""
        self._link = link
        self._patience = patience
        self._mount = mount
        self._working = working or (lambda host, line: None)
        if patience != 1.0:
            self._ask("patience", times=patience)

    @property
    def host(self) -> str:
        return self._link.host

    @property
    def _mirror(self) -> Mapping[str, str]:
        """Where the host mirrors a definition to, and as whose."""
        return {"mount": self._mount, "host": self.host}

    def close(self) -> None:
        self._link.close()

    def _call(
        self, op: str, *, deadline: float, progress: Progress | None = None, **args: Any
    ) -> Mapping[str, Any]:
        return self._link.call(op, args, deadline=deadline, progress=progress)

    def _ask(self, op: str, *, seconds: float = READ, **args: Any) -> Mapping[str, Any]:
        """Ask for what the host answers at once, or has a problem."""
        return self._call(op, deadline=seconds * self._patience, **args)

    # -- reads ---------------------------------------------------------------------------------------

    def observe(self, *, plan: bool = False) -> HostFacts:
        """Everything about the host in one answer; with `plan` also the definitions and machine types."""
        reply = self._ask("observe", mount=self._mount, plan=plan)
        return self._understood(wire.host_facts, reply)

    def running(self) -> RunningNow:
        """Who runs here at this moment, from libvirt and from /proc."""
        return self._understood(wire.running_now, self._ask("running", mount=self._mount))

    def dumpxml(self, uuid: str, *, inactive: bool, security: bool) -> str:
        reply = self._ask("dumpxml", uuid=uuid, inactive=inactive, security=security)
        return str(reply["xml"])

    def look(self, paths: Iterable[str]) -> dict[str, FileId]:
        """What absolute paths on this host are: on the shared store or not, there or not."""
        reply = self._ask("look", mount=self._mount, paths=sorted(paths))
        return self._understood(wire.files, reply)

    def watch(self, uuid: str, seconds: float) -> tuple[str, str]:
        """Watch a started VM for so many seconds; its state and reason at the end, or when it went off."""
        reply = self._call("watch", deadline=seconds + READ * self._patience, uuid=uuid, seconds=seconds)
        return str(reply["state"]), str(reply["reason"])

    def store_read(self, path: str) -> str | None:
        """Text of a file below MOUNT/.vmfab, or None when there is none."""
        reply = self._ask("store.read", mount=self._mount, path=path)
        return None if reply["text"] is None else str(reply["text"])

    def store_list(self, folder: str) -> tuple[str, ...]:
        """The names in a folder below MOUNT/.vmfab, sorted; none when it does not exist."""
        reply = self._ask("store.list", mount=self._mount, path=folder)
        return tuple(str(name) for name in reply["names"])

    def store_read_dir(self, folder: str, *, unless: str = "") -> dict[str, str]:
        """All files of a folder below MOUNT/.vmfab, by name; empty when the folder does not exist.

        With `unless`, those whose last line contains it are left out.
        """
        found: dict[str, str] = {}
        after = ""
        while True:
            reply = self._ask("store.read_dir", mount=self._mount, path=folder, unless=unless, after=after)
            found.update((str(name), str(text)) for name, text in reply["files"].items())
            after = str(reply["next"])
            if not after:
                return found

    def store_held(self, paths: Iterable[str]) -> dict[str, str]:
        """Which of these files below MOUNT/.vmfab are locked, with the holder's text; makes none of them."""
        reply = self._ask("store.held", mount=self._mount, paths=sorted(paths))
        return {str(path): str(text) for path, text in reply["held"].items()}

    def store_images(self, seconds: float) -> Survey:
        """Files below the mount that look like images, as far as `seconds` suffice to find them."""
        deadline = (seconds + 2 * READ) * self._patience
        reply = self._call("store.images", deadline=deadline, mount=self._mount, seconds=seconds)
        return self._understood(survey, reply)

    def clock(self) -> float:
        """The host's time, seconds since the epoch."""
        return float(self._ask("clock")["at"])

    def store_stat(self, path: str) -> tuple[float | None, float]:
        """When a file below MOUNT/.vmfab was last written (None: there is none), and the host's own time."""
        reply = self._ask("store.stat", mount=self._mount, path=path)
        mtime = reply["mtime"]
        return None if mtime is None else float(mtime), float(reply["now"])

    def store_holds(self, path: str) -> bool:
        """Whether a lock that was taken over this connection is still held."""
        return bool(self._ask("store.holds", mount=self._mount, path=path)["held"])

    def network(self) -> Network:
        """The host's links, addresses and routes, and the files that configure them."""
        return self._understood(network, self._ask("network"))

    def netplan_check(self, texts: Mapping[str, str]) -> str:
        """What netplan complains about in these files of /etc/netplan, by name; "" when they are good.

        The host's own files are not touched. Raises HostError "bad-request" when it has no netplan.
        """
        reply = self._ask("netplan.check", seconds=30.0, files=dict(texts))
        said = str(reply["said"]).strip()
        return "" if int(reply["rc"]) == 0 else said or "it gave no reason"

    def file_read(self, path: str) -> HostFile:
        """A file on the host's own disk. Raises HostError of kind "file" for what is no regular file."""
        reply = self._ask("file.read", path=path)
        if reply["text"] is None:
            return HostFile(path, None, 0, None)
        return HostFile(path, str(reply["text"]), int(reply["mode"]), str(reply["sha256"]))

    # -- changes -------------------------------------------------------------------------------------

    def define(self, xml: str) -> None:
        """Define, and mirror the definition to the store."""
        self._call("define", deadline=CHANGE, xml=xml, mirror=self._mirror)

    def undefine(self, uuid: str) -> None:
        """Forget the definition; images and NVRAM stay, and a managed save makes it fail."""
        self._call("undefine", deadline=CHANGE, uuid=uuid, mirror=self._mirror)

    def autostart(self, uuid: str, *, on: bool) -> None:
        self._call("autostart", deadline=CHANGE, uuid=uuid, on=on)

    def start(self, uuid: str) -> str:
        """Start it once; the state seen afterwards."""
        return str(self._call("start", deadline=CHANGE, uuid=uuid, mirror=self._mirror)["state"])

    def shutdown(self, uuid: str) -> None:
        """Ask the guest once to shut down."""
        self._call("shutdown", deadline=CHANGE, uuid=uuid)

    def wait_off(
        self, uuid: str, *, timeout: float, ask_again: float | None, progress: Progress | None = None
    ) -> Mapping[str, Any]:
        """Wait on the host until it is off: {"off": bool, "state": str, "waited": s, "ended_at": epoch}."""
        return self._call(
            "wait_off",
            deadline=timeout + CHANGE,
            progress=progress,
            uuid=uuid,
            timeout=timeout,
            ask_again=ask_again,
        )

    def destroy(self, uuid: str, *, graceful: bool) -> str:
        """Stop it hard (graceful: SIGTERM only); the state seen afterwards."""
        return str(self._call("destroy", deadline=CHANGE, uuid=uuid, graceful=graceful)["state"])

    def reboot(self, uuid: str) -> None:
        self._call("reboot", deadline=CHANGE, uuid=uuid)

    def note_running(self, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Edit /root/running_vms atomically; other lines stay as they are."""
        self._ask("note_running", add=list(add), remove=list(remove))

    def save_running(self, *, write: bool) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """/root/running_vms as it is (None: no such file) and as what runs makes it; `write` replaces it."""
        reply = self._ask("save_running", write=write)
        before = reply["before"]
        return None if before is None else tuple(before), tuple(reply["after"])

    def store_init(self) -> None:
        """Give the store its identity, MOUNT/.vmfab/store-id, unless it has one."""
        self._ask("store.init", mount=self._mount)

    def store_write(self, path: str, text: str, *, exclusive: bool = False) -> None:
        """Write a file below MOUNT/.vmfab atomically; `exclusive` fails with kind "locked" if it exists."""
        self._ask("store.write", mount=self._mount, path=path, text=text, exclusive=exclusive)

    def store_append(self, path: str, text: str) -> None:
        """Append and flush to the disk."""
        self._ask("store.append", mount=self._mount, path=path, text=text)

    def store_remove(self, path: str) -> None:
        """Remove a file below MOUNT/.vmfab; already gone is fine.

        Lock files stay, except those of operations, which their holder removes.
        """
        self._ask("store.remove", mount=self._mount, path=path)

    def store_lock(self, path: str, holder: Mapping[str, Any]) -> None:
        """Hold a cluster-wide flock until `store_unlock` or the end of the connection.

        Raises HostError of kind "locked" whose detail is the present holder's JSON.
        """
        text = json.dumps(holder, ensure_ascii=False)
        self._ask("store.lock", mount=self._mount, path=path, holder=text)

    def store_unlock(self, path: str) -> None:
        self._ask("store.unlock", mount=self._mount, path=path)

    def store_seize(self, path: str) -> str:
        """As `store_lock`, on a file that exists and keeps its text; the text.

        Raises HostError of kind "file" when there is no such file.
        """
        return str(self._ask("store.seize", mount=self._mount, path=path)["text"])

    def store_swap(self, path: str, changes: Sequence[tuple[str, str | None, str | None]]) -> None:
        """Under a flock on `path`, replace files: (path, expected text, new text), None for no file.

        All of them or none. Raises HostError of kind "file" when one is not as expected.
        """
        wanted = [list(change) for change in changes]
        self._ask("store.swap", mount=self._mount, path=path, changes=wanted)

    def file_write(self, path: str, text: str, *, mode: int, expect: str | None) -> str:
        """Replace a file on the host's own disk atomically; where the old one is kept, "" if there was none.

        `expect` is the SHA-256 of what is there, None for nothing. Raises HostError of kind "file" when
        somebody has changed it meanwhile, or it cannot be written.
        """
        reply = self._ask("file.write", path=path, text=text, mode=mode, expect=expect)
        return str(reply["kept"] or "")

    def file_remove(self, path: str, *, expect: str) -> str:
        """Remove a file from the host's own disk; where it is kept, "" if it was gone already.

        Raises HostError as `file_write` does.
        """
        return str(self._ask("file.remove", path=path, expect=expect)["kept"] or "")

    def command(self, argv: Sequence[str], *, stdin: str = "", timeout: float = CHANGE) -> Ended:
        """Run a program on the host; whether it changes anything is up to the program.

        Raises HostError of kind "bad-request" when the host has no such program, "deadline" when it was
        killed after `timeout` seconds.
        """
        deadline = (timeout + READ) * self._patience
        reply = self._call("command", deadline=deadline, argv=list(argv), input=stdin, timeout=timeout)
        return Ended(int(reply["rc"]), str(reply["out"]), str(reply["err"]))

    def work(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        log: str,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a program that may take minutes and must not be cut off; its exit code and what it printed.

        It runs on when the connection ends. Both its outputs go to `log` on the host, behind what is there
        already; `out` is the end of what it wrote. What it is at is told each second to whoever opened the
        session for long work. Raises HostError as `command` does, but of kind "deadline" for a program that
        still runs after `timeout` seconds.
        """
        host, name = self.host, argv[0].rpartition("/")[2]

        def tell(event: Mapping[str, Any]) -> None:
            said = str(event.get("line", "")).strip()
            self._working(host, f"{name}, {float(event['waited']):.0f} s" + (f": {said}" if said else ""))

        reply = self._call(
            "work",
            deadline=timeout + READ * self._patience,
            progress=tell,
            argv=list(argv),
            timeout=timeout,
            log=log,
            env=dict(env or {}),
        )
        return Ended(int(reply["rc"]), str(reply["out"]), "")

    def tell(self, line: str) -> None:
        """Tell whoever opened the session for long work what is waited for, as `work` does."""
        self._working(self.host, line)

    def _understood(self, parse: Callable[[str, Mapping[str, Any]], T], reply: Mapping[str, Any]) -> T:
        try:
            return parse(self.host, reply)
        except (ValueError, KeyError, TypeError) as error:
            raise HostError(self.host, "bug", f"answered something not understood ({error})") from error

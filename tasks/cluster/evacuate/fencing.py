"""The proof that a host is dead, piece by piece: without it nothing of that host is started elsewhere.

A host's guard holds a flock on MOUNT/.vmfab/hosts/HOST for as long as the host is up, and leaves a sign of
life beside it every few seconds. The lock of a host without power becomes free only when the cluster file
system has thrown the host out; from then on it can write nothing to the store. Who evacuates the host takes
that lock through a living host and keeps it to the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import HostError, HostSilent
from tasks.cluster.evacuate import liveness
from tasks.cluster.model import HostFacts, Snapshot

#: Seconds without a sign of life after which there is none; a living guard gives one every 5 s.
QUIET = 12.0
#: Seconds between two looks for one.
LOOK = 2.0

PROVED, MISSING, OPEN = "proved", "missing", "not looked at"

_CUT = "cut its power (IPMI, PDU, plug) and try again"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of the proof: what was seen, and what to do about it when it proves nothing.

    `state` is PROVED, MISSING or OPEN.
    """

    name: str
    seen: str
    state: str = PROVED
    how: str = ""


class Fence:
    """Collects the proof for one host, and keeps its lock until `release`."""

    def __init__(self, session: Session, host: str, clock: Clock) -> None:
        self.host = host
        #: the living host through which the lock is held; "" when it is not
        self.keeper = ""
        self._session = session
        self._clock = clock
        self._path = f"hosts/{host}"
        self._ops: HostOps | None = None
        self._beat: float | None = None
        self._lost = ""
        self._guard = threading.Lock()

    # -- the pieces ----------------------------------------------------------------------------------

    def examine(self, snapshot: Snapshot, say: Callable[[str], None]) -> tuple[Piece, ...]:
        """Every piece, proved or not. Takes QUIET seconds when the lock can be had; `say` is told of that.

        Raises nothing foreseeable. The lock is held afterwards if it could be had: see `release`.
        """
        silence = silence_of(snapshot, self.host)
        if silence.state == PROVED:
            lock = self._seize(snapshot)
        else:
            lock = Piece("its lock is free", f"{self.host} may be up, so it was not tried", OPEN)
        beat = Piece("no sign of life", "only who holds its lock can tell", OPEN)
        if self._ops is not None and lock.state == PROVED:
            say(f"Watching {QUIET:.0f} s for a sign of life of {self.host}")
            beat = self._listen()
        return silence, others_of(snapshot, self.host), lock, beat

    def _seize(self, snapshot: Snapshot) -> Piece:
        name = "its lock is free"
        able = [f for f in snapshot.facts() if f.host != self.host and f.store.mounted]
        if not able:
            return Piece(name, "no other host has the store", MISSING, "Bring one of the others in order.")
        keeper = next((f.host for f in able if not f.store.silent), "")
        if not keeper:
            return Piece(name, "the store answers nobody, so it was not tried", OPEN)
        try:
            with self._session.using(keeper) as ops:
                text = ops.store_seize(self._path)
        except HostSilent as error:
            return Piece(name, f"{keeper} stopped answering ({error.reason})", MISSING, "Try again.")
        except HostError as error:
            return self._not_seized(name, keeper, error)
        self.keeper, self._ops = keeper, ops
        said = liveness.read(self.host, text)
        if said.doubt:
            return Piece(name, said.doubt, MISSING, said.how)
        return Piece(name, f"{said.words}; {keeper} holds it now")

    def _not_seized(self, name: str, keeper: str, error: HostError) -> Piece:
        host = self.host
        if error.kind == "locked":
            return Piece(
                name,
                f"it is held: {host} is up, or not yet thrown out of the cluster",
                MISSING,
                "A host without power is thrown out after about 75 s (OCFS2): wait, and try again. If the "
                f"lock stays held, {host} uses the store: {_CUT}.",
            )
        if error.kind == "file":
            return Piece(
                name,
                f"{host} has none on the store: it never ran the guard",
                MISSING,
                f"Nothing can prove its death. Boot it, start its VMs there, then: fab -H {host} host.guard\n"
                "  If it never boots again: make sure that it has no power, take it out of hosts.ini, which\n"
                "  is your word that it runs nothing, and start its VMs elsewhere: fab -H HOST vm.start NAME",
            )
        return Piece(name, f"{keeper}: {error.detail}", MISSING, _wait_for_store(host, keeper))

    def _listen(self) -> Piece:
        """Watch for a sign of life. Only changes count, so the hosts' clocks need not agree."""
        name, host = "no sign of life", self.host
        try:
            self._beat, now = self._stat()
            if self._beat is None:
                old = f"{host} has never given one: its guard is an old one"
                how = f"Boot it, and it starts its VMs. Then: fab -H {host} host.guard"
                return Piece(name, old, MISSING, how)
            end = self._clock.monotonic() + QUIET
            while (left := end - self._clock.monotonic()) > 0:
                self._clock.sleep(min(LOOK, left))
                if problem := self.still():
                    return Piece(name, problem, MISSING, f"It may run its VMs: {_CUT}.")
        except (HostSilent, HostError) as error:
            return Piece(name, str(error), MISSING, "Try again.")
        last = f"the last one at {liveness.moment(self._beat)}, {max(0.0, now - self._beat):.0f} s before"
        return Piece(name, f"none for {QUIET:.0f} s; {last}")

    def _stat(self) -> tuple[float | None, float]:
        assert self._ops is not None
        return self._ops.store_stat(f"{self._path}.beat")

    # -- afterwards ----------------------------------------------------------------------------------

    def still(self) -> str:
        """Ask again: "" while the lock is held and no sign of life came, else why the proof is over.

        What was lost once stays lost. For `Session.fence`; may be called from several threads.
        """
        with self._guard:
            if not self._lost:
                self._lost = self._doubt()
            return self._lost

    @property
    def lost(self) -> str:
        """Why the proof is over, as last seen; "" while it holds."""
        return self._lost

    def _doubt(self) -> str:
        if self._ops is None:
            return f"the lock of {self.host} is not held any more"
        try:
            if not self._ops.store_holds(self._path):
                return f"{self.keeper} has lost the lock of {self.host}"
            if self._stat()[0] != self._beat:
                return f"{self.host} gives a sign of life"
        except (HostSilent, HostError) as error:
            why = error.reason if isinstance(error, HostSilent) else error.detail
            return f"{self.keeper}, which holds the lock of {self.host}, cannot be asked ({why})"
        return ""

    def release(self) -> None:
        """Give the lock back; a lost link has done so already."""
        ops, self._ops, self.keeper = self._ops, None, ""
        if ops is None:
            return
        try:
            ops.store_unlock(self._path)
        except (HostSilent, HostError):
            # The agent gives it back when its link ends.
            return


def _wait_for_store(host: str, keeper: str) -> str:
    """OCFS2 answers nobody until the living hosts have replayed the journal of the dead one."""
    return (
        f"While the others replay what {host} has left, the store stands still, a minute or two as a rule: "
        f"wait, and type the same again.\n  If it stays so, look at the store on {keeper}: findmnt, dmesg."
    )


def silence_of(snapshot: Snapshot, host: str) -> Piece:
    """Whether nothing at all answers at the host's address."""
    name, seen = "it is silent", snapshot.hosts[host]
    if isinstance(seen, HostFacts) and not seen.libvirt_problem:
        return Piece(name, f"{host} answers", MISSING, f"Empty it in order: fab -H {host} drain")
    if isinstance(seen, HostFacts):
        how = f"Its VMs go on without libvirtd. On {host}: systemctl status libvirtd"
        return Piece(name, f"{host} answers, only its libvirtd does not", MISSING, how)
    if seen.alive:
        how = seen.hint or f"Look at its console. If it is beyond help, {_CUT}."
        return Piece(name, f"something answers there: {seen.reason}", MISSING, f"Its VMs may run. {how}")
    return Piece(name, seen.reason)


def others_of(snapshot: Snapshot, host: str) -> Piece:
    """Whether every other host answers and sees the same store."""
    name = "all others answer"
    unsure = {s.host: f"{s.host} does not ({s.reason})" for s in snapshot.unsure() if s.host != host}
    waits = {f.host: f"{f.host}: {f.store.problem}" for f in snapshot.facts() if f.store.silent}
    waits.pop(host, None)
    problems = [text for other, text in unsure.items() if other not in waits]
    stores: dict[str, list[str]] = {}
    for facts in snapshot.facts():
        if facts.host in unsure or facts.host in waits or facts.host == host:
            continue
        if facts.store.mounted and facts.store.store_id:
            stores.setdefault(facts.store.store_id, []).append(facts.host)
        else:
            problems.append(f"{facts.host}: {facts.store.problem or 'its store has no identity'}")
    if len(stores) > 1:
        problems.append(
            "different stores on " + " and on ".join(", ".join(group) for group in stores.values())
        )
    how = ["They may run anything: bring them in order first."] if problems else []
    how += [_wait_for_store(host, next(iter(waits)))] if waits else []
    if how:
        return Piece(name, "; ".join([*problems, *waits.values()]), MISSING, "\n  ".join(how))
    if not stores:
        return Piece(name, f"there is none besides {host}", MISSING, f"Boot {host}, and it starts its VMs.")
    return Piece(name, f"{', '.join(*stores.values())}; all see the same store")

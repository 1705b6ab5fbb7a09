"""A bridge over the host's NIC: planned, checked by netplan, tried with a way back, proved by a new login."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.network import Network
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, HostSilent, LinkLost, Refused, Unknown
from tasks.cluster.setup import bridgeplan, layer3, links, neighbours
from tasks.cluster.setup.bridgeplan import OWN, Wanted
from tasks.cluster.setup.links import Wishes
from tasks.cluster.setup.steps import AlreadySo, Change, Finding, Lacking, OwnFile, Step, diff, run
from tasks.cluster.setup.templates import render

#: Seconds after which the old network is back, unless a new login has succeeded.
PATIENCE = 120.0
#: of these, seconds for the way back itself
RETURN = 15.0
SHORTEST = 30.0
#: Seconds beyond `PATIENCE` for a host to be heard again.
_GRACE = 60.0
#: On the host; see templates/netplan-change.sh.j2. It is forgotten with a reboot, as what is tried.
WORK = "/run/vmfab/bridge"
SCRIPT = f"{WORK}/change.sh"
STATE = f"{WORK}/state"
LOG = f"{WORK}/log"
BACK = "vmfab-netplan-back"
CLOUD_INIT = "/etc/cloud/cloud.cfg.d/99-disable-network-config.cfg"
_SECRET = re.compile(r"(?m)^([-+ ]\s*(?:- )?(?:password|psk|client-key-password|key|private)\s*:).*$")


def step(session: Session, host: str, patience: float = PATIENCE) -> Step:
    """What `host.bridge` sets up. Raises Refused for settings of hosts.ini that make no sense."""
    wished = links.wishes(session.inventory.hosts[host])
    return Step("bridge", (CloudInitOff(wished), Bridge(session, wished, patience)))


def looked(ops: HostOps, wished: Wishes) -> tuple[Network, Wanted]:
    """The host's network, and what is wanted of it. Raises Refused, Lacking."""
    network = ops.network()
    if not network.systemd:
        raise Refused(f"{ops.host} is not run by systemd, whose networkd carries the bridge.")
    if network.trying:
        raise Refused(
            f"{ops.host}: a change of its network is being tried at this moment.",
            "Unless a new login proves it, the old network is back within two minutes. Try again then.",
        )
    wanted = bridgeplan.wanted(network, wished)
    if wanted.storage:
        _refuse_mounted(ops, wanted.storage)
    return network, wanted


def _refuse_mounted(ops: HostOps, nic: str) -> None:
    """Refuse to take the storage network away under an OCFS2."""
    mounts = [mount for mount, kind in neighbours.mounted(ops).items() if kind == "ocfs2"]
    if mounts:
        raise Refused(
            f"{ops.host}: {nic} is its storage NIC and is to change, which might make o2cb reset the host "
            f"while {' and '.join(mounts)} {'is' if len(mounts) == 1 else 'are'} mounted.",
            f"Type fab -H {ops.host} drain, then umount {shlex.join(mounts)} on {ops.host}, and then the "
            "same again.",
        )


@dataclass(frozen=True, slots=True)
class CloudInitOff:
    """cloud-init leaves the network alone: it would write its own file again."""

    wished: Wishes

    def look(self, ops: HostOps) -> Finding:
        network, wanted = looked(ops, self.wished)
        if not network.cloud_init:
            return AlreadySo("cloud-init", "is not there")
        if OWN not in wanted.files and OWN not in network.netplan:
            return AlreadySo("cloud-init", "wrote nothing that is to be replaced")
        return OwnFile(CLOUD_INIT, render("cloud-init-network.cfg.j2"), 0o644).look(ops)


@dataclass(frozen=True, slots=True)
class Bridge:
    """The bridge, as hosts.ini and the host's own network want it."""

    session: Session
    wished: Wishes
    patience: float

    def look(self, ops: HostOps) -> Finding:
        network, wanted = looked(ops, self.wished)
        if not wanted.todo:
            return AlreadySo(wanted.bridge, wanted.there)
        if "netplan" not in network.programs:
            raise Lacking(ops.host, "has no netplan", by="packages")
        if complaint := ops.netplan_check(wanted.texts):
            raise Refused(f"{ops.host}: netplan does not like what would be written: {complaint}.")
        texts = network.netplan
        differences = "".join(diff(path, texts.get(path), after) for path, after in wanted.files.items())
        made = wanted.bridge in wanted.made
        why = f"{'made' if made else 'changed'} over {wanted.port}" if wanted.files else wanted.lagging
        if not wanted.files:
            why = f"applied again, as {why}"
        if wanted.interrupts:
            why += f" ({wanted.interrupts}; the old network returns by itself unless a new login works)"
        trial = _Trial(self.session, ops.host, network, wanted, self.patience)
        return Change(wanted.bridge, why, trial.make, _SECRET.sub(r"\1 ...", differences))


def script(host: str, texts: Mapping[str, str], wanted: Wanted, seconds: int) -> str:
    """The program that makes the change on the host and takes it back; `texts` are netplan's files now."""
    found = {path: texts.get(path) for path in wanted.files}
    return render(
        "netplan-change.sh.j2",
        host=host,
        work=WORK,
        back=BACK,
        seconds=seconds,
        files={path: text or "" for path, text in wanted.files.items()},
        found={path: _digest(text) if text is not None else "" for path, text in found.items()},
        made=wanted.made,
        returns=wanted.returns,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class _Trial:
    """One change of a host's network, from its start to the proof or the return of the old one."""

    def __init__(
        self, session: Session, host: str, network: Network, wanted: Wanted, patience: float
    ) -> None:
        self._session = session
        self._host = host
        self._wanted = wanted
        self._patience = patience
        self._script = script(host, network.netplan, wanted, int(patience - RETURN))
        self._silence = ""

    def make(self, ops: HostOps) -> str:
        """Start it, prove it by a new login, and make it last; a note about what was kept.

        Raises Failed when the old network is back, Unknown when the host is not heard any more,
        Refused when a store has been mounted since the question.
        """
        if self._wanted.storage:
            _refuse_mounted(ops, self._wanted.storage)
        run(ops, ["rm", "-rf", WORK])
        ops.file_write(SCRIPT, self._script, mode=0o600, expect=None)
        try:
            started = run(ops, ["sh", SCRIPT, "start"])
        except LinkLost:
            pass  # whether it has started shows below
        else:
            if started.rc != 0:
                raise Failed(f"{self._host}: the change did not start: {started.said}.")
        return self._watch()

    def _watch(self) -> str:
        clock = self._session.clock
        begun = clock.monotonic()
        while clock.monotonic() - begun < self._patience + _GRACE:
            clock.sleep(1.0)
            try:
                # Only a new login counts: an old connection may live on where a new one finds no way.
                ops = self._session.renew(self._host)
                if self._is_kept(ops, ops.file_read(STATE).text):
                    return self._kept()
            except HostSilent as error:
                self._silence = error.reason
            except HostError as error:
                self._silence = error.detail
        raise Unknown(
            f"{self._host} has not been heard since its network was changed ({self._silence}).",
            f"Look at its console: journalctl -u {BACK} tells of the way back. Nothing was written to /etc, "
            "so a reboot brings the old network back, too.",
        )

    def _is_kept(self, ops: HostOps, text: str | None) -> bool:
        """Whether it is done, seen through a new login. Raises Failed when it will not be."""
        state = (text or "").strip()
        if text is None:
            return self._outlived(ops)
        if state == "applied" and not self._lacks(ops):
            try:
                ended = ops.command(["sh", SCRIPT, "keep"], timeout=30.0)
            except LinkLost:
                return False  # the next login shows the state
            if ended.rc == 0:
                return True
            state = (ops.file_read(STATE).text or "").strip()
        if state == "kept":
            return True
        if state == "half":
            raise Unknown(
                f"{self._host}: its new network works, but not all of its files could be replaced.",
                "Look into /etc/netplan there: is the disk full? The old files are in /var/backups/vmfab.",
            )
        if state == "returned":
            raise Failed(f"{self._host}: {self._why(ops)}. The old network is back.", "Nothing was changed.")
        if state == "stuck":
            raise Unknown(
                f"{self._host}: {self._why(ops)}, and the old network has not come back as it was.",
                f"Look there: journalctl -u {BACK}; ip address. /etc/netplan is as it was: a reboot helps.",
            )
        return False

    def _outlived(self, ops: HostOps) -> bool:
        """Whether it was kept before a restart of the host, which forgets how far it had come."""
        files = ops.network().netplan
        if any(files.get(path) != text for path, text in self._wanted.files.items()):
            raise Failed(f"{self._host} was restarted before its new network was proved: it has the old one.")
        return not self._lacks(ops)

    def _why(self, ops: HostOps) -> str:
        log = (ops.file_read(LOG).text or "").strip().splitlines()
        if log and self._silence == "":
            return f"netplan could not apply it ({log[-1]})"
        waited = self._patience - RETURN
        lacking = self._silence or self._lacks(ops) or "it did not come up"
        return f"no new login within {waited:.0f} s after the change ({lacking})"

    def _lacks(self, ops: HostOps) -> str:
        """What the kernel does not have yet of what was applied."""
        have, wanted = ops.network().links, self._wanted
        bridge, port = have.get(wanted.bridge), have.get(wanted.port)
        if bridge is None or port is None or port.master != bridge.name:
            return f"{wanted.port} is not in {wanted.bridge}"
        addresses = {layer3.interface(address.cidr) for address in bridge.addresses}
        missing = [address for address in wanted.addresses if address not in addresses]
        return f"{wanted.bridge} lacks {missing[0]}" if missing else ""

    def _kept(self) -> str:
        replaced = [path for path, text in self._wanted.files.items() if text is None]
        kept = f"; {', '.join(replaced)} kept below /var/backups/vmfab" if replaced else ""
        return f"proved by a new login{kept}"

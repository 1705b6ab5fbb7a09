"""The stores' disks on a host: initiator name, storage NIC, node records, sessions, and all of it at boot."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.cluster.asking.hostfiles import HostFile
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, Refused
from tasks.cluster.model import Host, Silent, StoreHost
from tasks.cluster.setup import iscsiadm, secretfile, templates
from tasks.cluster.setup.iscsiadm import Login, Record
from tasks.cluster.setup.iscsitargets import (
    IFACE,
    INITIATOR,
    discovered,
    folder,
    forgotten,
    initiator_of,
    is_of,
    known,
    logins,
    recorded,
    target_of,
)
from tasks.cluster.setup.steps import AlreadySo, Change, Finding, Lacking, OwnFile, Step, Wish, diff, run

#: As Debian and Ubuntu make it up.
_NAMES_BEGIN = "iqn.1993-08.org.debian:01:"
#: Seconds that I/O waits for a lost connection to come back until it fails: with a single path, long.
REPLACEMENT_TIMEOUT = 120
#: Seconds: iscsiadm tries several times.
LOGIN = 150.0
#: Seconds for the disks to show up after the login.
_DISKS = 20.0
_ALREADY = 15
LOGIN_AT_BOOT = "open-iscsi.service"
_DAEMON = "iscsid.service"
_DAEMON_SOCKET = "iscsid.socket"


def step(session: Session, host: str) -> Step:
    """What `host.iscsi` sets up on a host. Asks nobody; raises Refused for settings that make no sense."""
    here = session.inventory.hosts[host]
    stores = tuple(session.inventory.stores.values())
    if not stores:
        return Step("iscsi", (NoStores(),))
    require_address(here)
    for store in stores:
        _require_ip(store)
    wishes: list[Wish] = [InitiatorName(session, host), Daemon(), Iface(here)]
    for store in stores:
        wishes += [NodeRecord(here, store, _secret(store)), OnlyPath(store), LoggedIn(session, store)]
    return Step("iscsi", (*wishes, LoginAtBoot(stores)))


def require_address(host: Host) -> str:
    """A host's address in the storage network. Raises Refused when hosts.ini does not say it."""
    if not host.storage_address:
        raise Refused(
            f"hosts.ini does not say {host.name}'s address in the storage network.",
            f"Write vmfab_storage_address=ADDRESS at {host.name}.",
        )
    return host.storage_address


def _require_ip(store: StoreHost) -> None:
    try:
        ipaddress.ip_address(store.address)
    except ValueError:
        raise Refused(
            f"{store.name} has no IP address in hosts.ini, by which iSCSI records name it.",
            f"Write {store.name} ansible_host=ADDRESS",
        ) from None


def _secret(store: StoreHost) -> str:
    if not store.chap_secret_file:
        return ""
    return secretfile.read(store.chap_secret_file, f"the CHAP secret of {store.name}")


@dataclass(frozen=True, slots=True)
class Due(Change):
    """A change that can be known only when those before it are made."""


def later(wish: Wish, what: str, why: str) -> Due:
    """A change that looks once those before it are made, and does what is due then.

    Failed when it still cannot tell.
    """

    def make(ops: HostOps) -> str:
        found = wish.look(ops)
        if isinstance(found, Due):
            raise Failed(
                f"{ops.host}: what to do about the {what} cannot be told, though all before it is done.",
                f"Type there: iscsiadm -m node -P 1; each store needs one record through {IFACE}.",
            )
        return found.apply(ops) if isinstance(found, Change) else found.why

    return Due(what, why, make)


def systemctl(ops: HostOps, *words: str) -> None:
    """Have systemd do something. Raises Failed."""
    ended = ops.command(["systemctl", *words], timeout=90.0)
    if ended.rc != 0:
        raise Failed(f"systemctl {' '.join(words)} failed on {ops.host}: {ended.said}.")


def unit(ops: HostOps, question: str, name: str) -> str:
    """What systemd answers to is-enabled or is-active; empty for a unit that it does not know."""
    return run(ops, ["systemctl", question, name]).out.strip()


# -- wishes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoStores:
    """Nothing, for a cluster without stores."""

    def look(self, ops: HostOps) -> Finding:
        return AlreadySo("stores", "hosts.ini names none")


@dataclass(frozen=True, slots=True)
class InitiatorName:
    """A name for the host's initiator that no other host has."""

    session: Session = field(repr=False)
    host: str

    def look(self, ops: HostOps) -> Finding:
        run(ops, ["iscsiadm", "--version"])
        found = ops.file_read(INITIATOR)
        name = initiator_of(found.text)
        others = [other for other in self.session.inventory.hosts if other != self.host]
        said = self.session.each(others, lambda there: there.file_read(INITIATOR).text)
        names = {o: initiator_of(text) for o, text in said.items() if not isinstance(text, Silent)}
        silent = [other for other, text in said.items() if isinstance(text, Silent)]
        unasked = f" ({', '.join(silent)} did not answer)" if silent else ""
        same = sorted(other for other, theirs in names.items() if theirs and theirs == name)
        if name and not same:
            return AlreadySo("initiator", f"is {name}, which no other host has{unasked}")
        if name and (held := logins(ops)):
            raise Refused(
                f"{ops.host} and {', '.join(same)} have the same initiator name, {name}.",
                f"{ops.host} is logged in to {held[0].target} with it, so it stays. Drain the host, umount"
                " its stores, type iscsiadm -m session -u there, and then the same again.",
            )
        mine = self._made_up(ops)
        text = templates.render("initiatorname.iscsi.j2", name=mine)

        def write(ops: HostOps) -> str:
            ops.file_write(INITIATOR, text, mode=0o600, expect=found.sha256)
            systemctl(ops, "try-restart", _DAEMON)
            return f"{name} was {', '.join(same)}'s as well" if name else ""

        return Change(INITIATOR, f"given the name {mine}", write, diff(INITIATOR, found.text, text))

    def _made_up(self, ops: HostOps) -> str:
        """A name that stays the same when asked again, and differs for a copy of the machine."""
        machine = ops.file_read("/etc/machine-id").text or ""
        return _NAMES_BEGIN + hashlib.sha256(f"{self.host} {machine}".encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Daemon:
    """iscsid is there whenever it is needed."""

    def look(self, ops: HostOps) -> Finding:
        name = _DAEMON_SOCKET if unit(ops, "is-enabled", _DAEMON_SOCKET) not in ("", "not-found") else _DAEMON
        enabled = unit(ops, "is-enabled", name) == "enabled"
        active = any(unit(ops, "is-active", one) == "active" for one in (_DAEMON_SOCKET, _DAEMON))
        if enabled and active:
            return AlreadySo(name, "is on, now and after each boot")

        def turn_on(ops: HostOps) -> str:
            systemctl(ops, "enable", name)
            if not active:
                systemctl(ops, "start", name)
            return ""

        return Change(name, "enabled" if active else "enabled and started", turn_on)


@dataclass(frozen=True, slots=True)
class Iface:
    """An iface record that binds sessions to the storage NIC."""

    host: Host

    def look(self, ops: HostOps) -> Finding:
        text = templates.render("iscsi-iface.j2", iface=IFACE, nic=storage_nic(ops, self.host))
        return OwnFile(iscsiadm.iface_path(folder(ops), IFACE), text, 0o600).look(ops)


def storage_nic(ops: HostOps, host: Host) -> str:
    """The NIC of a host that has its storage address.

    Raises Lacking when none has, Refused when it is another one than vmfab_storage_nic.
    """
    address, wanted = require_address(host), host.variables.get("vmfab_storage_nic", "")
    found = iscsiadm.nic_with(address, run(ops, ["ip", "-j", "addr"]).out)
    if found is None:
        raise Lacking(ops.host, f"has no NIC with its storage address {address}", by="bridge")
    if wanted and found != wanted:
        raise Refused(
            f"{ops.host} has its storage address {address} on {found}, not on {wanted}.",
            f"Correct vmfab_storage_nic in hosts.ini, or type fab -H {ops.host} host.bridge",
        )
    return found


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node record for the store's target, through the storage NIC, that is logged in at boot."""

    host: Host
    store: StoreHost
    secret: str = field(repr=False)

    def look(self, ops: HostOps) -> Finding:
        what = f"node record of {self.store.name}"
        record = target_of(ops, self.store)
        tried = record is not None and _tried(ops, record)
        if not tried:
            _require_route(ops, self.host, self.store)
        if record is None:
            if not initiator_of(ops.file_read(INITIATOR).text):
                return later(self, what, "made: its target is asked for once the host has an initiator name")
            record = discovered(ops, self.store)
            _no_other(ops, self.store, record)
        if not tried and not self.secret:
            _require_no_account(ops, self.store, record)
        wanted = self._settings(ops)
        path = record.path(folder(ops))
        found = ops.file_read(path)
        if found.text is None:
            shown = iscsiadm.masked("", "".join(f"{name} = {value}\n" for name, value in wanted.items()))[1]
            made = record

            def make(ops: HostOps) -> str:
                _iscsiadm(ops, *made.words, "-o", "new")
                self._write(ops, path, wanted)
                return made.target

            return Change(what, "made", make, diff(path, None, shown))
        after = iscsiadm.with_settings(found.text, wanted)
        if after == found.text and found.mode == 0o600:
            return AlreadySo(what, f"has {record.target} logged in at boot, through {IFACE}")

        def edit(ops: HostOps) -> str:
            self._write(ops, path, wanted)
            return "it counts from the next login on"

        why = "edited" if after != found.text else f"mode {found.mode:04o} becomes 0600"
        return Change(what, why, edit, diff(path, *iscsiadm.masked(found.text, after)))

    def _settings(self, ops: HostOps) -> Mapping[str, str]:
        wanted = {
            "node.startup": "automatic",
            "node.conn[0].startup": "automatic",
            "node.session.timeo.replacement_timeout": str(REPLACEMENT_TIMEOUT),
            # A record keeps what its iface record said when it was made.
            "iface.net_ifacename": storage_nic(ops, self.host),
        }
        if self.secret:
            wanted |= {
                "node.session.auth.authmethod": "CHAP",
                "node.session.auth.username": self.store.chap_user,
                "node.session.auth.password": self.secret,
            }
        return wanted

    def _write(self, ops: HostOps, path: str, wanted: Mapping[str, str]) -> None:
        """Edit the record's file, not with iscsiadm: that takes the secret from its command line."""
        found = ops.file_read(path)
        if found.text is None:
            raise Failed(f"{ops.host}: iscsiadm has made no record {path}.", "Look at it there.")
        _replace_record(ops, found, iscsiadm.with_settings(found.text, wanted))


def _tried(ops: HostOps, record: Record) -> bool:
    """Whether the host is logged in by a record of vmfab's: what it needs is there then."""
    return any((login.target, login.iface) == (record.target, IFACE) for login in logins(ops))


def _require_route(ops: HostOps, host: Host, store: StoreHost) -> None:
    """Raise Refused when the host reaches a store by another NIC than that to which sessions are bound."""
    nic = storage_nic(ops, host)
    ended = run(ops, ["ip", "-j", "route", "get", store.address])
    # Without a route no NIC is a wrong one, and the store does not answer.
    taken = iscsiadm.route_nic(ended.out) if ended.rc == 0 else nic
    if taken != nic:
        raise Refused(
            f"{ops.host} reaches {store.name} at {store.address} through {taken}, but its storage address"
            f" {host.storage_address} is on {nic}.",
            f"vmfab_storage_address= of {ops.host} and ansible_host= of {store.name} have to be addresses"
            " in the storage network: correct in hosts.ini the one that is not.",
        )


def _require_no_account(ops: HostOps, store: StoreHost, mine: Record) -> None:
    """Raise Refused when the host logs in with CHAP by another record, and hosts.ini knows no account."""
    held = [(login.target, login.portal, login.iface) for login in logins(ops)]
    where = folder(ops)
    for record in recorded(ops):
        if record.target != mine.target or record == mine:
            continue
        path = record.path(where)
        text = ops.file_read(path).text or ""
        used = _at_boot(text) or (record.target, record.portal, record.iface) in held
        if used and iscsiadm.setting(text, "node.session.auth.authmethod") == "CHAP":
            user = iscsiadm.setting(text, "node.session.auth.username") or "NAME"
            raise Refused(
                f"{ops.host} logs in to {store.name} with CHAP, as {path} there says, and hosts.ini has no"
                " account for it.",
                f"Write vmfab_chap_user={user} and vmfab_chap_secret_file=FILE at {store.name};"
                " README, iSCSI, says how to make the file.",
            )


def _at_boot(record: str) -> bool:
    """Whether a record's text has it logged in at boot."""
    return iscsiadm.setting(record, "node.startup") not in (None, "manual")


def _no_other(ops: HostOps, store: StoreHost, wanted: Record) -> None:
    """Raise Refused for vmfab's records of what was at the store's portal before."""
    stale = [record for record in known(ops, store) if not is_of(record, wanted)]
    if stale:
        listed = ", ".join(f"{record.target} (portal group {record.group})" for record in stale)
        raise Refused(
            f"{ops.host} still has vmfab's record of {listed}, which {store.name} does not offer any more:"
            f" it offers {wanted.target} (portal group {wanted.group}).",
            forgotten(ops.host, stale),
        )


@dataclass(frozen=True, slots=True)
class OnlyPath:
    """No other record logs in to the same target at boot: a second path would show the same disk twice."""

    store: StoreHost

    def look(self, ops: HostOps) -> Finding:
        what = f"other records of {self.store.name}"
        mine = target_of(ops, self.store)
        all_of_them = recorded(ops)
        if mine is None and all_of_them:
            return later(self, what, "kept from logging in by themselves, if they have the same target")
        if mine is None:
            return AlreadySo(what, "there are none")
        changed: list[tuple[Record, str, str, str]] = []
        where = folder(ops)
        for record in all_of_them:
            if record.target != mine.target or record == mine:
                continue
            path = record.path(where)
            text = ops.file_read(path).text or ""
            if _at_boot(text):
                changed.append((record, path, text, iscsiadm.with_settings(text, _MANUAL)))
        if not changed:
            return AlreadySo(what, "none logs in by itself")

        ways = ", ".join(f"{record.portal} through {record.iface}" for record, *_ in changed)

        def calm(ops: HostOps) -> str:
            for _, path, text, after in changed:
                found = ops.file_read(path)
                if found.text != text:
                    raise Failed(f"{ops.host}: somebody else has changed {path}.", "Try again.")
                _replace_record(ops, found, after)
            return f"{ways}; sessions that there are go on"

        shown = "".join(diff(path, *iscsiadm.masked(text, after)) for _, path, text, after in changed)
        return Change(what, "kept from logging in by themselves", calm, shown)


_MANUAL = {"node.startup": "manual", "node.conn[0].startup": "manual"}


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """One session with the store's target, and its disk."""

    session: Session = field(repr=False)
    store: StoreHost

    def look(self, ops: HostOps) -> Finding:
        what = f"session with {self.store.name}"
        record = target_of(ops, self.store)
        if record is None:
            return later(self, what, "logged in")
        held = [login for login in logins(ops) if login.target == record.target]
        if len(held) > 1:
            raise Refused(
                f"{ops.host} has {len(held)} sessions with {record.target}: {_listed(held)}.",
                "Its disk is there more than once. Log one of them out whose disk is not mounted: "
                "iscsiadm -m session -r NUMBER -u",
            )
        if not held:
            return Change(what, f"logged in at {record.portal}", lambda ops: self._log_in(ops, record))
        (login,) = held
        if not login.well:
            return Change(what, f"brought back (it is {login.state})", lambda ops: self._wait(ops, record))
        if not login.disks:
            return Change(what, "asked for its disk", lambda ops: self._rescan(ops, login, record))
        how = f"gives {', '.join(login.disks)}"
        if login.iface != IFACE:
            how += f" through {login.iface}; from the next boot on through {IFACE}"
        return AlreadySo(what, how)

    def _log_in(self, ops: HostOps, record: Record) -> str:
        ended = ops.command(["iscsiadm", *record.words, "--login"], timeout=LOGIN)
        if ended.rc == iscsiadm.NOT_AUTHORIZED:
            who = f"CHAP user {self.store.chap_user}" if self.store.chap_user else "a host without CHAP"
            raise Failed(
                f"{self.store.name} does not let {ops.host} in as {who}.",
                f"Compare vmfab_chap_user and what is in vmfab_chap_secret_file with the account there,"
                f" and its access list with {INITIATOR} of {ops.host}.",
            )
        if ended.rc not in (0, _ALREADY):
            self._see_that_it_is_offered(ops, record)
            raise Failed(
                f"{ops.host} cannot log in to {record.target} at {record.portal}: {ended.said}.",
                f"Type there: ping -c 3 {record.address}",
            )
        return self._wait(ops, record)

    def _see_that_it_is_offered(self, ops: HostOps, record: Record) -> None:
        """Raise Failed when the store offers another target by now, as one that was set up anew does."""
        try:
            offer = discovered(ops, self.store)
        except Refused:
            return
        if not is_of(record, offer):
            raise Failed(
                f"{self.store.name} does not offer {record.target} (portal group {record.group}) any more,"
                f" but {offer.target} (portal group {offer.group}).",
                forgotten(ops.host, [record]),
            )

    def _rescan(self, ops: HostOps, login: Login, record: Record) -> str:
        _iscsiadm(ops, "-m", "session", "-r", login.sid, "--rescan")
        return self._wait(ops, record)

    def _wait(self, ops: HostOps, record: Record) -> str:
        """Wait for the session to be well and to have a disk; which. Raises Failed."""
        clock = self.session.clock
        until = clock.monotonic() + _DISKS
        while True:
            held = [login for login in logins(ops) if login.target == record.target]
            if any(login.well and login.disks for login in held):
                run(ops, ["udevadm", "settle", "--timeout=10"])
                return ", ".join(disk for login in held for disk in login.disks)
            if clock.monotonic() > until:
                break
            clock.sleep(1.0)
        if any(login.well for login in held):
            raise Failed(
                f"{ops.host} is logged in to {record.target}, which shows it no disk.",
                f"Let the access list of {self.store.name} name the initiator in {INITIATOR} of {ops.host}.",
            )
        raise Failed(
            f"{ops.host}: the session with {record.target} does not come up.",
            f"iscsid goes on trying. Type there: ping -c 3 {record.address}; journalctl -u iscsid",
        )


def _listed(held: list[Login]) -> str:
    return ", ".join(
        f"number {one.sid} at {one.portal} through {one.iface} ({', '.join(one.disks) or 'no disk'})"
        for one in held
    )


@dataclass(frozen=True, slots=True)
class LoginAtBoot:
    """The sessions come back after a boot, and end in order before the network does.

    The unit logs in by every record at its start: with a session that goes another way, a second time.
    """

    stores: tuple[StoreHost, ...]

    def look(self, ops: HostOps) -> Finding:
        enabled = unit(ops, "is-enabled", LOGIN_AT_BOOT) == "enabled"
        if enabled and unit(ops, "is-active", LOGIN_AT_BOOT) == "active":
            return AlreadySo(LOGIN_AT_BOOT, "logs in after each boot")
        ways = self._other_ways(ops)
        if enabled and ways:
            return AlreadySo(LOGIN_AT_BOOT, f"counts from the next boot on: {ways} until then")

        def turn_on(ops: HostOps) -> str:
            systemctl(ops, "enable", LOGIN_AT_BOOT)
            if ways := self._other_ways(ops):
                return f"it counts from the next boot on: {ways} until then"
            systemctl(ops, "start", LOGIN_AT_BOOT)
            return ""

        why = "started" if enabled else "enabled and started"
        if ways:
            why = "enabled"
        elif logins(ops) and not all(target_of(ops, store) for store in self.stores):
            why += ", unless a session with a store goes another way until the next boot"
        return Change(LOGIN_AT_BOOT, why, turn_on)

    def _other_ways(self, ops: HostOps) -> str:
        """The sessions with the stores that its start would take for none; empty when there are none such."""
        records = [record for store in self.stores if (record := target_of(ops, store))]
        mine = {record.target: (IFACE, record.portal) for record in records}
        return ", ".join(
            f"{login.target} goes by {login.portal} through {login.iface}"
            for login in logins(ops)
            if mine.get(login.target, (login.iface, login.portal)) != (login.iface, login.portal)
        )


def _replace_record(ops: HostOps, found: HostFile, text: str) -> None:
    """Replace a node record. The old one is not kept: there may be a secret in it."""
    kept = ops.file_write(found.path, text, mode=0o600, expect=found.sha256)
    if kept:
        run(ops, ["rm", "-f", kept])


def _iscsiadm(ops: HostOps, *words: str) -> None:
    ended = ops.command(["iscsiadm", *words], timeout=60.0)
    if ended.rc != 0:
        raise Failed(f"{ops.host}: iscsiadm {' '.join(words)}: {ended.said}.")

"""The stores: iSCSI session, device, OCFS2's cluster, mount. Every host has every store."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from tests.hosts.demand import demand, demand_file, demand_service, said
from tests.hosts.wanted import Store, Wanted

CLUSTER_CONF = "/etc/ocfs2/cluster.conf"
CONFIGFS = "/sys/kernel/config/cluster"
FSTAB_OPTIONS = ("_netdev", "noatime", "x-systemd.requires=o2cb.service")


def sessions(host: Host, store: Store) -> list[str]:
    """The targets of the sessions to a store's portal."""
    addresses = {store.address, *said(host, "getent ahosts %s", store.address).split()}
    # tcp: [1] 192.168.0.10:3260,1 iqn.2026-11.de.example:vmstorage (non-flash)
    lines = re.findall(
        r"^tcp: \[\d+\] (\S+):(\d+),\S* (\S+)", said(host, "iscsiadm -m session"), re.MULTILINE
    )
    return [
        target
        for address, port, target in lines
        if address.strip("[]") in addresses and int(port) == store.port and store.target in ("", target)
    ]


def device(host: Host, store: Store) -> str:
    return said(host, "sh -c %s", f"readlink -f \"$(PATH=$PATH:/sbin:/usr/sbin blkid -L '{store.label}')\"")


def test_initiator_has_a_name_of_its_own(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, "/etc/iscsi/initiatorname.iscsi", "600")
    names = re.findall(r"^InitiatorName=(iqn\.\S+)$", text, re.MULTILINE)
    demand(wanted, len(names) == 1, f"/etc/iscsi/initiatorname.iscsi has {len(names)} names, not one")


def test_session_to_each_store(host: Host, wanted: Wanted) -> None:
    for store in wanted.stores:
        count = len(sessions(host, store))
        portal = f"{store.name} at {store.address}:{store.port} {store.target}".rstrip()
        demand(wanted, count == 1, f"it has {count} iSCSI sessions to {portal}, not one")


def test_session_comes_back_after_a_reboot_and_a_short_silence(host: Host, wanted: Wanted) -> None:
    for store in wanted.stores:
        found = sessions(host, store)
        demand(wanted, found, f"it has no iSCSI session to {store.name}")
        record = said(host, "iscsiadm -m node -T %s", found[0])
        settings = dict(re.findall(r"^(\S+) = (.*)$", record, re.MULTILINE))
        startup = settings.get("node.startup", "not set")
        demand(wanted, startup == "automatic", f"node.startup of {store.name} is {startup}, not automatic")
        patience = settings.get("node.session.timeo.replacement_timeout", "not set")
        demand(wanted, patience == "120", f"replacement_timeout of {store.name} is {patience}, not 120")


def test_session_is_bound_to_the_storage_nic(host: Host, wanted: Wanted) -> None:
    for store in wanted.stores:
        found = sessions(host, store)
        demand(wanted, found, f"it has no iSCSI session to {store.name}")
        printed = said(host, "iscsiadm -m session -P 1")
        part = next(text for text in printed.split("Target: ") if text.startswith(found[0]))
        at = re.search(r"Iface IPaddress: (\S+)", part)
        address = at[1].strip("[]") if at else "nowhere"
        demand(
            wanted,
            address == wanted.storage_address,
            f"the session to {store.name} leaves from {address}, not from {wanted.storage_address}",
        )
        iface = re.search(r"Iface Name: (\S+)", part)
        bound = iface is not None and iface[1] != "default"
        demand(
            wanted, bound, f"the session to {store.name} is not bound to the storage NIC by an iface record"
        )


@pytest.mark.parametrize("unit", ["open-iscsi.service", "o2cb.service"])
def test_service_is_on_now_and_after_a_reboot(host: Host, wanted: Wanted, unit: str) -> None:
    demand_service(wanted, host, unit)


def test_each_store_has_its_device(host: Host, wanted: Wanted) -> None:
    for store in wanted.stores:
        found = device(host, store)
        demand(wanted, found, f"no device has the label {store.label}")
        kind, transport = (said(host, f"lsblk -ndo {what} %s", found) for what in ("FSTYPE", "TRAN"))
        demand(
            wanted,
            kind == "ocfs2",
            f"{found} with the label {store.label} holds {kind or 'nothing'}, not ocfs2",
        )
        demand(wanted, transport == "iscsi", f"{found} with the label {store.label} does not come by iSCSI")


def stanzas(text: str) -> list[tuple[str, dict[str, str]]]:
    """The stanzas of a cluster.conf, as ocfs2-tools reads them: name at column 1, parameters behind a tab."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        if head := re.fullmatch(r"(\w+):\s*", line):
            found.append((head[1], {}))
        elif (pair := re.fullmatch(r"\t\s*(\w+)\s*=\s*(\S+)\s*", line)) and found:
            found[-1][1][pair[1]] = pair[2]
    return found


def nodes(text: str, cluster: str) -> dict[str, tuple[str, str]]:
    """Name to address and number of the nodes in a cluster.conf."""
    return {
        node["name"]: (node["ip_address"], node["number"])
        for kind, node in stanzas(text)
        if kind == "node" and node.get("cluster") == cluster
    }


def test_cluster_conf_names_all_hosts(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, CLUSTER_CONF, "644")
    found = nodes(text, wanted.ocfs2_cluster)
    clusters = [one for kind, one in stanzas(text) if kind == "cluster"]
    demand(
        wanted,
        [one.get("name") for one in clusters] == [wanted.ocfs2_cluster],
        f"{CLUSTER_CONF} describes {[one.get('name') for one in clusters]}, not {wanted.ocfs2_cluster}",
    )
    count = clusters[0].get("node_count")
    demand(
        wanted, count == str(len(found)), f"{CLUSTER_CONF} says node_count {count} and has {len(found)} nodes"
    )
    at = {address for address, _ in found.values()}
    lost = [name for name, address in wanted.nodes.items() if address not in at]
    demand(wanted, not lost, f"{CLUSTER_CONF} does not know {', '.join(lost)}")
    numbers = [number for _, number in found.values()]
    demand(wanted, len({*numbers}) == len(numbers), f"{CLUSTER_CONF} gives a node's number twice: {numbers}")
    name = said(host, "hostname -s")
    mine = found.get(name, ("nothing", ""))[0]
    demand(
        wanted,
        mine == wanted.storage_address,
        f"{CLUSTER_CONF} has {mine} for {name}, not {wanted.storage_address}",
    )


_cluster_confs: dict[str, dict[str, tuple[str, str]]] = {}


def test_cluster_conf_says_the_same_everywhere(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, CLUSTER_CONF, "644")
    _cluster_confs[wanted.name] = nodes(text, wanted.ocfs2_cluster)
    for other, found in _cluster_confs.items():
        same = found == _cluster_confs[wanted.name]
        demand(wanted, same, f"{CLUSTER_CONF} is not that of {other}")


_initiators: dict[str, str] = {}


def test_no_other_host_has_its_initiator_name(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, "/etc/iscsi/initiatorname.iscsi", "600")
    found = re.search(r"^InitiatorName=(\S+)$", text, re.MULTILINE)
    demand(wanted, found, "/etc/iscsi/initiatorname.iscsi has no name")
    assert found is not None
    other = _initiators.setdefault(found[1], wanted.name)
    demand(wanted, other == wanted.name, f"its initiator name {found[1]} is that of {other}, too")


def test_o2cb_starts_the_cluster_at_boot(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, "/etc/default/o2cb", "644")
    found = dict(re.findall(r"^(O2CB_\w+)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
    for name, value in {
        "O2CB_ENABLED": "true",
        "O2CB_BOOTCLUSTER": wanted.ocfs2_cluster,
        "O2CB_HEARTBEAT_THRESHOLD": wanted.ocfs2_threshold,
    }.items():
        is_so = found.get(name, "nothing")
        demand(wanted, is_so == value, f"/etc/default/o2cb sets {name} to {is_so}, not to {value}")


def test_o2cb_waits_for_its_address_at_boot(host: Host, wanted: Wanted) -> None:
    """It binds to it, and tries only once; network.target says nothing of addresses."""
    earlier = said(host, "systemctl show --property=After --value o2cb.service").split()
    demand(wanted, "network-online.target" in earlier, "o2cb.service may start before the network is up")
    first = said(host, "systemctl show --property=ExecStartPre --value o2cb.service")
    waits = wanted.storage_address and wanted.storage_address in first
    demand(wanted, waits, "o2cb.service does not wait for the storage address")


def test_o2cb_is_online(host: Host, wanted: Wanted) -> None:
    folder = f"{CONFIGFS}/{wanted.ocfs2_cluster}"
    online = said(host, "ls %s", folder)
    demand(wanted, online, f"o2cb's cluster {wanted.ocfs2_cluster} is not online")
    threshold = said(host, "cat %s", f"{folder}/heartbeat/dead_threshold")
    right = threshold == wanted.ocfs2_threshold
    demand(wanted, right, f"o2cb's heartbeat threshold is {threshold}, not {wanted.ocfs2_threshold}")
    text = said(host, "sh -c %s", f"cd {folder}/node && grep -H . */ipv4_address")
    at = dict(re.findall(r"^(\S+)/ipv4_address:(\S+)$", text, re.MULTILINE))
    lost = [name for name, address in wanted.nodes.items() if address not in at.values()]
    demand(wanted, not lost, f"o2cb is online and does not know {', '.join(lost)}")
    name = said(host, "hostname -s")
    local = said(host, "cat %s", f"{folder}/node/{name}/local")
    demand(wanted, local == "1", f"o2cb does not take itself for {name}")


def fstab(host: Host, mount: str) -> list[list[str]]:
    lines = [line.split() for line in host.run("cat /etc/fstab").stdout.splitlines()]
    return [words for words in lines if len(words) > 3 and words[1] == mount and words[0][0] != "#"]


def test_fstab_has_one_line_for_each_store(host: Host, wanted: Wanted) -> None:
    for store in wanted.stores:
        found = fstab(host, store.mount)
        demand(wanted, len(found) == 1, f"/etc/fstab has {len(found)} lines for {store.mount}, not one")
        source, _, kind, text, *passes = found[0]
        options = text.split(",")
        demand(
            wanted, source == f"LABEL={store.label}", f"/etc/fstab mounts {source}, not LABEL={store.label}"
        )
        demand(wanted, kind == "ocfs2", f"/etc/fstab says {kind} for {store.mount}, not ocfs2")
        for option in FSTAB_OPTIONS:
            demand(wanted, option in options, f"/etc/fstab lacks {option} for {store.mount}: {text}")
        demand(
            wanted,
            not {"nofail", "noauto"} & {*options},
            f"/etc/fstab has nofail or noauto for {store.mount}: libvirtd and cron would not wait for it",
        )
        demand(wanted, passes == ["0", "0"], f"/etc/fstab has {store.mount} checked or dumped: {passes}")


def test_each_store_is_mounted(host: Host, wanted: Wanted) -> None:
    mounts = [line.split() for line in host.run("cat /proc/self/mounts").stdout.splitlines()]
    for store in wanted.stores:
        found = [words for words in mounts if words[1] == store.mount and words[2] != "autofs"]
        demand(wanted, len(found) == 1, f"{store.mount} is mounted {len(found)} times, not once")
        source, _, kind, text, *_ = found[0]
        options = text.split(",")
        demand(wanted, kind == "ocfs2", f"{store.mount} is {kind}, not ocfs2")
        demand(
            wanted,
            said(host, "readlink -f %s", source) == device(host, store),
            f"{store.mount} is {source}, not the device with the label {store.label}",
        )
        for option in ("rw", "noatime", "_netdev", "heartbeat=local", "coherency=full"):
            demand(wanted, option in options, f"{store.mount} is not mounted with {option}: {text}")
        locking = "localflocks" not in options
        demand(
            wanted, locking, f"{store.mount} is mounted with localflocks: locks would not reach other hosts"
        )


@pytest.mark.parametrize(("name", "value"), [("kernel.panic", "30"), ("kernel.panic_on_oops", "1")])
def test_a_host_that_oopses_reboots(host: Host, wanted: Wanted, name: str, value: str) -> None:
    now = said(host, "cat %s", "/proc/sys/" + name.replace(".", "/"))
    demand(wanted, now == value, f"{name} is {now}, not {value}")
    pattern = rf"^\s*{re.escape(name)}\s*=\s*{value}\s*$"
    kept = host.run(
        "grep -Ehs %s /etc/sysctl.conf /etc/sysctl.d/*.conf", pattern.replace(r"\s", "[[:space:]]")
    )
    # Since Debian 13 there is no /etc/sysctl.conf, of which grep complains in its exit code.
    demand(
        wanted, kept.stdout, f"no file in /etc/sysctl.d sets {name} to {value}: it would be lost by a reboot"
    )


def test_guests_are_shut_down_before_their_store_goes(host: Host, wanted: Wanted) -> None:
    # Units stop in the opposite order of their start.
    earlier = said(host, "systemctl show --property=After --value libvirt-guests.service").split()
    demand(
        wanted,
        "remote-fs.target" in earlier,
        "at shutdown the stores may be unmounted before libvirt-guests.service has shut the VMs down",
    )


def test_ocfs2_is_not_stopped_under_running_vms(host: Host, wanted: Wanted) -> None:
    """Its init script kills everything that has a file open on the store."""
    state = host.run("systemctl is-enabled ocfs2.service").stdout.strip()
    if state != "masked":
        # Units stop in the opposite order of their start.
        later = said(host, "systemctl show --property=Before --value ocfs2.service").split()
        guests = {"libvirt-guests.service", "libvirtd.service", "virtqemud.service"}
        demand(
            wanted,
            guests & {*later},
            "at shutdown ocfs2.service may kill the VMs: it is not stopped after them",
        )

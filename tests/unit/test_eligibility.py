"""Every reason against a move, one by one, and that all are told together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tasks.cluster.model import Domain, HostFacts, Move, QemuProcess, Refusal, Silent, Store, Vm
from tasks.cluster.planning.census import ApartRules, Census
from tasks.cluster.planning.eligibility import media_left_behind, refusals_for_vm
from tasks.cluster.planning.overrides import (
    ALLOW_LOCAL_ISO,
    ALLOW_MACVTAP,
    ALLOW_SHARED_IMAGE,
    IGNORE_APART,
    IGNORE_RESERVE,
    OF_A_MOVE,
)
from tasks.cluster.planning.placement import plan_migrate, recheck
from tasks.cluster.planning.subject import subject
from tasks.cluster.planning.targets import free_memory_kib
from tests.unit import clusters
from tests.unit.clusters import GIB, disk_xml, domain, host, inventory, snapshot, vm_named


def against(
    web: Domain, *others: HostFacts | Silent, source: dict[str, object] | None = None
) -> list[Refusal]:
    """What stands against `web`, on host a, whatever the target."""
    census = Census(snapshot(host("a", web, **(source or {})), *others))
    return list(refusals_for_vm(census, subject(census, census.facts["a"].domains[0])))


def only(refusals: list[Refusal] | tuple[Refusal, ...]) -> Refusal:
    assert len(refusals) == 1, refusals
    return refusals[0]


def test_everyday_vm_may_move() -> None:
    assert against(domain("web"), host("b"), host("c", domain("web", state="shut off"))) == []


# -- whatever the target -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "reason", "flag"),
    [
        (
            disk_xml("/iso/a.iso", device="cdrom", target="sda"),
            "cdrom sda (/iso/a.iso) is not on",
            ALLOW_LOCAL_ISO,
        ),
        (disk_xml("/x.img", target="vdb"), "disk vdb (/x.img) is not on /vmstorage", ""),
        (disk_xml("/x.img", target="vdb", inside="<readonly/>"), "is not on /vmstorage", ""),
        (disk_xml("/dev/sdz", target="vdb", kind="block"), "disk vdb (/dev/sdz) is not on /vmstorage", ""),
        (disk_xml("/fd.img", device="floppy", target="fda"), "floppy fda (/fd.img) is not on", ""),
        (disk_xml("/vmstorage/x.gone", target="vdb"), "(/vmstorage/x.gone) does not exist", ""),
        (
            disk_xml(
                "/vmstorage/b.img",
                target="vdb",
                inside="<backingStore type='file'><source file='/base.img'/><backingStore/></backingStore>",
            ),
            "disk vdb (/vmstorage/b.img) needs /base.img, which is not on /vmstorage",
            "",
        ),
        (
            "<disk type='volume'><source pool='p' volume='v'/><target dev='vdb'/></disk>",
            "cannot be told to lie on the shared store",
            "",
        ),
        (
            "<disk type='network'><source protocol='nbd' name='n'><host name='localhost' port='1'/></source>"
            "<target dev='vdb'/></disk>",
            "is served by this host only",
            "",
        ),
        (
            "<hostdev type='usb'><source><vendor id='1'/><product id='2'/></source></hostdev>",
            "it uses hardware of this host: usb device 1:2",
            "",
        ),
        ("<tpm><backend type='emulator'/></tpm>", "its TPM's state is not on /vmstorage", ""),
        (
            "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
            "it uses a TPM of this host: passthrough /dev/tpm0",
            "",
        ),
        ("<filesystem><source dir='/srv'/></filesystem>", "it uses a folder of this host: /srv", ""),
    ],
)
def test_what_ties_it_to_its_host(devices: str, reason: str, flag: str) -> None:
    refusal = only(against(domain("web", devices=devices), host("b")))
    assert reason in refusal.reason
    assert (refusal.vm, refusal.host, refusal.flag) == ("web", "a", flag)


@pytest.mark.parametrize(
    "devices",
    [
        disk_xml("/vmstorage/a.iso", device="cdrom", target="sda"),
        disk_xml("", device="cdrom", target="sda"),
        disk_xml("/vmstorage/golden", target="vdb", inside="<readonly/>"),
        "<disk type='network'><source protocol='rbd' name='p/i'/><target dev='v'/></disk>",
        "<tpm><backend type='emulator'><source type='dir' path='/vmstorage/tpm/web'/></backend></tpm>",
        "<filesystem><source dir='/vmstorage/share'/></filesystem>",
    ],
)
def test_what_every_host_reaches(devices: str) -> None:
    assert against(domain("web", devices=devices), host("b")) == []


@pytest.mark.parametrize(
    ("os", "reason"),
    [
        (
            "<nvram>/var/lib/libvirt/qemu/nvram/web</nvram>",
            "UEFI variables (/var/lib/libvirt/qemu/nvram/web)",
        ),
        (
            "<loader readonly='yes' type='pflash'>/usr/share/x</loader>",
            "UEFI variables lie where libvirt puts",
        ),
        ("<kernel>/boot/vmlinuz</kernel>", "its kernel (/boot/vmlinuz)"),
        ("<initrd>/vmstorage/../boot/initrd</initrd>", "its initrd (/vmstorage/../boot/initrd)"),
        ("<dtb>/boot/dtb</dtb>", "its device tree (/boot/dtb)"),
        ("<loader>/opt/firmware</loader>", "its firmware (/opt/firmware)"),
    ],
)
def test_what_it_boots_from_on_its_host(os: str, reason: str) -> None:
    refusal = only(against(domain("web", os=os), host("b")))
    assert reason in refusal.reason
    assert "not on /vmstorage" in refusal.reason


def test_what_it_boots_from_on_the_store() -> None:
    os = "<kernel>/vmstorage/vmlinuz</kernel><nvram>/vmstorage/web.fd</nvram><loader>/usr/x</loader>"
    assert against(domain("web", os=os), host("b")) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "paused"}, "it is paused and cannot be shut down: resume it"),
        ({"state": "pmsuspended"}, "dompmwakeup"),
        ({"state": "crashed"}, "destroy it first"),
        ({"state": "in shutdown"}, "wait until it is off"),
        ({"state": "no state"}, "it is no state"),
        ({"persistent": False}, "it is transient"),
        ({"managed_save": True}, "has a managed save of it"),
        ({"xml": ""}, "its definition cannot be checked: it was not read"),
        ({"xml": "<domain/>"}, "its definition cannot be checked: the definition has no <name>"),
    ],
)
def test_state_in_which_it_cannot_move(changes: dict[str, object], reason: str) -> None:
    assert reason in only(against(domain("web", **changes), host("b"))).reason


@pytest.mark.parametrize(
    ("silent", "why"),
    [
        (Silent("z", "ssh: no route to host"), "no route to host"),
        (host("z", libvirt_problem="libvirtd does not answer"), "libvirtd does not answer"),
    ],
)
def test_any_host_that_cannot_be_asked_is_named(silent: Silent | HostFacts, why: str) -> None:
    refusal = only(against(domain("web"), host("b"), silent))
    assert (refusal.host, refusal.flag) == ("z", "")
    assert why in refusal.reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (host("b", domain("web")), "libvirt lists it as running"),
        (host("b", domain("web", state="paused")), "libvirt lists it as paused"),
        (host("b", domain("web", uuid=vm_named("other").uuid, image="/vmstorage/o")), "a VM of this name"),
        (host("b", domain("db", image="/vmstorage/web.img")), "'db' (running) uses its image"),
        (host("b", processes=(QemuProcess(7, vm_named("web").uuid, "", frozenset()),)), "qemu process 7"),
        (host("b", processes=(QemuProcess(7, "", "web", frozenset()),)), "qemu process 7"),
        (
            host("b", processes=(QemuProcess(7, "", "x", frozenset({"store:/vmstorage/web.img"})),)),
            "has its image",
        ),
        (
            host("b", domain("db", image="/vmstorage/web.img"), store=Store("/vmstorage", False)),
            "'db' (running) names its image",
        ),
    ],
)
def test_second_run_is_refused_without_override(other: HostFacts, reason: str) -> None:
    refusals = against(domain("web"), other)
    assert any(reason in r.reason and r.host == "b" and not r.flag for r in refusals), refusals


def test_second_process_on_its_own_host_is_a_second_run() -> None:
    web = domain("web", pid=5)
    mine, second = (QemuProcess(pid, web.vm.uuid, "web", frozenset()) for pid in (5, 6))
    assert against(web, host("b"), source={"processes": (mine,)}) == []
    assert "qemu process 6" in only(against(web, host("b"), source={"processes": (mine, second)})).reason


def test_image_in_a_definition_that_is_off() -> None:
    refusal = only(
        against(domain("web"), host("b", domain("clone", image="/vmstorage/web.img", state="shut off")))
    )
    assert (refusal.host, refusal.flag) == ("b", ALLOW_SHARED_IMAGE)
    assert "'clone' (off)" in refusal.reason


def test_managed_save_on_a_third_host() -> None:
    old = domain("web", state="shut off", managed_save=True)
    assert only(against(domain("web"), host("b"), host("c", old))).host == "c"


def test_disk_that_only_the_running_vm_has() -> None:
    plugged = domain("web", devices=disk_xml("/vmstorage/usb.img", target="vdb")).xml
    refusal = only(against(domain("web", live_xml=plugged), host("b")))
    assert "it writes /vmstorage/usb.img, which its definition lacks" in refusal.reason


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        (Store("/vmstorage", False), "/vmstorage is not mounted"),
        (Store("/vmstorage", True, "read-only", store_id="s1"), "read-only"),
        (Store("/vmstorage", True), "no store id"),
        (dataclasses.replace(clusters.STORE, free_bytes=0), "/vmstorage is full"),
    ],
)
def test_store_that_cannot_be_used(store: Store, reason: str) -> None:
    assert any(reason in r.reason for r in against(domain("web"), host("b"), source={"store": store}))
    plan = migrated(host("a", domain("web")), host("b", store=store))
    assert reason in only(plan).reason
    assert only(plan).host == "b"


def test_all_reasons_are_told_together_and_overrides_take_theirs_away() -> None:
    devices = disk_xml("/iso", device="cdrom", target="sda") + disk_xml("/x", target="vdb")
    census = Census(snapshot(host("a", domain("web", devices=devices, state="paused")), Silent("z", "gone")))
    web = subject(census, census.facts["a"].domains[0])
    assert [r.host for r in refusals_for_vm(census, web)] == ["z", "a", "a", "a"]
    left = refusals_for_vm(census, web, [ALLOW_LOCAL_ISO])
    assert [r for r in refusals_for_vm(census, web) if r.flag != ALLOW_LOCAL_ISO] == list(left)


def test_drives_that_are_empty_elsewhere() -> None:
    devices = "".join(
        (
            disk_xml("/iso", device="cdrom", target="sda"),
            disk_xml("/vmstorage/iso", device="cdrom", target="sdb"),
            disk_xml("", device="cdrom", target="sdc"),
        )
    )
    census = Census(snapshot(host("a", domain("web", devices=devices))))
    assert media_left_behind(subject(census, census.facts["a"].domains[0])) == ("sda",)


# -- for one target ------------------------------------------------------------------------------------


def migrated(
    *hosts: HostFacts | Silent, overrides: tuple[str, ...] = (), **rules: object
) -> tuple[Refusal, ...]:
    """What stands against moving web from a to b."""
    reserve = rules.pop("reserve_kib", 0)
    inv = inventory("a", "b", "c", reserve_kib=reserve, **rules)  # type: ignore[arg-type]
    plan = plan_migrate(snapshot(*hosts), inv, [vm_named("web")], ["b"], overrides=overrides)
    assert len(plan.moves) == (0 if plan.refusals else 1)
    return plan.refusals


NEEDS = "<interface type='{}'><source {}='x'/></interface>"


@pytest.mark.parametrize(
    ("web", "target", "reason", "flag"),
    [
        (domain("web", devices=NEEDS.format("bridge", "bridge")), {}, "has no bridge x", ""),
        (domain("web", devices=NEEDS.format("network", "network")), {}, "has no network x", ""),
        (domain("web", devices=NEEDS.format("direct", "dev")), {}, "has no network device x", ALLOW_MACVTAP),
        (domain("web", machine="pc-q35-9.0"), {}, "has no machine type x86_64/pc-q35-9.0", ""),
        (domain("web"), {"machines": frozenset()}, "has no machine type x86_64/pc-q35-8.2", ""),
        (
            domain("web"),
            {"store": dataclasses.replace(clusters.STORE, store_id="other")},
            "/vmstorage is another store than the one on a",
            "",
        ),
        (
            domain("web", memory_kib=65 * GIB),
            {},
            "has 64.0 GiB of memory left for VMs, it needs 65.0 GiB",
            "",
        ),
        (domain("web"), {"memory_available_kib": GIB // 2}, "has 512 MiB of memory left", ""),
    ],
)
def test_target_that_cannot_take_it(web: Domain, target: dict[str, object], reason: str, flag: str) -> None:
    refusal = only(migrated(host("a", web), host("b", **target)))
    assert (refusal.vm, refusal.host, refusal.flag) == ("web", "b", flag)
    assert reason in refusal.reason
    if flag:
        assert migrated(host("a", web), host("b", **target), overrides=(flag,)) == ()


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (domain("web", uuid=vm_named("x").uuid, state="shut off"), "defines another VM of this name"),
        (domain("www", uuid=vm_named("web").uuid, state="shut off"), "defines the same UUID as 'www'"),
    ],
)
def test_definition_in_conflict(there: Domain, reason: str) -> None:
    refusals = migrated(host("a", domain("web")), host("b", there))
    assert any(r.host == "b" and reason in r.reason and not r.flag for r in refusals)


def test_reserve_is_kept_unless_overridden() -> None:
    hosts = host("a", domain("web", memory_kib=5 * GIB)), host("b", memory_total_kib=8 * GIB)
    assert only(migrated(*hosts, reserve_kib=4 * GIB)).flag == IGNORE_RESERVE
    assert migrated(*hosts, reserve_kib=4 * GIB, overrides=(IGNORE_RESERVE,)) == ()
    assert migrated(*hosts, reserve_kib=3 * GIB) == ()


def test_apart_rule_is_kept_unless_overridden() -> None:
    hosts = host("a", domain("web")), host("b", domain("web-2"))
    refusal = only(migrated(*hosts, apart={"fronts": ("web*",)}))
    assert (refusal.flag, "'fronts'" in refusal.reason) == (IGNORE_APART, True)
    assert migrated(*hosts, apart={"fronts": ("web*",)}, overrides=(IGNORE_APART,)) == ()
    assert migrated(*hosts, apart={"fronts": ("web", "db")}) == ()


def test_target_is_source() -> None:
    plan = plan_migrate(snapshot(host("a", domain("web"))), inventory("a"), [vm_named("web")], ["a"])
    assert only(plan.refusals) == Refusal("web", "a", "runs it already")


def test_target_is_unknown() -> None:
    plan = plan_migrate(snapshot(host("a", domain("web"))), inventory("a"), [vm_named("web")], ["q"])
    assert only(plan.refusals) == Refusal("web", "q", "is not a host of the inventory")


def test_no_flag_opens_what_protects_the_law() -> None:
    cases: list[tuple[HostFacts | Silent, ...]] = [
        (host("a", domain("web")), host("b"), Silent("c", "gone")),
        (host("a", domain("web")), host("b"), host("c", domain("web"))),
        (host("a", domain("web", managed_save=True)), host("b")),
        (host("a", domain("web")), host("b", store=dataclasses.replace(clusters.STORE, store_id="other"))),
        (host("a", domain("web", devices=disk_xml("/x", target="vdb"))), host("b")),
    ]
    for hosts in cases:
        assert migrated(*hosts, overrides=OF_A_MOVE) != ()


# -- free memory ---------------------------------------------------------------------------------------


def test_free_memory_counts_all_that_is_promised() -> None:
    facts = host("a", domain("x", memory_kib=10 * GIB), domain("y", memory_kib=4 * GIB, state="paused"),
                 domain("off", memory_kib=32 * GIB, state="shut off"))  # fmt: skip
    assert free_memory_kib(facts, 0) == 50 * GIB
    assert free_memory_kib(facts, 4 * GIB, 6 * GIB) == 40 * GIB


def test_free_memory_is_no_more_than_what_is_there() -> None:
    facts = host("a", memory_available_kib=20 * GIB)
    assert free_memory_kib(facts, 4 * GIB) == 20 * GIB
    assert free_memory_kib(facts, 60 * GIB) == 4 * GIB


# -- the census ----------------------------------------------------------------------------------------


def test_apart_rules_take_exact_names_before_patterns() -> None:
    rules = ApartRules({"one": ("a*", "b"), "odd": ("x[1]",)})
    assert rules.of("abc") == {"one"}
    assert rules.of("b") == {"one"}
    assert rules.of("B") == frozenset()
    assert rules.of("x[1]") == rules.of("x1") == {"odd"}


# -- right before the move -----------------------------------------------------------------------------


def move(target: str = "b") -> Move:
    return Move(vm_named("web"), "a", target, GIB, 180.0)


def test_recheck_of_a_move_that_is_still_right() -> None:
    assert recheck(snapshot(host("a", domain("web")), host("b")), inventory("a", "b"), move()) == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: (host("a"), host("b")), "does not run it any more"),
        (lambda: (host("a", domain("web", state="shut off")), host("b")), "does not run it any more"),
        (lambda: (host("a", domain("web")), Silent("b", "gone")), "cannot be asked"),
        (lambda: (host("a", domain("web")), host("b", store=Store("/vmstorage", False))), "not mounted"),
        (lambda: (host("a", domain("web")), host("b", domain("x", memory_kib=64 * GIB))), "memory left"),
    ],
)
def test_recheck_sees_what_changed(change: Callable[[], tuple[HostFacts | Silent, ...]], reason: str) -> None:
    found = recheck(snapshot(*change()), inventory("a", "b"), move())
    assert any(reason in r.reason for r in found), found


def test_recheck_keeps_room_for_the_rest_of_the_plan() -> None:
    db = Move(Vm(vm_named("db").uuid, "db"), "a", "b", 63 * GIB + 1, 180.0)
    here = host("a", domain("web"), domain("db"))
    inv = inventory("a", "b")
    assert (
        "memory left"
        in only(recheck(snapshot(here, host("b")), inv, move(), reservations=[move(), db])).reason
    )
    # once db has arrived it counts as what it is, not twice
    there = host("b", domain("db", memory_kib=2 * GIB))
    assert recheck(snapshot(host("a", domain("web")), there), inv, move(), reservations=[move(), db]) == ()

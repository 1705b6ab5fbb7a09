"""Where VMs go: the packing against brute force and its invariants, and the plans made of it."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cluster.model import Cordon, HostFacts, Move, QemuProcess, Refusal, Silent, Snapshot, Vm
from tasks.cluster.planning.overrides import IGNORE_APART, IGNORE_RESERVE
from tasks.cluster.planning.packing import Placement, place
from tasks.cluster.planning.placement import plan_drain, plan_migrate
from tasks.cluster.planning.rooms import HostRoom, VmNeed
from tests.unit.clusters import GIB, domain, host, inventory, snapshot, vm_named

# -- the packing ---------------------------------------------------------------------------------------


def need(name: str, memory: int, **changes: object) -> VmNeed:
    made = VmNeed(Vm(f"uuid-{name}", name), "src", memory)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def room(name: str, free: int, **changes: object) -> HostRoom:
    return dataclasses.replace(HostRoom(name, free, 100), **changes)  # type: ignore[arg-type]


FEATURES = st.frozensets(st.sampled_from("xy"), max_size=2)
GROUPS = st.frozensets(st.sampled_from("gh"), max_size=1)
Case = tuple[list[VmNeed], list[HostRoom]]


@st.composite
def cases(draw: st.DrawFn, most_hosts: int = 3, most_vms: int = 5) -> Case:
    """A few VMs and hosts so tight that placing them is often hard and sometimes impossible."""
    hosts = [f"h{i}" for i in range(draw(st.integers(1, most_hosts)))]
    names = st.sampled_from([*hosts, "src"])
    rooms = [
        HostRoom(
            name,
            draw(st.integers(-2, 14)),
            draw(st.integers(10, 20)),
            features=draw(FEATURES) if draw(st.booleans()) else frozenset("xy"),
            apart=draw(GROUPS) if draw(st.booleans()) else frozenset(),
            accepting=draw(st.integers(0, 6)) > 0,
        )
        for name in hosts
    ]
    needs = [
        VmNeed(
            Vm(f"u{i}", f"vm{i}"),
            draw(names),
            draw(st.integers(1, 8)),
            needs=draw(FEATURES) if draw(st.booleans()) else frozenset(),
            apart=draw(GROUPS) if draw(st.booleans()) else frozenset(),
            targets=frozenset(draw(st.lists(names, min_size=1))) if draw(st.integers(0, 4)) == 0 else None,
            barred=frozenset({draw(names)}) if draw(st.integers(0, 4)) == 0 else frozenset(),
        )
        for i in range(draw(st.integers(0, most_vms)))
    ]
    return needs, rooms


def valid(needs: Sequence[VmNeed], rooms: Sequence[HostRoom], at: Mapping[Vm, str]) -> bool:
    """Whether a placement keeps every rule; written from the rules, not from the code."""
    for r in rooms:
        here = [n for n in needs if at.get(n.vm) == r.name]
        if not here:
            continue
        groups = [g for n in here for g in n.apart] + list(r.apart & {g for n in here for g in n.apart})
        if not r.accepting or sum(n.memory_kib for n in here) > r.free_kib or len(groups) > len(set(groups)):
            return False
        for n in here:
            if n.source == r.name or r.name in n.barred or not n.needs <= r.features:
                return False
            if n.targets is not None and r.name not in n.targets:
                return False
    return set(at.values()) <= {r.name for r in rooms}


def most_by_brute_force(needs: Sequence[VmNeed], rooms: Sequence[HostRoom]) -> int:
    """The largest number of VMs that can be placed, by trying everything."""
    best = 0
    for choice in itertools.product([None, *(r.name for r in rooms)], repeat=len(needs)):
        at = {n.vm: name for n, name in zip(needs, choice, strict=True) if name is not None}
        if len(at) > best and valid(needs, rooms, at):
            best = len(at)
    return best


def check(needs: Sequence[VmNeed], rooms: Sequence[HostRoom], placement: Placement) -> None:
    assert valid(needs, rooms, placement.placed)
    assert sorted([*placement.placed, *(n.vm for n in placement.unplaced)], key=str) == sorted(
        (n.vm for n in needs), key=str
    )
    for r in rooms:
        here = [n for n in needs if placement.placed.get(n.vm) == r.name]
        after = placement.rooms[r.name]
        assert after.free_kib == r.free_kib - sum(n.memory_kib for n in here)
        assert after.apart == r.apart.union(*(n.apart for n in here))
    # nobody is left over who fits where the plan leaves room
    for n in placement.unplaced:
        assert not any(n.may_use(r) and n.fits(r) for r in placement.rooms.values())


@settings(max_examples=400, deadline=None)
@given(cases())
def test_places_as_many_as_brute_force(case: Case) -> None:
    placement = place(*case)
    check(*case, placement)
    assert len(placement.placed) == most_by_brute_force(*case)


@settings(max_examples=100, deadline=None)
@given(cases(most_hosts=5, most_vms=14))
def test_every_rule_is_kept_in_larger_clusters(case: Case) -> None:
    check(*case, place(*case))


@settings(max_examples=100, deadline=None)
@given(cases(most_hosts=4, most_vms=10), st.randoms(use_true_random=False))
def test_order_of_the_arguments_makes_no_difference(case: Case, shuffler: random.Random) -> None:
    needs, rooms = case
    first = place(needs, rooms)
    shuffler.shuffle(needs)
    shuffler.shuffle(rooms)
    assert place(needs, rooms) == first
    assert list(place(needs, rooms).placed.items()) == list(first.placed.items())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_rules_are_kept_where_exact_search_is_out_of_reach(seed: int) -> None:
    """Many VMs, more of them in one rule than have queues in common, and too little room for all."""
    r = random.Random(seed)
    rooms = [
        room(
            f"h{i}",
            r.randint(0, 40),
            total_kib=r.choice([50, 60, 100]),
            features=frozenset(r.choice(["x", "xy"])),
        )
        for i in range(60)
    ]
    needs = [
        need(
            f"vm{i}",
            r.randint(1, 16),
            needs=frozenset(r.choice(["", "x", "y"])),
            apart=frozenset({"big"} if i % 4 == 0 else {f"g{i // 3}"} if i % 4 == 1 else ()),
            barred=frozenset({f"h{r.randrange(60)}"}),
        )
        for i in range(200)
    ]
    check(needs, rooms, place(needs, rooms))


def packable(seed: int, hosts: int, vms: int, slack: float) -> tuple[list[VmNeed], list[HostRoom]]:
    """VMs of everyday sizes that fit for certain, as the hosts are made to measure, with some slack."""
    r = random.Random(seed)
    sizes = [r.choice([1, 2, 2, 4, 4, 8, 12, 16]) * 1024 for _ in range(vms)]
    used = [0] * hosts
    for size in sizes:
        used[r.randrange(hosts)] += size
    rooms = [room(f"h{i}", int(u * (1 + slack)), total_kib=64 * 1024) for i, u in enumerate(used)]
    return [need(f"vm{i}", s) for i, s in enumerate(sizes)], rooms


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("slack", [0.0, 0.05])
def test_small_clusters_are_planned_when_it_is_possible(seed: int, slack: float) -> None:
    assert place(*packable(seed, 3, 20, slack)).unplaced == ()


def test_eviction_makes_room_beyond_the_exact_search() -> None:
    """Only one host suits the last VM, and the even spread has filled it with one that others could have."""
    others = [room(f"k{i}", 6, apart=frozenset({"only"})) for i in range(60)]
    rooms = [room("big", 10, features=frozenset("x")), *others]
    needs = [
        need("first", 6, targets=None),
        *(need(f"vm{i}", 5) for i in range(59)),
        need("last", 5, needs=frozenset("x")),
    ]
    assert len(needs) * len(rooms) > 2_000
    assert place(needs, rooms).unplaced == ()


def test_few_large_ones_give_way_to_many_small_ones_when_room_is_short() -> None:
    """Largest first would place the ten large ones and leave twenty small ones over."""
    needs = [*(need(f"large{i}", 20) for i in range(10)), *(need(f"vm{i}", 10) for i in range(100))]
    rooms = [room(f"h{i}", 20) for i in range(50)]
    assert len(needs) * len(rooms) > 2_000
    assert len(place(needs, rooms).unplaced) <= 12


def test_memory_is_spread_evenly() -> None:
    placement = place(
        [need(f"vm{i}", 10) for i in range(6)],
        [room("a", 50), room("b", 50), room("c", 80, total_kib=160)],
    )
    shares = [r.free_kib / r.total_kib for r in placement.rooms.values()]
    # within what one VM makes out on a small host
    assert max(shares) - min(shares) < 0.11
    assert placement.unplaced == ()


def test_large_host_is_not_preferred_for_its_size_alone() -> None:
    """A host twice as large that is fuller in proportion comes second."""
    placement = place([need("vm", 10)], [room("big", 80, total_kib=400), room("small", 60)])
    assert placement.placed == {Vm("uuid-vm", "vm"): "small"}


def test_nothing_to_place_and_nowhere_to_place() -> None:
    assert place([], [room("a", 1)]).placed == {}
    alone = need("vm", 1)
    assert place([alone], []).unplaced == (alone,)


@pytest.mark.parametrize(
    ("needs", "rooms"), [([need("a", 1), need("a", 1)], [room("h", 9)]), ([need("a", 1)], [room("h", 9)] * 2)]
)
def test_twins_are_refused(needs: list[VmNeed], rooms: list[HostRoom]) -> None:
    with pytest.raises(ValueError, match="twice"):
        place(needs, rooms)


# -- plans ---------------------------------------------------------------------------------------------


def targets(moves: Sequence[Move]) -> dict[str, str]:
    return {m.vm.name: m.target for m in moves}


NAMES = [f"h{i}" for i in range(5)]


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Snapshot, dict[str, tuple[str, ...]], set[str], int]:
    """A cluster of up to five hosts, all answering, with its apart rules, cordons and reserve."""
    number = itertools.count()
    hosts = []
    for name in NAMES[: draw(st.integers(2, 5))]:
        domains = []
        for _ in range(draw(st.integers(0, 4))):
            state = draw(st.sampled_from(["running"] * 5 + ["paused", "shut off"]))
            kind = draw(st.sampled_from(["web", "db"]))
            domains.append(
                domain(f"{kind}-{next(number)}", memory_kib=draw(st.integers(1, 24)) * GIB, state=state)
            )
        hosts.append(host(name, *domains))
    rules = {"webs": ("web-*",)} if draw(st.booleans()) else {}
    return (
        snapshot(*hosts),
        rules,
        draw(st.sets(st.sampled_from(NAMES), max_size=2)),
        draw(st.integers(0, 16)),
    )


@settings(max_examples=150, deadline=None)
@given(clusters(), st.sets(st.sampled_from(NAMES[:2]), min_size=1))
def test_every_plan_keeps_the_rules(
    cluster: tuple[Snapshot, dict[str, tuple[str, ...]], set[str], int], sources: set[str]
) -> None:
    snap, rules, cordoned, reserve = cluster
    inv = inventory(*snap.hosts, reserve_kib=reserve * GIB, apart=rules)
    plan = plan_drain(snap, inv, sources, cordoned=cordoned)
    again = Snapshot(dict(reversed(list(snap.hosts.items()))))
    assert plan == plan_drain(again, inv, sorted(sources, reverse=True), cordoned=cordoned)

    concerned = {d.vm.name for d in snap.running() if d.host in sources}
    moved, refused = [m.vm.name for m in plan.moves], {r.vm for r in plan.refusals}
    assert sorted([*moved, *refused]) == sorted(concerned)
    assert all(m.source in sources and m.target not in sources | cordoned for m in plan.moves)
    for facts in snap.facts():
        arriving = [m for m in plan.moves if m.target == facts.host]
        there = [d for d in facts.domains if d.running]
        if arriving:
            total = sum(d.memory_kib for d in there) + sum(m.memory_kib for m in arriving)
            assert total <= facts.memory_total_kib - reserve * GIB
        names = [d.vm.name for d in there] + [m.vm.name for m in arriving]
        webs = [n for n in names if n.startswith("web-")]
        assert not (rules and arriving and len(webs) > 1 and any(m.vm.name in webs for m in arriving))
    for name in refused:
        stuck = next(d for d in snap.running() if d.vm.name == name)
        hosts = {r.host for r in plan.refusals if r.vm == name}
        assert hosts == {stuck.host} if stuck.state == "paused" else hosts == snap.hosts.keys() - {stuck.host}


def everyday() -> Snapshot:
    return snapshot(
        host("a", domain("web"), domain("db"), domain("old", state="shut off")),
        host("b"),
        host("c", domain("x", memory_kib=GIB // 2)),
    )


def test_drain_moves_all_that_runs() -> None:
    plan = plan_drain(everyday(), inventory("a", "b", "c", shutdown_timeouts={"d*": 20.0}), ["a"])
    assert plan.refusals == ()
    assert plan.moves == (
        Move(vm_named("db"), "a", "b", GIB, 20.0),
        Move(vm_named("web"), "a", "c", GIB, 180.0),
    )


def test_drain_of_an_empty_host_has_nothing_to_do_even_if_another_is_silent() -> None:
    plan = plan_drain(snapshot(host("a"), Silent("b", "gone")), inventory("a", "b"), ["a"])
    assert (plan.moves, plan.refusals) == ((), ())


def test_two_drained_hosts_do_not_take_each_others_vms() -> None:
    snap = snapshot(host("a", domain("web")), host("b", domain("db")), host("c"))
    assert targets(plan_drain(snap, inventory("a", "b", "c"), ["a", "b"]).moves) == {"web": "c", "db": "c"}


def test_cordons_of_the_snapshot_count_unless_others_are_given() -> None:
    cordon = Cordon("b", "me", 0.0, "disk")
    snap = snapshot(host("a", domain("web")), host("b"), host("c", cordons=(cordon,)))
    assert targets(plan_drain(snap, inventory("a", "b", "c"), ["a"]).moves) == {"web": "c"}
    asked = plan_migrate(snap, inventory("a", "b", "c"), [vm_named("web")], ["b"])
    assert asked.refusals == (Refusal("web", "b", "is cordoned"),)
    assert targets(plan_drain(snap, inventory("a", "b", "c"), ["a"], cordoned=(), to=["b"]).moves) == {
        "web": "b"
    }


@pytest.mark.parametrize(
    ("only", "exclude", "moved"),
    [
        ((), (), {"web", "db"}),
        (("web",), (), {"web"}),
        (("w*", "db"), ("d?",), {"web"}),
        (("we",), (), set()),
        ((), ("web",), {"db"}),
        (("x",), (), set()),
    ],
)
def test_only_and_exclude(only: tuple[str, ...], exclude: tuple[str, ...], moved: set[str]) -> None:
    plan = plan_drain(everyday(), inventory("a", "b", "c"), ["a"], only=only, exclude=exclude)
    assert targets(plan.moves).keys() == moved
    mistyped = (
        [Refusal("we", "", "no host defines a VM of this name; did you mean web?")] if "we" in only else []
    )
    assert list(plan.refusals) == mistyped


def test_mistyped_exclude_is_refused() -> None:
    plan = plan_drain(everyday(), inventory("a", "b", "c"), ["a"], exclude=["wbe"])
    assert [r.vm for r in plan.refusals] == ["wbe"]


def test_nobody_has_room_gives_a_reason_per_host() -> None:
    full = [host(n, domain(f"big-{n}", memory_kib=60 * GIB)) for n in "bcd"]
    snap = snapshot(host("a", domain("web", memory_kib=8 * GIB)), *full)
    plan = plan_drain(snap, inventory(*"abcd"), ["a"])
    assert plan.moves == ()
    assert [(r.vm, r.host) for r in plan.refusals] == [("web", "b"), ("web", "c"), ("web", "d")]
    assert all("memory left" in r.reason for r in plan.refusals)


def test_one_without_room_leaves_the_others_their_moves() -> None:
    snap = snapshot(host("a", domain("huge", memory_kib=90 * GIB), domain("web")), host("b"))
    plan = plan_drain(snap, inventory("a", "b"), ["a"])
    assert targets(plan.moves) == {"web": "b"}
    assert [r.vm for r in plan.refusals] == ["huge"]


def test_reason_says_that_the_plan_itself_takes_the_room() -> None:
    """Both fit alone, not together: the one left over is told what is left after the other."""
    snap = snapshot(host("a", domain("x", memory_kib=40 * GIB), domain("y", memory_kib=40 * GIB)), host("b"))
    plan = plan_drain(snap, inventory("a", "b"), ["a"])
    assert len(plan.moves) == 1
    assert plan.refusals == (Refusal("y", "b", "has 24.0 GiB of memory left for VMs, it needs 40.0 GiB"),)


def test_single_host_has_nowhere_to_go() -> None:
    plan = plan_drain(snapshot(host("a", domain("web"))), inventory("a"), ["a"])
    assert plan.refusals == (Refusal("web", "a", "there is no other host"),)


@pytest.mark.parametrize("silent", [Silent("a", "no route"), host("a", libvirt_problem="no route")])
def test_silent_source_is_refused(silent: Silent | HostFacts) -> None:
    (refusal,) = plan_drain(snapshot(silent, host("b")), inventory("a", "b"), ["a"]).refusals
    assert (refusal.vm, refusal.host) == ("the VMs of a", "a")
    assert "no route" in refusal.reason


def test_unknown_source_is_refused() -> None:
    (refusal,) = plan_drain(snapshot(host("b")), inventory("b"), ["a"]).refusals
    assert refusal == Refusal("the VMs of a", "a", "is not a host of the inventory")


def test_process_that_libvirt_does_not_know_keeps_the_host_from_being_empty() -> None:
    lost = QemuProcess(77, "u", "lost", frozenset())
    (refusal,) = plan_drain(
        snapshot(host("a", processes=(lost,)), host("b")), inventory("a", "b"), ["a"]
    ).refusals
    assert (refusal.vm, refusal.host) == ("lost", "a")
    assert "qemu process 77" in refusal.reason


def test_silent_host_refuses_every_vm_and_is_named_for_each() -> None:
    snap = snapshot(host("a", domain("web"), domain("db")), host("b"), Silent("z", "gone"))
    plan = plan_drain(snap, inventory("a", "b", "z"), ["a"])
    assert plan.moves == ()
    assert {(r.vm, r.host) for r in plan.refusals} == {("web", "z"), ("db", "z")}


def test_reservations_of_others_are_kept_free() -> None:
    other = Move(vm_named("other"), "c", "b", 60 * GIB, 180.0)
    snap = snapshot(host("a", domain("web", memory_kib=8 * GIB)), host("b"), host("c"))
    inv = inventory("a", "b", "c")
    assert targets(plan_drain(snap, inv, ["a"]).moves) == {"web": "b"}
    assert targets(plan_drain(snap, inv, ["a"], reservations=[other]).moves) == {"web": "c"}
    apart = inventory("a", "b", "c", apart={"r": ("web", "other")})
    small = dataclasses.replace(other, memory_kib=1)
    assert targets(plan_drain(snap, apart, ["a"], reservations=[small]).moves) == {"web": "c"}


def test_overrides_reach_the_packing() -> None:
    snap = snapshot(host("a", domain("web", memory_kib=60 * GIB)), host("b"))
    inv = inventory("a", "b", reserve_kib=8 * GIB)
    assert plan_drain(snap, inv, ["a"]).moves == ()
    assert targets(plan_drain(snap, inv, ["a"], overrides=[IGNORE_RESERVE]).moves) == {"web": "b"}
    together = snapshot(host("a", domain("web-1"), domain("web-2")), host("b"))
    inv = inventory("a", "b", apart={"webs": ("web-*",)})
    assert len(plan_drain(together, inv, ["a"]).moves) == 1
    assert len(plan_drain(together, inv, ["a"], overrides=[IGNORE_APART]).moves) == 2


def test_timeout_takes_the_place_of_the_inventorys() -> None:
    inv = inventory("a", "b", "c", shutdown_timeouts={"web": 20.0})
    plan = plan_migrate(everyday(), inv, [vm_named("web")], shutdown_timeout=5.0)
    assert [m.shutdown_timeout for m in plan.moves] == [5.0]


def test_migrate_picks_the_best_target_itself() -> None:
    assert targets(plan_migrate(everyday(), inventory("a", "b", "c"), [vm_named("web")]).moves) == {
        "web": "b"
    }


def test_migrate_of_several_swaps_no_vms_unless_asked() -> None:
    snap = snapshot(host("a", domain("web")), host("b", domain("db")), host("c"))
    vms = [vm_named("web"), vm_named("db")]
    inv = inventory("a", "b", "c")
    assert targets(plan_migrate(snap, inv, vms).moves) == {"web": "c", "db": "c"}
    plan = plan_migrate(snap, inv, vms, ["b"])
    assert targets(plan.moves) == {"web": "b"}
    assert plan.refusals == (Refusal("db", "b", "runs it already"),)


@pytest.mark.parametrize("vm", [vm_named("old"), vm_named("nobody")])
def test_migrate_of_what_does_not_run(vm: Vm) -> None:
    (refusal,) = plan_migrate(everyday(), inventory("a", "b", "c"), [vm]).refusals
    assert "not running" in refusal.reason


def test_migrate_of_what_might_run_on_a_silent_host() -> None:
    (refusal,) = plan_migrate(
        snapshot(host("a"), Silent("z", "gone")), inventory("a", "z"), [vm_named("w")]
    ).refusals
    assert refusal.host == "z"
    assert "gone" in refusal.reason


def test_migrate_of_a_vm_on_two_hosts_names_both() -> None:
    snap = snapshot(host("a", domain("web")), host("b", domain("web")), host("c"))
    plan = plan_migrate(snap, inventory("a", "b", "c"), [vm_named("web")], ["c"])
    assert plan.moves == ()
    assert {r.host for r in plan.refusals} == {"a", "b"}


def test_moving_a_vm_twice_asked_is_one_move() -> None:
    plan = plan_migrate(everyday(), inventory("a", "b", "c"), [vm_named("web"), vm_named("web")])
    assert len(plan.moves) == 1

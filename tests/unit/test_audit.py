"""What an audit makes of what was seen: pure, on clusters made by hand or by chance."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.audit import summary
from tasks.cluster.asking.storeimages import StoreImage, Survey, survey
from tasks.cluster.audit import definitions, hosts, images, judge, owners
from tasks.cluster.audit.finding import SEVERITIES, Finding, fab, in_order, listed
from tasks.cluster.audit.seen import GuardState, Offset, Seen, Unread
from tasks.cluster.model import Cordon, Domain, HostFacts, Silent
from tests.unit import clusters
from tests.unit.clusters import domain, host, inventory, snapshot

HOSTS = ("vmhost1", "vmhost2", "vmhost3")
NOW = 1_800_000_000.0


def seen_of(*facts: HostFacts | Silent, **changes: Any) -> Seen:
    """What was seen of these hosts, with nothing on the store."""
    made = Seen(
        at=NOW,
        inventory=inventory(*(f.host for f in facts)),
        snapshot=snapshot(*facts),
        owners={},
        journals={},
        beacons={},
        held={},
        survey=Survey(()),
    )
    return dataclasses.replace(made, **changes)


def owner_text(d: Domain, on: str, **changes: Any) -> str:
    record = {
        "image": f"store:/vmstorage/{d.vm.name}.img",
        "path": f"/vmstorage/{d.vm.name}.img",
        "host": on,
        "vm": d.vm.name,
        "uuid": d.vm.uuid,
        "boot_id": "boot",
        "time": NOW - 3600,
    }
    return json.dumps({**record, **changes})


def image(path: str, *needs: str, allocated: int = 1 << 30) -> StoreImage:
    return StoreImage(
        path, f"store:{path}", 1 << 40, allocated, NOW, "qcow2", tuple(f"store:{n}" for n in needs)
    )


def kinds(seen: Seen) -> list[str]:
    return [finding.kind for finding in judge.findings(seen)]


# -- by chance -----------------------------------------------------------------------------------------

NAMES = st.lists(st.sampled_from(["web", "db", "-rf", "a b", "größe", "x,y", "it's"]), unique=True)


@st.composite
def good_clusters(draw: st.DrawFn) -> Seen:
    """Every VM runs once or not at all, is defined alike wherever it is, and every note about it is true."""
    guarded = draw(st.booleans())
    here: dict[str, list[Domain]] = {name: [] for name in HOSTS}
    notes: dict[str, str] = {}
    found = []
    for name in draw(NAMES):
        runs = draw(st.sampled_from([*HOSTS, ""]))
        last = draw(st.sampled_from(HOSTS))
        for on in draw(st.sets(st.sampled_from(HOSTS))) | {runs or last}:
            state = "running" if on == runs else "shut off"
            here[on].append(domain(name, state=state, last_ran=NOW if on == (runs or last) else NOW - 9.0))
        if runs and guarded:
            notes[f"{name}.json"] = owner_text(domain(name), runs)
        elif guarded and draw(st.booleans()):
            notes[f"{name}.json"] = owner_text(domain(name), last, boot_id="before the last boot")
        found.append(image(f"/vmstorage/{name}.img"))
    facts = [
        host(
            name,
            *here[name],
            at=NOW,
            guarded=guarded,
            running_vms=tuple(d.vm.name for d in here[name] if d.running),
        )
        for name in HOSTS
    ]
    return seen_of(
        *facts,
        owners=notes,
        survey=Survey(tuple(found)),
        clocks={name: Offset(draw(st.floats(-0.9, 0.9)), 0.1) for name in HOSTS},
        guards={name: GuardState("good") for name in HOSTS if guarded},
        beacons=dict.fromkeys(HOSTS, "{}") if guarded else {},
        held={f"hosts/{name}": "{}" for name in HOSTS} if guarded else {},
    )


@given(good_clusters())
def test_a_consistent_cluster_has_no_findings(seen: Seen) -> None:
    assert judge.findings(seen) == []


@given(good_clusters(), st.data())
def test_one_thing_wrong_is_found_and_nothing_else(seen: Seen, data: st.DataObject) -> None:
    running = seen.snapshot.running()
    if not running:
        return
    chosen = data.draw(st.sampled_from(running))
    facts = seen.snapshot.hosts[chosen.host]
    assert isinstance(facts, HostFacts)
    wrong = data.draw(st.sampled_from(["autostart", "running-vms", "unclaimed", "halted", "owner-wrong"]))
    changed, notes = facts, dict(seen.owners or {})
    if wrong in ("unclaimed", "owner-wrong") and not facts.guarded:
        return
    if wrong == "autostart":
        changed = with_domain(facts, chosen, autostart=True)
    elif wrong == "halted":
        changed = with_domain(facts, chosen, state="crashed")
    elif wrong == "running-vms":
        changed = dataclasses.replace(
            facts, running_vms=tuple(n for n in facts.running_vms or () if n != chosen.vm.name)
        )
    elif wrong == "unclaimed":
        del notes[f"{chosen.vm.name}.json"]
    else:
        other = next(name for name in HOSTS if name != chosen.host)
        notes[f"{chosen.vm.name}.json"] = owner_text(chosen, other)
    after = dataclasses.replace(
        seen, snapshot=snapshot(*(changed if f is facts else f for f in seen.snapshot.facts())), owners=notes
    )
    (finding,) = judge.findings(after)
    assert finding.kind == wrong
    assert chosen.vm.name in finding.vms
    assert chosen.host in finding.hosts
    assert finding.advice


def with_domain(facts: HostFacts, chosen: Domain, **changes: Any) -> HostFacts:
    return dataclasses.replace(
        facts, domains=tuple(dataclasses.replace(d, **changes) if d == chosen else d for d in facts.domains)
    )


WORDS = ("image", "path", "host", "vm", "uuid", "boot_id", "time", "to", "line", "moves")
VALUES = st.sampled_from(
    [None, True, 7, -1.5, 1e300, "", "plan", "vmhost1", [], [[]], {}, {"host": "vmhost1"}]
)
TEXTS = st.dictionaries(st.sampled_from(WORDS), VALUES).map(json.dumps) | st.sampled_from(
    ["", "{", "[]", "7"]
)


@st.composite
def messes(draw: st.DrawFn) -> Seen:
    """Anything goes: definitions and runs at random, files with anything in them."""
    facts: list[HostFacts | Silent] = []
    for name in HOSTS:
        if draw(st.integers(0, 5)) == 0:
            facts.append(Silent(name, "no route"))
            continue
        domains = [
            domain(
                vm,
                state=draw(st.sampled_from(["running", "shut off", "paused", "crashed"])),
                image=f"/vmstorage/{draw(st.sampled_from(['a', 'b', 'c']))}.img",
                uuid=draw(st.sampled_from(["", "11111111-2222-4333-8444-555555555555"])),
                autostart=draw(st.booleans()),
                managed_save=draw(st.booleans()),
                last_ran=draw(st.none() | st.floats(0, NOW)),
            )
            for vm in draw(st.lists(st.sampled_from(["web", "db", "-rf"]), unique=True))
        ]
        facts.append(host(name, *domains, at=NOW, guarded=draw(st.sampled_from([True, False, None]))))
    owner = owner_text(
        domain("a"), draw(st.sampled_from([*HOSTS, "vmhost9"])), time=draw(st.floats(0, 2 * NOW))
    )
    texts = st.dictionaries(st.sampled_from(["a", *HOSTS]), TEXTS | st.just(owner), max_size=2)
    return seen_of(
        *facts,
        owners=draw(st.none() | texts),
        journals=draw(st.none() | texts),
        beacons=draw(texts),
        held=draw(st.none() | texts),
        survey=draw(st.none() | st.just(Survey((image("/vmstorage/a.img", "/vmstorage/b.img"),), "slow"))),
        clocks={f.host: Offset(draw(st.floats(-1e6, 1e6)), 0.1) for f in facts if isinstance(f, HostFacts)},
        guards={f.host: GuardState(draw(st.sampled_from(["missing", "outdated", "foreign"]))) for f in facts},
    )


@settings(max_examples=300)
@given(messes())
def test_whatever_is_seen_every_finding_says_what_to_type(seen: Seen) -> None:
    found = in_order(judge.findings(seen))
    assert all(f.text and f.advice and f.severity in SEVERITIES for f in found)
    assert [SEVERITIES.index(f.severity) for f in found] == sorted(
        SEVERITIES.index(f.severity) for f in found
    )
    twice = {
        d.vm.name
        for d in seen.snapshot.running()
        for e in seen.snapshot.where_running(d.vm)
        if e.host != d.host
    }
    told = {name for f in found if f.kind in ("runs-twice", "image-twice") for name in f.vms}
    assert bool(twice) <= bool(told)
    assert sum(f.kind == "silent" for f in found) == len(seen.snapshot.hosts) - len(seen.snapshot.facts())


# -- one subject each ----------------------------------------------------------------------------------


def test_a_vm_with_several_disks_is_one_finding() -> None:
    web = domain("web", devices=clusters.disk_xml("/vmstorage/data.img", target="vdb"))
    notes = {
        "1": owner_text(web, "vmhost2"),
        "2": owner_text(web, "vmhost2", image="store:/vmstorage/data.img", path="/vmstorage/data.img"),
    }
    (wrong,) = owners.findings(seen_of(host("vmhost1", web), host("vmhost2"), owners=notes))
    assert wrong.kind == "owner-wrong"
    assert len(wrong.evidence) == 3


def test_an_owner_on_a_silent_host_may_be_right() -> None:
    web = domain("web")
    seen = seen_of(
        host("vmhost1", web), Silent("vmhost2", "no route"), owners={"1": owner_text(web, "vmhost2")}
    )
    (wrong,) = owners.findings(seen)
    assert "vmhost2 cannot be asked: it may be running it, too." in wrong.evidence
    off = dataclasses.replace(seen, snapshot=snapshot(host("vmhost1"), Silent("vmhost2", "no route")))
    assert list(owners.findings(off)) == []
    assert list(owners.notes(off)) == []


def test_what_a_changed_definition_names_is_not_written_yet() -> None:
    """A disk added to the definition of a running VM is claimed at its next start."""
    web = domain("web")
    more = web.xml.replace("</devices>", clusters.disk_xml("/vmstorage/new.img", target="vdb") + "</devices>")
    facts = host("vmhost1", dataclasses.replace(web, xml=more), guarded=True, running_vms=("web",))
    seen = seen_of(facts, owners={"1": owner_text(web, "vmhost1")}, held={"hosts/vmhost1": ""})
    assert kinds(seen) == []


def test_a_volume_may_be_any_file_of_its_name() -> None:
    disk = "<disk type='volume' device='disk'><source pool='p' volume='v.img'/><target dev='vdb'/></disk>"
    files = tuple(image(f"/vmstorage/{name}.img") for name in ("web", "v", "old"))
    seen = seen_of(host("vmhost1", domain("web", devices=disk), running_vms=("web",)), survey=Survey(files))
    (unused,) = images.findings(seen)
    assert [line.partition(":")[0] for line in unused.evidence] == ["/vmstorage/old.img"]


def test_many_unused_images_are_counted_largest_first() -> None:
    files = tuple(image(f"/vmstorage/{n}.img", allocated=n << 30) for n in range(1, 31))
    (unused,) = images.findings(seen_of(host("vmhost1"), survey=Survey(files)))
    assert unused.text == "30 images, which take 465.0 GiB, are used by no definition."
    assert unused.evidence[0].startswith("/vmstorage/30.img: qcow2, takes 30.0 GiB")
    assert unused.evidence[-1] == "and 10 smaller ones"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 40, "3.0 TiB"),
        (9 << 50, "9216.0 TiB"),
    ],
)
def test_sizes(number: int, words: str) -> None:
    assert images.size(number) == words


@pytest.mark.parametrize(
    ("ahead", "texts"),
    [
        ([0.0, 1.9, -1.9], []),
        ([0.0, 2.2, 0.0], ["The clock of vmhost2 is 2.2 s ahead of that of most others."]),
        ([-5.0, -5.0, -5.0], ["The clock of this laptop is 5.0 s ahead of that of most others."]),
        ([7.0], ["The clock of vmhost1 is 7.0 s ahead of the laptop's."]),
        ([-7.0], ["The clock of vmhost1 is 7.0 s behind the laptop's."]),
        ([], []),
    ],
)
def test_clocks(ahead: list[float], texts: list[str]) -> None:
    clocks = {f"vmhost{n}": Offset(offset, 0.1) for n, offset in enumerate(ahead, 1)}
    assert [f.text for f in hosts.findings(seen_of(clocks=clocks))] == texts


def test_a_clock_that_was_asked_slowly_is_not_accused() -> None:
    assert list(hosts.findings(seen_of(clocks={"a": Offset(4.0, 3.0)}))) == []


def test_what_was_not_read_is_said() -> None:
    seen = seen_of(host("vmhost1"), unread=(Unread("the owner files", "vmhost1: /vmstorage hangs"),))
    (finding,) = judge.findings(seen)
    assert (finding.severity, finding.text) == ("unknown", "Not judged: the owner files.")
    assert judge.Report(seen, (finding,), ()).code == 3


def test_exit_codes() -> None:
    def code(*severities: str) -> int:
        return judge.Report(seen_of(), tuple(Finding(s, "x", "y") for s in severities), ()).code

    assert (code(), code("drift"), code("breach", "drift"), code("breach", "unknown")) == (0, 1, 1, 3)


def test_the_last_line_counts() -> None:
    seen = seen_of(host("vmhost1", domain("web")), Silent("vmhost2", "no route"))
    assert summary(judge.Report(seen, (), ())) == "1 of 2 hosts answered, 1 VM, 0 images: nothing found."
    some = tuple(Finding(severity, "x", "y") for severity in ("breach", "drift", "drift", "unknown"))
    assert summary(judge.Report(dataclasses.replace(seen, survey=None), some, ())) == (
        "1 of 2 hosts answered, 1 VM: 1 breach, 1 unknown and 2 drift. Not everything could be looked at."
    )


def test_differences_are_short_and_without_passwords() -> None:
    old = domain("web", devices="<graphics type='vnc' passwd='one'/>").xml
    assert definitions.difference(old, old) == []
    assert definitions.difference(old, old.replace("one", "two")) == ["only their passwords differ"]
    assert definitions.difference(old, old.replace(">1048576<", ">1<")) == [
        "-<memory>1048576</memory>",
        "+<memory>1</memory>",
    ]
    assert definitions.difference(old, "<")[0].startswith("cannot be compared")


def test_an_evacuated_host_is_a_finding_once_it_is_back() -> None:
    cordon = Cordon("vmhost1", "ada@laptop", NOW - 9e5, "evacuated")
    web = domain("web", state="shut off")
    back = seen_of(
        host("vmhost1", web, cordons=(cordon,)), host("vmhost2", domain("web"), running_vms=("web",))
    )
    (finding,) = judge.findings(back)
    assert finding.kind == "evacuated"
    assert "web is defined there and runs on vmhost2" in finding.evidence
    away = seen_of(Silent("vmhost1", "no route"), host("vmhost2", cordons=(cordon,)))
    assert kinds(away) == ["silent"]


def evacuated(*, guarded: bool = True, state: str = "shut off") -> Seen:
    """vmhost1 is back from its death, and its list still names web."""
    cordon = Cordon("vmhost1", "ada@laptop", NOW, "evacuated")
    web = domain("web", state=state)
    facts = host("vmhost1", web, cordons=(cordon,), running_vms=("web",), guarded=guarded)
    living = [] if state == "running" else [domain("web")]
    return seen_of(
        facts,
        host("vmhost2", *living, running_vms=tuple(d.vm.name for d in living)),
        taken={"vmhost1": f"{web.vm.uuid} web\n"},
        held={"hosts/vmhost1": ""},
    )


def test_what_was_taken_is_not_started_by_a_reboot() -> None:
    (finding,) = (f for f in judge.findings(evacuated()) if f.vms == ("web",) and "owner" not in f.kind)
    assert (finding.severity, finding.kind) == ("drift", "evacuated")
    assert finding.evidence[1:] == (
        "web was taken from it and runs on vmhost2",
        "/root/running_vms there names web: left off at a boot, and taken out by undrain",
    )


def test_without_the_guard_what_was_taken_may_start_all_the_same() -> None:
    found = {f.kind: f for f in judge.findings(evacuated(guarded=False))}
    assert found["running-vms"].severity == "danger"
    assert "starts none" not in found["evacuated"].text


def test_what_was_taken_and_runs_there_again_would_stay_off_after_a_reboot() -> None:
    found = {f.kind: f for f in judge.findings(evacuated(state="running"))}
    assert any("a reboot of vmhost1 would leave web off" in line for line in found["evacuated"].evidence)


def test_words() -> None:
    assert fab("vm.start", "-rf", "a b", hosts=["x", "y"]) == "fab -H x,y vm.start --vm=-rf 'a b'"
    assert [listed(names) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    "reply", [{}, {"images": [{}], "complete": True, "why": ""}, {"images": [], "complete": 1}]
)
def test_an_answer_that_is_not_understood_is_no_empty_answer(reply: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unexpected answer"):
        survey("vmhost1", reply)

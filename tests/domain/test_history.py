"""history, the journals it reads and how they end, on the simulated cluster."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tasks.cluster.store import journal
from tasks.drain import drain, undrain
from tasks.history import history
from tasks.migrate import migrate
from tasks.resume import resume
from tasks.status import status
from tests.domain.desk import Desk
from tests.sim import faults
from tests.sim.clock import BEGINNING
from tests.sim.cluster import SimCluster
from tests.sim.guests import Behaviour
from tests.sim.scheduler import SimKilled

DAY = 86400.0


@pytest.fixture
def sim() -> SimCluster:
    return SimCluster(("vmhost1", "vmhost2", "vmhost3"))


def entries(desk: Desk, *args: str, **more: Any) -> list[dict[str, Any]]:
    ended = desk.type(history, *args, json=True, **more)
    assert ended.code == 0, ended.text
    return list(ended.document["entries"])


def cut(desk: Desk, op: str) -> None:
    """Kill a drain of vmhost1 at its first request of this kind."""
    desk.sim.faults.on(faults.kill_laptop, op=op)
    with pytest.raises(SimKilled):
        desk.beside(desk.sim.another_laptop("other"), drain, hosts=["vmhost1"], yes=True)()
    desk.sim.faults.clear()


def test_moves_are_told_with_how_they_went(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("db", "vmhost1", behaviour=Behaviour(off_after=None))
        assert desk.type(migrate, "web", to="vmhost2", yes=True).code == 0
        sim.wait(60.0)
        assert desk.type(drain, hosts=["vmhost1"], to="vmhost3", timeout=5.0, yes=True).code == 0
        first, second = entries(desk)
        assert (first["vm"], first["source"], first["target"]) == ("web", "vmhost1", "vmhost2")
        assert (first["kind"], first["result"], first["stopped_by"]) == ("migrate", "moved", "shutdown")
        assert 0 < first["downtime"] < 2
        assert first["at"] < first["ended_at"] < second["at"]
        assert (second["vm"], second["kind"], second["stopped_by"]) == ("db", "drain", "destroyed")
        shown = desk.type(history).out.splitlines()
        assert shown[0].split()[:2] == ["TIME", "VM"]
        assert [line.split()[2] for line in shown[1:]] == ["web", "db"]


def test_vms_hosts_and_a_limit_choose(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web-1", "web-2", "a,b"):
            sim.add_vm(name, "vmhost1")
            assert desk.type(migrate, name, to="vmhost2", yes=True).code == 0
            sim.wait(5.0)
        assert desk.type(migrate, "web-1", to="vmhost3", yes=True).code == 0
        assert [e["vm"] for e in entries(desk, "web-*")] == ["web-1", "web-2", "web-1"]
        assert [e["vm"] for e in entries(desk, "web-2,nobody")] == ["web-2"]
        assert [e["vm"] for e in entries(desk, "a,b")] == ["a,b"]
        assert [e["target"] for e in entries(desk, hosts=["vmhost3"])] == ["vmhost3"]
        assert [e["target"] for e in entries(desk, "web-1", limit=1)] == ["vmhost3"]
        limited = desk.type(history, limit=1)
        assert "3 older ones are left out: --limit 4" in limited.out
        assert "No such move" in desk.type(history, "nobody").out


def test_what_was_cut_is_told_until_it_is_resumed(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        cut(desk, "start")
        (entry,) = entries(desk)
        assert (entry["result"], entry["ended_at"]) == ("interrupted", None)
        assert "fab resume" in desk.type(history).out
        assert desk.type(resume, yes=True).code == 0
        (entry,) = entries(desk)
        assert (entry["result"], entry["stopped_by"], entry["downtime"]) == ("moved", "shutdown", None)
        assert entry["resumed_by"] == [entry["by"]]


def test_only_what_was_resumed_is_called_so(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("slow", "vmhost1", behaviour=Behaviour(off_after=20.0))
        sim.faults.on(faults.kill_laptop, op="start", n=2)
        with pytest.raises(SimKilled):
            desk.beside(sim.another_laptop("other"), drain, hosts=["vmhost1"], yes=True)()
        sim.faults.clear()
        assert desk.type(resume, yes=True).code == 0
        told = {entry["vm"]: len(entry["resumed_by"]) for entry in entries(desk)}
        assert told == {"web": 0, "slow": 1}


def test_a_damaged_journal_is_named(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        assert desk.type(migrate, "web", to="vmhost2", yes=True).code == 0
        sim.store.files["moves/20290101T000000Z-aaaaaa.json"] = "nonsense\n"
        ended = desk.type(history)
        assert ended.code == 0
        assert "20290101T000000Z-aaaaaa: line 1 is damaged; it is left out." in ended.out
        assert "web" in ended.out


def test_status_tells_of_what_is_under_way_and_what_was_cut(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=20.0))
        answer = desk.beside(sim.another_laptop("other"), drain, hosts=["vmhost1"], yes=True)
        sim.wait(5.0)
        calls = len(sim.calls)
        during = desk.type(status)
        assert "Under way: 'fab" in during.out
        assert "interrupted" not in during.out
        assert {c.op for c in sim.calls[calls:] if c.laptop is sim.laptop} == {"observe"}
        assert answer().code == 0
        assert desk.type(status, json=True).document["operations"] == []
        assert desk.type(undrain, hosts=["vmhost1"], yes=True).code == 0
        cut(desk, "wait_off")
        after = desk.type(status)
        assert "was interrupted (since 2030" in after.out
        assert "fab resume" in after.out
        (one,) = desk.type(status, json=True).document["operations"]
        assert one["under_way"] is False


def old(days: float, *, ended: bool = True, key: str = "aaaaaa") -> tuple[str, str]:
    """The name and text of a journal of an operation so many days ago."""
    at = BEGINNING - days * DAY
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}-{key}"
    plan = {"t": at, "line": "plan", "command": "fab drain", "by": "ada", "at": at, "moves": []}
    lines = [plan, *([{"t": at + 60, "line": "end", "result": "done"}] if ended else [])]
    return name, "".join(json.dumps(line) + "\n" for line in lines)


def test_old_journals_are_removed_when_an_operation_ends(sim: SimCluster, desk: Desk) -> None:
    keep = {"young": old(9), "open": old(20, ended=False), "cordoned": old(30, key="cccccc")}
    gone = {"old": old(11), "very old": old(900)}
    with sim:
        sim.add_vm("web", "vmhost1")
        desk.inventory["journal_days"] = 10
        for name, text in (*keep.values(), *gone.values()):
            sim.store.files[f"moves/{name}.json"] = text
        sim.store.files["moves/notes.txt"] = "somebody's own"
        cordon = {"host": "vmhost3", "by": "ada", "at": 5, "why": "", "drains": [keep["cordoned"][0]]}
        sim.store.files["cordons/vmhost3.json"] = json.dumps(cordon)
        assert desk.type(migrate, "web", to="vmhost2", yes=True).code == 0
        left = {path.removeprefix("moves/").removesuffix(".json") for path in sim.store.files}
        assert {name for name, _ in keep.values()} <= left
        assert not {name for name, _ in gone.values()} & left
        assert "moves/notes.txt" in sim.store.files


def test_a_cordon_that_cannot_be_read_keeps_every_journal(sim: SimCluster, desk: Desk) -> None:
    with sim:
        name, text = old(900)
        sim.store.files[f"moves/{name}.json"] = text
        sim.add_vm("web", "vmhost1")
        sim.faults.on(
            lambda call: sim.store.files.update({"cordons/x.json": "nonsense"}),
            op="store.list",
        )
        assert desk.type(migrate, "web", to="vmhost2", yes=True).code == 0
        assert f"moves/{name}.json" in sim.store.files


def test_journals_of_older_versions_are_understood() -> None:
    lines: list[dict[str, Any]] = [
        {"t": 5, "line": "plan", "operation": "x", "command": "fab -H a drain", "by": "ada", "at": 5.0,
         "moves": [{"uuid": "u", "vm": "web", "source": "a", "target": "b"}]},
        {"t": 6, "line": "before", "uuid": "u", "vm": "web", "source": "a", "target": "b", "step": "start"},
    ]  # fmt: skip
    record = journal.read("x", "".join(json.dumps(line) + "\n" for line in lines))
    assert (record.kind, dict(record.options), record.ended) == ("drain", {}, False)
    assert record.started == {"u"}
    last = record.last("u")
    assert last is not None
    assert (last.step, last.at) == ("start", 6.0)


def test_an_operation_with_a_step_after_its_end_has_not_ended() -> None:
    """A suspended laptop woke up after another one had resumed its operation."""
    plan = {"t": 5, "line": "plan", "command": "fab", "by": "ada", "at": 5.0, "kind": "migrate", "moves": []}
    outcome = {"t": 7, "line": "outcome", "uuid": "u", "result": "moved"}
    end = {"t": 8, "line": "end", "result": "resumed"}
    before = {"t": 9, "line": "before", "uuid": "u", "step": "destroy"}
    text = "".join(json.dumps(line) + "\n" for line in (plan, outcome, end))
    assert journal.read("x", text).ended
    assert journal.ended(text)
    record = journal.read("x", text + json.dumps(before) + "\n")
    assert not record.ended
    assert record.open("u")

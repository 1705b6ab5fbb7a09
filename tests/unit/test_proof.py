"""What counts as a trace of a VM on one host, and what all hosts' answers prove."""

from __future__ import annotations

import pytest

from tasks.cluster.errors import Unknown
from tasks.cluster.model import QemuProcess, RunningNow, Silent
from tasks.cluster.moving.proof import require_off, trace_of
from tests.unit.observed import domain

WEB = domain("web", images=frozenset({"store:1"}))
OTHER = domain("other", images=frozenset({"store:2"}))


def answer(*domains: object, processes: tuple[QemuProcess, ...] = ()) -> RunningNow:
    return RunningNow("vmhost2", 0.0, domains, processes)  # type: ignore[arg-type]


def process(uuid: str = "", name: str = "", *images: str) -> QemuProcess:
    return QemuProcess(4711, uuid, name, frozenset(images))


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (answer(domain("web", state="in shutdown")), "libvirt lists it as in shutdown"),
        (answer(domain("web", state="paused")), "libvirt lists it as paused"),
        (answer(domain("web", state="crashed")), "libvirt lists it as crashed"),
        (answer(domain("web", uuid="1234")), "libvirt lists a VM of this name (UUID 1234) as running"),
        (answer(domain("copy", images=WEB.images)), "VM 'copy' (running) uses its image store:1"),
        # libvirt has lost them; what they have open may be hidden, their command line is not.
        (answer(processes=(process(WEB.vm.uuid),)), "qemu process 4711 of it is alive"),
        (answer(processes=(process("", "web"),)), "qemu process 4711 of it is alive"),
        (
            answer(processes=(process("", "copy", "store:1"),)),
            "qemu process 4711 (copy) has its image store:1 open",
        ),
    ],
)
def test_every_trace_counts_as_running(seen: RunningNow, words: str) -> None:
    trace = trace_of(WEB.vm, WEB.images, {"vmhost1": answer(), "vmhost2": seen})
    assert [one.what for one in trace.evidence] == [words]
    assert (trace.off, trace.running_on) == (False, ("vmhost2",))
    with pytest.raises(Unknown, match="web is not proved to be off"):
        require_off(trace)


def test_a_silent_host_leaves_it_unknown() -> None:
    trace = trace_of(WEB.vm, WEB.images, {"vmhost1": answer(), "vmhost2": Silent("vmhost2", "no route")})
    assert (trace.evidence, trace.off) == ((), False)
    with pytest.raises(Unknown, match=r"vmhost2 does not answer \(no route\)"):
        require_off(trace)


def test_other_vms_prove_nothing() -> None:
    seen = answer(OTHER, processes=(process(OTHER.vm.uuid, "other", "store:2"),))
    trace = trace_of(WEB.vm, WEB.images, {"vmhost1": seen})
    assert trace.off
    require_off(trace)

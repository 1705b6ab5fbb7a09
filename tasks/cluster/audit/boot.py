"""What the next boot or start on a host would do wrong: autostart, running_vms, managed saves."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.cluster.audit.finding import Finding, fab, listed
from tasks.cluster.audit.seen import Seen
from tasks.cluster.model import OFF, Domain, HostFacts
from tasks.cluster.setup.guard import RUNNING_VMS

#: Libvirt's states of a VM that runs as it should.
_WELL = ("running", "idle", "in shutdown", OFF)


def findings(seen: Seen) -> Iterator[Finding]:
    for facts in seen.snapshot.facts():
        if not facts.libvirt_problem:
            yield from _autostart(facts)
            yield from _running_vms(seen, facts)
            yield from _saves(seen, facts)
            yield from _halted(facts)


def _autostart(facts: HostFacts) -> Iterator[Finding]:
    marked = tuple(d.vm.name for d in facts.domains if d.autostart)
    if marked:
        yield Finding(
            "danger",
            "autostart",
            f"libvirt on {facts.host} starts {listed(marked)} at boot, wherever else it runs by then.",
            (facts.host,),
            marked,
            ("libvirt's autostart is on; root's crontab and running_vms are the way back after a boot.",),
            (fab("host.autostart", hosts=[facts.host]),),
        )


def _running_vms(seen: Seen, facts: HostFacts) -> Iterator[Finding]:
    running = [d.vm.name for d in facts.domains if d.running]
    if facts.running_vms is None and not running:
        return
    noted = facts.running_vms or ()
    # The restart script leaves these off. An edited or older one may not: then only the guard does.
    taken = {vm.uuid for vm in seen.taken_from(facts.host)} if facts.guarded else set()
    left_off = {d.vm.name for d in facts.domains if d.vm.uuid in taken}
    lacks = tuple(name for name in running if name not in noted)
    extra = tuple(dict.fromkeys(name for name in noted if name not in running and name not in left_off))
    elsewhere = {
        name: [d.host for d in seen.snapshot.running() if d.vm.name == name and d.host != facts.host]
        for name in extra
    }
    if not (lacks or extra):
        return
    told = [f"{name} runs and is not in it: a reboot of {facts.host} would leave it off" for name in lacks]
    for name in extra:
        where = f"runs on {listed(elsewhere[name])}" if elsewhere[name] else "does not run here"
        told.append(f"{name} is in it and {where}: a reboot of {facts.host} would start it")
    if facts.running_vms is None:
        told.insert(0, "there is no such file")
    yield Finding(
        "danger" if any(elsewhere.values()) else "drift",
        "running-vms",
        f"{RUNNING_VMS} on {facts.host} does not name what runs there.",
        (facts.host,),
        (*lacks, *extra),
        tuple(told),
        (fab("host.save-running", hosts=[facts.host]),),
    )


def _saves(seen: Seen, facts: HostFacts) -> Iterator[Finding]:
    """Saved memory on a host that the VM has left: started there, it meets a disk that has changed since."""
    for d in facts.domains:
        lives = _lives_elsewhere(seen, d) if d.managed_save else ""
        if lives:
            yield Finding(
                "danger",
                "managed-save",
                f"{d.vm.name} has a managed save on {facts.host}, where it does not live any more.",
                (facts.host,),
                (d.vm.name,),
                (lives, f"A start on {facts.host} would go on with old memory on a disk that has changed."),
                (
                    "Nothing but that old memory is lost when it is dropped:",
                    f"On {facts.host}: virsh managedsave-remove {d.vm.uuid}",
                ),
            )


def _lives_elsewhere(seen: Seen, domain: Domain) -> str:
    others = [d for d in seen.snapshot.domains() if d.vm.uuid == domain.vm.uuid and d.host != domain.host]
    running = [d.host for d in others if d.running]
    if running:
        return f"It runs on {listed(running)}."
    later = [d for d in others if (d.last_ran or 0.0) > (domain.last_ran or 0.0)]
    return f"It ran on {listed(d.host for d in later)} since." if later else ""


def _halted(facts: HostFacts) -> Iterator[Finding]:
    for d in facts.domains:
        if d.state not in _WELL:
            yield Finding(
                "drift",
                "halted",
                f"{d.vm.name} is {d.state} on {facts.host}: it counts as running and does nothing.",
                (facts.host,),
                (d.vm.name,),
                (f"libvirt says why: {d.reason or 'nothing'}",),
                (
                    f"On {facts.host}: virsh resume {d.vm.uuid}, or give it up:",
                    fab("vm.destroy", d.vm.name, hosts=[facts.host]),
                ),
            )

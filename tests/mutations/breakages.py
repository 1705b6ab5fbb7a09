"""All deliberate breakages, by the rule that they break. A new safety rule gets one here."""

from __future__ import annotations

from tests.mutations.breakage import (
    AGENT,
    EVACUATION,
    HOOK,
    MIGRATIONS,
    MOVES,
    OBSERVED,
    ONHOST,
    PLANS,
    RESTART,
    STARTS,
    STOPS,
    TENDER,
    TRACES,
    Breakage,
)

STARTING = "tasks/cluster/moving/starting.py"
FENCING = "tasks/cluster/evacuate/fencing.py"
PROOF = "tasks/cluster/moving/proof.py"
MODEL = "tasks/cluster/model.py"
MOVE = "tasks/cluster/moving/move.py"
HOOK_FILE = "templates/libvirt-qemu-hook.py.j2"
TENDER_FILE = "templates/vmfab-tend.py.j2"
EVACUATING = "tasks/cluster/evacuate/evacuating.py"
RESTART_FILE = "templates/restart_running_vms.sh.j2"

ASK_EVERYBODY = (
    Breakage(
        "no-final-look",
        "the look at all hosts right before a start is left out",
        STARTING,
        (("        self._tell(Phase.PROVING, host)\n", "        return\n"),),
        MOVES + STARTS,
    ),
    Breakage(
        "silent-host-passes-the-proof",
        "a host that does not answer counts as one that does not run the VM",
        PROOF,
        (("return not self.evidence and not self.silent", "return not self.evidence"),),
        MOVES + STARTS,
    ),
    Breakage(
        "silent-host-passes-the-plan",
        "the plan takes a silent host, or one with a hung libvirtd, for an empty one",
        MODEL,
        (
            (
                "            if isinstance(h, Silent):\n                found.append(h)\n"
                "            elif h.libvirt_problem:",
                "            if not h:",
            ),
        ),
        PLANS + STARTS,
    ),
    Breakage(
        "silent-host-does-not-forbid-a-move",
        "a VM is planned to move although a host is silent",
        "tasks/cluster/planning/eligibility.py",
        (
            (
                "VM_FILTERS: tuple[VmFilter, ...] = (\n    _unsure_hosts,\n",
                "VM_FILTERS: tuple[VmFilter, ...] = (\n",
            ),
        ),
        PLANS,
    ),
    Breakage(
        "silent-host-does-not-forbid-a-start",
        "vm.start plans a start although a host is silent",
        "tasks/cluster/vm/startplan.py",
        (("for s in self._census.unsure.values()]", "for s in ()]"),),
        STARTS,
    ),
    Breakage(
        "silent-host-is-left-out",
        "a host that does not answer, or answers with an error, is missing in what all hosts said",
        "tasks/cluster/asking/session.py",
        (
            (
                "return Snapshot({name: answers[name] for name in names if name in answers})\n",
                "return Snapshot({n: s for n in names if not isinstance(s := answers[n], Silent)})\n",
            ),
        ),
        OBSERVED,
    ),
    Breakage(
        "stale-proof",
        "a start that was held up uses the old proof",
        STARTING,
        (("if self._clock.monotonic() - proved > FRESH:", "if False:"),),
        MOVES + STARTS,
    ),
    Breakage(
        "answers-of-an-earlier-question",
        "who asks while hosts are being asked gets answers that are older than the question",
        "tasks/cluster/asking/rounds.py",
        (
            (
                "        with self._lock:\n            self._gathering = _Gathering()\n        begun",
                "        begun",
            ),
        ),
        ("tests/unit/test_rounds.py", *MOVES),
    ),
    Breakage(
        "slow-proof",
        "answers that were held up by one slow host count as one moment",
        PROOF,
        (("(not trace.silent and now - seen.begun <= good_for)", "not trace.silent"),),
        MOVES + STARTS,
    ),
)

UNKNOWN_IS_NOT_OFF = (
    Breakage(
        "failed-destroy-is-off",
        "a destroy that failed counts as one that worked",
        "tasks/cluster/moving/stopping.py",
        (('return Stopped(False, "destroyed"', 'return Stopped(True, "destroyed"'),),
        MOVES + STOPS,
    ),
    Breakage(
        "destroy-is-believed",
        "after a destroy nobody looks whether the VM is off",
        "tasks/cluster/moving/stopping.py",
        (
            (
                "            stopped = self.settled()\n            if stopped.off:",
                "            stopped = Stopped(True, '', self._clock.monotonic())\n            if True:",
            ),
        ),
        MOVES + STOPS,
    ),
    Breakage(
        "next-life-is-stopped-too",
        "a VM that somebody started again while its host did not answer is destroyed",
        "tasks/cluster/moving/stopping.py",
        (("        if self._pid is not None and running and ", "        if False and "),),
        MOVES,
    ),
    Breakage(
        "only-running-is-running",
        "in shutdown, paused, suspended and crashed count as off",
        MODEL,
        (("        return self.state != OFF\n", '        return self.state == "running"\n'),),
        ("tests/unit/test_eligibility.py", *STARTS, *STOPS, *MOVES),
    ),
    Breakage(
        "host-tells-only-running",
        "the host's answer leaves out what is in shutdown, paused or crashed",
        "tasks/onhost/domains.py",
        (('if domain["state"] != virsh.OFF]', 'if domain["state"] == "running"]'),),
        ONHOST[1:],
    ),
    Breakage(
        "process-without-domain-is-off",
        "a qemu process that libvirt has lost does not count",
        MODEL,
        (("        if p.uuid == vm.uuid or p.name == vm.name:\n", "        if False:\n"),),
        TRACES + STARTS + MOVES,
    ),
    Breakage(
        "wait-off-trusts-libvirt",
        "libvirt's word is enough although the qemu process is still there",
        "tasks/onhost/lifecycle.py",
        (
            ("            if ended_at is not None or not seen:\n", "            if True:\n"),
            ("        if processes.with_uuid(uuid):\n            return False\n", ""),
        ),
        ONHOST,
    ),
    Breakage(
        "wait-off-trusts-the-process-table",
        "the end of the process is enough although libvirt does not call it off",
        "tasks/onhost/lifecycle.py",
        (
            (
                "        if found is None or found[0] == virsh.OFF:\n            return True\n",
                "        return True\n",
            ),
        ),
        ONHOST,
    ),
    Breakage(
        "unknown-domain-is-off",
        "a domain that libvirt does not know is off although its process lives",
        "tasks/onhost/lifecycle.py",
        (
            (
                'return "no domain, but a qemu process" if processes.with_uuid(uuid) else virsh.OFF',
                "return virsh.OFF",
            ),
        ),
        ONHOST,
    ),
)

START_ONCE = (
    Breakage(
        "start-is-resent",
        "a start whose answer was lost is sent again",
        STARTING,
        (
            (
                'state, answered = f"{host} does not run it", True\n',
                'state, answered = f"{host} does not run it", True\n'
                "                self._lock.hold_through(host)\n"
                "                self._lock.holder().start(self._vm.uuid)\n",
            ),
        ),
        MOVES + STARTS,
    ),
    Breakage(
        "unanswered-start-is-forgotten",
        "a VM is started elsewhere although a host may still carry out its start",
        STARTING,
        (("if self._unanswered is not None and self._unanswered != host:", "if False:"),),
        (*MOVES, "tests/domain/test_move_every_fault.py"),
    ),
    Breakage(
        "lock-of-another-link",
        "a lock that was lost with its link counts as held through the new one",
        "tasks/cluster/store/locks.py",
        (("                if self._holder is ops:\n", "                if self._holder is not None:\n"),),
        MOVES + STARTS,
    ),
    Breakage(
        "start-without-its-lock",
        "a start goes over a new link after the one that held the lock was lost",
        STARTING,
        (("        ops = self._lock.holder()\n", "        ops = self._session.host(host)\n"),),
        MOVES + STARTS,
    ),
    Breakage(
        "lock-ends-before-libvirt-is-done",
        "when the agent ends, its locks are free although libvirt still carries out its start",
        "tasks/onhost/lifecycle.py",
        (("change=True, keep=locks)", "change=True)"),),
        AGENT,
    ),
    Breakage(
        "no-lock",
        "the VM's lock is never taken: two operators may work on it",
        "tasks/cluster/store/locks.py",
        (
            (
                "                if self._holder is ops:\n",
                "                self._holder = ops\n                if True:\n",
            ),
        ),
        MOVES + STARTS,
    ),
    Breakage(
        "end-is-not-verified",
        "a move counts as good although the VM runs elsewhere at its end",
        "tasks/cluster/moving/relocate.py",
        (
            (
                "    if where == (move.target,) and not after.unsure():\n        return outcome\n",
                "    return outcome\n",
            ),
        ),
        MOVES,
    ),
    Breakage(
        "source-keeps-the-name",
        "the source's running_vms and autostart still name the VM when it starts elsewhere",
        MOVE,
        (("            self._release_source()\n", "            return\n"),),
        MOVES,
    ),
    Breakage(
        "others-keep-the-name",
        "vm.start leaves the VM's name in other hosts' running_vms",
        "tasks/cluster/vm/start.py",
        (("            self._release_others()\n", ""),),
        STARTS,
    ),
    Breakage(
        "autostart-on-the-target",
        "libvirt's autostart stays on where the VM is defined",
        MOVE,
        (("                if autostart:\n", "                if False:\n"),),
        MOVES,
    ),
)

IMAGES = (
    Breakage(
        "shared-image-is-no-reason",
        "another VM that writes the same image does not count",
        MODEL,
        (
            ("elif shared := d.images & images:", "elif shared := frozenset():"),
            ("elif shared := p.images & images:", "elif shared := frozenset():"),
        ),
        STARTS + PLANS,
    ),
    Breakage(
        "any-store-will-do",
        "the target's store is not compared with the source's",
        "tasks/cluster/planning/targets.py",
        (('    found = {f"store {vm.facts.store.store_id}"}\n', "    found = set[str]()\n"),),
        PLANS,
    ),
    Breakage(
        "store-lost-meanwhile",
        "nobody looks whether the host that is to start it still has the store",
        STARTING,
        (("        if trace.stores[host]:\n", "        if False:\n"),),
        MOVES + STARTS,
    ),
    Breakage(
        "managed-save-is-no-reason",
        "a VM moves although old memory of it is kept on a host",
        "tasks/cluster/planning/eligibility.py",
        (("        if domain.managed_save:\n", "        if False:\n"),),
        PLANS,
    ),
)

GUARD = (
    Breakage(
        "hook-never-claims",
        "a start leaves no owner behind",
        HOOK_FILE,
        (
            (
                '                changes["owners", key] = {"image": key, "path": path, **mine}\n',
                "                pass\n",
            ),
        ),
        HOOK,
    ),
    Breakage(
        "hook-ignores-the-owner",
        "an image that another host owns may be started",
        HOOK_FILE,
        (("    if owner is None:\n        return\n    here, this_boot", "    return\n    here, this_boot"),),
        HOOK,
    ),
    Breakage(
        "hook-fails-open-on-silence",
        "a store that hangs does not hinder a start",
        HOOK_FILE,
        (
            (
                '            raise Refusal(f"{MOUNT} does not answer within {seconds:g} s")\n',
                "            return None\n",
            ),
        ),
        HOOK,
    ),
    Breakage(
        "hook-fails-open-on-nonsense",
        "an owner file that is not understood is nobody's",
        HOOK_FILE,
        (
            (
                '        raise Refusal(f"the owner file of its image {path} is not understood") from None\n',
                '        return {"host": HOST, "uuid": "", "boot_id": "", "readers": []}\n',
            ),
        ),
        HOOK,
    ),
    Breakage(
        "hook-fails-open-on-xml",
        "a definition that is not understood may be started",
        HOOK_FILE,
        (
            (
                '            raise Refusal(f"its definition is not understood ({error})") from None\n',
                "            sys.exit(0)\n",
            ),
        ),
        HOOK,
    ),
    Breakage(
        "hook-without-the-mount",
        "owners are looked up in the bare folder below the mount point",
        HOOK_FILE,
        (
            (
                "is_mount(root):\n            raise Refusal(",
                "is_mount(root) and False:\n            raise Refusal(",
            ),
        ),
        HOOK,
    ),
    Breakage(
        "hook-believes-the-spelling",
        "an image is known by its path, so that a link to it is another image",
        HOOK_FILE,
        (('        return f"store:{found.st_ino}"\n', '        return f"store:{image.path}"\n'),),
        HOOK,
    ),
    Breakage(
        "hook-gives-back-anybodys",
        "the end of a VM here gives back what another host has claimed",
        HOOK_FILE,
        (('if (owner["host"], owner["boot_id"]) == me:\n', "if True:\n"),),
        HOOK,
    ),
    Breakage(
        "hook-takes-any-start-for-an-arrival",
        "a start by hand gets what only an announced migration may have",
        HOOK_FILE,
        (("    arriving = arrives(vm.uuid)\n", "    arriving = True\n"),),
        HOOK,
    ),
    Breakage(
        "hook-without-its-lock",
        "two hosts read and write owners at the same time",
        HOOK_FILE,
        (("        fcntl.flock(self.lock, fcntl.LOCK_EX)\n", ""),),
        HOOK,
    ),
)

ON_THE_WAY = (
    Breakage(
        "owner-is-lost-on-the-way",
        "the end of a VM on the source of its migration gives away what the target writes",
        HOOK_FILE,
        (("= {**rest, **to} if to else {}\n", "= {}\n"),),
        MIGRATIONS + HOOK,
    ),
    Breakage(
        "source-may-start-what-has-left",
        "the source of a migration that is under way may start the VM once more",
        HOOK_FILE,
        (("    if here and to is None:\n        pid = 0", "    if here:\n        pid = 0"),),
        MIGRATIONS + HOOK,
    ),
    Breakage(
        "end-of-a-living-process",
        "the end that libvirt tells of gives the images back although the process still writes",
        HOOK_FILE,
        (
            (
                '    if pid:\n        raise Refusal(f"its process {pid} is still alive here, so',
                '    if False:\n        raise Refusal(f"its process {pid} is still alive here, so',
            ),
        ),
        TENDER + HOOK,
    ),
    Breakage(
        "settled-while-both-live",
        "the source of a migration takes its images back although the target lives",
        HOOK_FILE,
        (
            (
                'owner["host"] == HOST and believed and to["host"] in dead:',
                'owner["host"] == HOST and believed:',
            ),
        ),
        TENDER + MIGRATIONS,
    ),
    Breakage(
        "settled-without-running-it",
        "the target of a migration takes the images although it does not run the VM",
        HOOK_FILE,
        (
            (
                'to["host"] == HOST and believed and owner["host"] in dead:',
                'to["host"] == HOST and owner["host"] in dead:',
            ),
        ),
        MIGRATIONS + TENDER,
    ),
    Breakage(
        "arriving-is-running",
        "a VM that is still migrating counts as one that runs",
        TENDER_FILE,
        (('status.get("state") == "running" and not under_way\n', "True\n"),),
        TENDER + MIGRATIONS,
    ),
    Breakage(
        "silent-for-a-moment-is-dead",
        "a host whose lock was free once counts as dead, whatever beats it gives",
        TENDER_FILE,
        (
            ("        if known != beat:\n", "        if False:\n"),
            ("        return time.monotonic() - since > SILENCE\n", "        return True\n"),
        ),
        TENDER,
    ),
    Breakage(
        "stopped-service-is-a-dead-side",
        "a free lock that somebody gave back counts as the death of its host",
        TENDER_FILE,
        (
            (
                '        if not pulse["free"] or alive_without_lock(pulse["lock"]):\n',
                '        if not pulse["free"]:\n',
            ),
        ),
        TENDER,
    ),
    Breakage(
        "tender-claims-nothing",
        "a disk that is plugged into a running VM stays nobody's",
        TENDER_FILE,
        (("                ask(partial(hook.claim_plugged, vm))\n", "                pass\n"),),
        TENDER,
    ),
    Breakage(
        "tender-gives-back-at-a-new-start",
        "what an end has left is given back although the VM is about to run again",
        HOOK_FILE,
        (('        if os.path.exists(f"{NOTES}/left/{uuid}"):\n', "        if True:\n"),),
        MIGRATIONS + TENDER,
    ),
)

AFTER_A_BOOT = (
    Breakage(
        "restart-without-the-mount",
        "VMs are started although the store is not mounted",
        RESTART_FILE,
        (("wait_for {{ mount_deadline }} reach_store || give_up", "true || give_up"),),
        RESTART,
    ),
    Breakage(
        "restart-without-the-lock",
        "a VM is started while vmfab is moving it",
        RESTART_FILE,
        (("    if ! flock -w 30 8; then\n", "    if false; then\n"),),
        RESTART,
    ),
    Breakage(
        "restart-of-what-has-left",
        "a VM is started although its name has gone from the list",
        RESTART_FILE,
        (('    if ! names | grep -qxF -e "$1"; then\n', "    if false; then\n"),),
        RESTART,
    ),
    Breakage(
        "restart-of-a-managed-save",
        "old memory meets a disk that may have changed",
        RESTART_FILE,
        (("    case $saved in\n", "    case - in\n"),),
        RESTART,
    ),
)

DEAD_HOSTS = (
    Breakage(
        "a-stopped-service-is-a-dead-host",
        "evacuate takes a lock that somebody gave back for the death of its host",
        "tasks/cluster/evacuate/liveness.py",
        (("    if not going_down:\n", "    if False:\n"),),
        EVACUATION,
    ),
    Breakage(
        "signs-of-life-are-not-seen",
        "evacuate goes on although the host gives signs of life",
        FENCING,
        (("if self._stat()[0] != self._beat:", "if False:"),),
        EVACUATION,
    ),
    Breakage(
        "something-answers-there",
        "evacuate takes a host whose ssh lets nobody in for a dead one",
        FENCING,
        (("    if seen.alive:\n", "    if False:\n"),),
        EVACUATION,
    ),
    Breakage(
        "others-need-not-answer",
        "evacuate does without the hosts that do not answer",
        FENCING,
        (("    if how:\n", "    if False:\n"),),
        EVACUATION,
    ),
    Breakage(
        "silence-is-proof-enough",
        "evacuate goes on whatever piece of the proof is missing",
        "tasks/cli/evacuation.py",
        (("    if not missing:\n        return\n", "    return\n"),),
        EVACUATION,
    ),
    Breakage(
        "evacuate-without-the-lock",
        "evacuate reads the dead host's lock and never takes it",
        FENCING,
        (("text = ops.store_seize(self._path)\n", 'text = ops.store_read(self._path) or ""\n'),),
        EVACUATION,
    ),
    Breakage(
        "lost-lock-is-not-noticed",
        "evacuate goes on although it holds the dead host's lock no more",
        FENCING,
        (("            if not self._ops.store_holds(self._path):\n", "            if False:\n"),),
        EVACUATION,
    ),
    Breakage(
        "owners-stay-with-the-dead",
        "evacuate starts VMs without making their new hosts the owners",
        EVACUATING,
        (('                ops.store_swap("locks/owners", changes)\n', "                pass\n"),),
        EVACUATION,
    ),
    Breakage(
        "return-is-not-expected",
        "the restart script of a host that comes back is not told which of its VMs were taken away",
        EVACUATING,
        (("        self._store.append(comeback.path_of(move.source), comeback.line_of(move.vm))\n", ""),),
        EVACUATION,
    ),
    Breakage(
        "the-dead-stay-dead",
        "the proof that a host is dead is not asked for again before a start",
        "tasks/cluster/asking/session.py",
        (("if problem := fence.result() if fence.done() else late:", 'if problem := "":'),),
        EVACUATION,
    ),
)

ALL = (
    ASK_EVERYBODY + UNKNOWN_IS_NOT_OFF + START_ONCE + IMAGES + GUARD + ON_THE_WAY + AFTER_A_BOOT + DEAD_HOSTS
)

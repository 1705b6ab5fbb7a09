"""The namespace of vmfab: what an operator can type. Nothing else belongs here."""

from invoke import Collection

from tasks import (
    audit,
    check,
    demo,
    drain,
    evacuate,
    history,
    host,
    hostsetup,
    hostverify,
    labtasks,
    migrate,
    resume,
    status,
    vm,
    vmdefinitions,
    vmpower,
)
from tasks.cli import executor

executor.install()

ns = Collection(
    audit.audit,
    check.test,
    demo.demo,
    drain.drain,
    drain.undrain,
    evacuate.evacuate,
    history.history,
    migrate.migrate,
    resume.resume,
    status.status,
)

hosts = Collection.from_module(host)
for step in Collection.from_module(hostsetup).tasks.values():
    hosts.add_task(step)
hosts.add_task(hostverify.verify)
ns.add_collection(hosts)
ns.add_collection(Collection.from_module(labtasks), name="lab")

vms = Collection.from_module(vm)
vms.add_task(vmpower.start)
vms.add_task(vmpower.shutdown)
vms.add_task(vmpower.destroy)
vms.add_task(vmpower.reboot)
vms.add_task(vmdefinitions.define)
vms.add_task(vmdefinitions.undefine)
vms.add_task(vmdefinitions.dumpxml)
ns.add_collection(vms)

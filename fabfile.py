"""The namespace of vmfab: what an operator can type. Nothing else belongs here."""

from invoke import Collection

from tasks import check, drain, host, labtasks, migrate, status
from tasks.cli import executor

executor.install()

ns = Collection(check.test, drain.drain, drain.undrain, migrate.migrate, status.status)
ns.add_collection(Collection.from_module(host))
ns.add_collection(Collection.from_module(labtasks), name="lab")

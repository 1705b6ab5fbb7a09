"""The namespace of vmfab: what an operator can type. Nothing else belongs here."""

from invoke import Collection

from tasks import check, host, status
from tasks.cli import executor

executor.install()

ns = Collection(check.test, status.status)
ns.add_collection(Collection.from_module(host))

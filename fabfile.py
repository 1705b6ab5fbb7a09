"""The namespace of vmfab: what an operator can type. Nothing else belongs here."""

from invoke import Collection

from tasks import check, status
from tasks.cli import executor

executor.install()

ns = Collection(check.test, status.status)

"""libvirt's domains with their facts, by as few virsh processes as that takes: two."""

from __future__ import annotations

import time

from . import virsh
from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Domains asked about by one virsh: the kernel limits one argument to 128 KiB.
_AT_ONCE = 200
_NO_DRIVER = ("not supported by the connection driver", "virtnetworkd-sock", "no connection driver available")


def everything(*, xml: bool, timeout: float) -> dict[str, Any]:
    """version, networks (active ones) and domains, with definitions if `xml`.

    Raises Problem no-libvirt, libvirt-silent, virsh or bug.
    """
    until = time.monotonic() + timeout
    # The list of domains comes last: "none" and "failed" must never be mixed up, and the rc is the last's.
    asked = ["version --daemon", "net-list --name", "list --all --uuid"]
    (version, networks, listed), errors, rc = virsh.script(asked, timeout=timeout)
    if rc != 0:
        raise virsh.refusal(errors, rc)
    details = ["dominfo {}", "domstate {} --reason"]
    if xml:
        details += ["dumpxml {} --inactive --security-info", "dumpxml {}"]
    domains = _settled(virsh.uuids(listed), details, until, relist=["list", "--all", "--uuid"])
    for domain in domains:
        parts = domain.pop("parts")
        domain["xml"] = parts[0] if xml else ""
        domain["live_xml"] = parts[1] if xml and domain["state"] != virsh.OFF else ""
    # A host without a working QEMU tells no version, and may yet have domains.
    told = virsh.daemon_version(version) if version else ""
    return {"version": told, "networks": _networks(networks, errors), "domains": domains}


def active(*, timeout: float) -> list[dict[str, Any]]:
    """Domains that libvirt lists as active, with the XML of the running instance. Raises as `everything`."""
    until = time.monotonic() + timeout
    relist = ["list", "--uuid"]
    listed = virsh.run(*relist, timeout=timeout)
    details = ["dominfo {}", "domstate {} --reason", "dumpxml {}"]
    domains = _settled(virsh.uuids(listed), details, until, relist=relist)
    for domain in domains:
        domain["xml"], domain["live_xml"] = "", domain.pop("parts")[0]
    return [domain for domain in domains if domain["state"] != virsh.OFF]


def _networks(text: str, errors: str) -> list[str]:
    """Names of active networks; a libvirt without networks has none, any other failure is a Problem."""
    if not text and "networks" in errors and not any(words in errors for words in _NO_DRIVER):
        raise virsh.refusal(errors, 1)
    return virsh.names(text)


def _settled(uuids: list[str], details: list[str], until: float, relist: list[str]) -> list[dict[str, Any]]:
    """Facts of the domains; when some were undefined between two questions, the list is asked for again."""
    for _ in range(3):
        domains, missing = _details(uuids, details, until)
        if not missing:
            return domains
        uuids = virsh.uuids(virsh.run(*relist, timeout=_left(until)))
        if not missing & set(uuids):
            return domains
    raise Problem("virsh", f"libvirt lists domains that it cannot find: {', '.join(sorted(missing))}")


def _details(uuids: list[str], details: list[str], until: float) -> tuple[list[dict[str, Any]], set[str]]:
    found: list[dict[str, Any]] = []
    missing: set[str] = set()
    for first in range(0, len(uuids), _AT_ONCE):
        group = uuids[first : first + _AT_ONCE]
        parts, errors, _ = virsh.script([d.format(u) for u in group for d in details], timeout=_left(until))
        for index, uuid in enumerate(group):
            own = parts[index * len(details) : (index + 1) * len(details)]
            if not all(own):
                if not virsh.gone(errors):
                    raise Problem("virsh", errors.strip() or f"virsh says nothing about domain {uuid}")
                missing.add(uuid)
                continue
            domain = virsh.info(own[0])
            domain["state"], domain["reason"] = virsh.state(own[1])
            domain["parts"] = own[2:]
            found.append(domain)
    return found, missing


def _left(until: float) -> float:
    return max(0.5, until - time.monotonic())

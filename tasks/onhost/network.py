"""The host's network as the kernel and its configuration have it, and netplan's opinion of a new one."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile

from . import children, files
from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Where netplan reads, the later before the earlier for files of the same name.
_RUN = "/run/netplan"
_NETPLAN = ("/lib/netplan", "/usr/lib/netplan", "/etc/netplan", _RUN)
#: What else may configure an interface.
_OTHERS = ("/etc/network/interfaces", "/etc/network/interfaces.d/*", "/etc/systemd/network/*.network")
#: Where a change that is being tried has its files, see templates/netplan-change.sh.j2.
TRIAL = "/run/vmfab/bridge"
BACK = "vmfab-netplan-back"
#: Seconds for one of the programs asked.
_PATIENCE = 5.0


def facts() -> dict[str, Any]:
    """Links with addresses, routes of the main table, name servers by link, configuration files, programs."""
    links, four, six, dns, domains, timer = children.together(
        lambda: _ip("-d", "addr", "show"),
        lambda: _ip("-4", "route", "show", "table", "main"),
        lambda: _ip("-6", "route", "show", "table", "main"),
        lambda: _said("resolvectl", "dns"),
        lambda: _said("resolvectl", "domain"),
        lambda: _said("systemctl", "is-active", f"{BACK}.timer", f"{BACK}.service"),
    )
    tried = set(_names(f"{TRIAL}/netplan"))
    return {
        "links": links,
        "routes": [{**route, "family": "inet"} for route in four]
        + [{**route, "family": "inet6"} for route in six],
        "dns": dns,
        "domains": domains,
        "devices": {name: _device(name) for name in _names("/sys/class/net")},
        "netplan": [
            {"path": path, "text": text}
            for folder in _NETPLAN
            if os.path.realpath(folder) == folder  # on most systems /lib is another name of /usr/lib
            for path, text in _texts(f"{folder}/*.yaml")
            if not (folder == _RUN and os.path.basename(path) in tried)
        ],
        "others": [{"path": path, "text": text} for others in _OTHERS for path, text in _texts(others)],
        "programs": [name for name in ("netplan", "systemd-run", "resolvectl") if _which(name)],
        "systemd": os.path.isdir("/run/systemd/system"),
        "cloud_init": os.path.exists("/etc/cloud/cloud.cfg"),
        "trying": any(word in ("active", "activating") for word in timer.split()),
    }


def check(texts: dict[str, str]) -> dict[str, Any]:
    """What netplan says to these files of /etc/netplan, by name, off to the side: {rc, said}."""
    folder = tempfile.mkdtemp(prefix="vmfab-netplan-")
    try:
        os.makedirs(f"{folder}/etc/netplan")
        for name, text in texts.items():
            path = f"{folder}/etc/netplan/{os.path.basename(name)}"
            with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as file:
                file.write(text)
        program = _which("netplan")
        if program is None:
            raise Problem("bad-request", "netplan: No such file or directory")
        rc, out, err = children.run([program, "generate", "--root-dir", folder], timeout=20.0)
        return {"rc": rc, "said": (err or out).replace(folder, "")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _which(name: str) -> str | None:
    return shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def _ip(*words: str) -> Any:
    program = _which("ip")
    if program is None:
        raise Problem("bad-request", "ip: No such file or directory")
    rc, out, err = children.run([program, "-j", *words], timeout=_PATIENCE)
    if rc != 0:
        raise Problem("bug", f"ip {' '.join(words)}: {err.strip()}")
    return [entry for entry in json.loads(out or "[]") if entry]


def _said(name: str, *words: str) -> str:
    """What a program prints, if it is there; one that fails has nothing to say."""
    program = _which(name)
    return children.run([program, *words], timeout=_PATIENCE)[1] if program else ""


def _device(name: str) -> dict[str, Any]:
    """What only /sys knows of a link: its driver, "" for a virtual one, and whether it is wireless."""
    base = f"/sys/class/net/{name}"
    driver = os.path.basename(os.path.realpath(f"{base}/device/driver"))
    return {
        "driver": driver if os.path.exists(f"{base}/device/driver") else "",
        "wireless": os.path.exists(f"{base}/wireless") or os.path.exists(f"{base}/phy80211"),
    }


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _texts(pattern: str) -> list[tuple[str, str]]:
    found = []
    for path in sorted(glob.glob(pattern)):
        if os.path.isfile(path):
            text = files.read(os.path.realpath(path))["text"]
            if text is not None:
                found.append((path, text))
    return found

"""A simulated host's network: netplan's files, the links they make, a change that takes itself back."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from tests.sim.errors import AgentError

if TYPE_CHECKING:
    from tests.sim.host import SimHost

WORK = "/run/vmfab/bridge"
NIC, STORAGE_NIC = "eno1", "eno2"
MAC = "52:54:00:00:01:{:02x}"
BY_HAND = """\
network:
  version: 2
  ethernets:
    eno1: {{}}
  bridges:
    br0:
      interfaces: [eno1]
      addresses: [{address}/24]
      routes: [{{to: default, via: 192.0.2.254}}]
      parameters: {{stp: false}}
"""
#: As Ubuntu's installer leaves it.
UNBRIDGED = """\
network:
  ethernets:
    eno1:
      addresses:
      - {address}/24
      nameservers:
        addresses: [192.0.2.253]
        search: [example.org]
      routes:
      - to: default
        via: 192.0.2.254
  version: 2
"""


class SimLan:
    """Two NICs. The switch carries untagged frames, and no VLAN at all."""

    def __init__(self, host: SimHost, number: int) -> None:
        self._host = host
        self._number = number
        self.address = f"192.0.2.{number}"
        self.etc = {"/etc/netplan/00-lan.yaml": BY_HAND.format(address=self.address)}
        self.run: dict[str, str] = {}
        self.cloud_init = False
        self.systemd = True
        #: what netplan says to all that it is given
        self.complaint = ""
        #: links of VMs in a bridge
        self.taps: dict[str, str] = {}
        self.links: dict[str, dict[str, Any]] = {}
        self.connected = True
        self._state = ""
        self._trial = 0
        self.apply()

    def unbridge(self, name: str = "50-cloud-init.yaml", text: str = UNBRIDGED) -> None:
        """Make it a host as its installer leaves it."""
        self.etc = {f"/etc/netplan/{name}": text.format(address=self.address)}
        self.links = {}
        self.apply()

    # -- what the kernel and netplan do --------------------------------------------------------------

    def in_force(self) -> dict[str, Any]:
        """All entries, by section."""
        by_name = {PurePosixPath(p).name: text for p, text in {**self.etc, **self.run}.items()}
        sections: dict[str, Any] = {}
        for name in sorted(by_name):
            network = (yaml.load(by_name[name], Loader=yaml.BaseLoader) or {}).get("network", {})
            for section, entries in network.items():
                if isinstance(entries, dict):
                    for entry, body in entries.items():
                        sections.setdefault(section, {}).setdefault(entry, {}).update(body or {})
        return sections

    def apply(self) -> None:
        """As netplan apply: makes and changes links, takes none away."""
        found = self.in_force()
        for number, name in enumerate((NIC, STORAGE_NIC)):
            self.links.setdefault(name, {"mac": MAC.format(2 * self._number + number), "mtu": 1500})
            self.links[name].update(addresses=[], master=None)
        for name, body in found.get("vlans", {}).items():
            self.links[name] = {"kind": "vlan", "parent": body["link"], "vlan": int(body["id"])}
        for name in found.get("bridges", {}):
            self.links[name] = {"kind": "bridge"}
        for section in found.values():
            for name, body in section.items():
                link = self.links[name]
                link.setdefault("mac", body.get("macaddress", MAC.format(2 * self._number)))
                link.update(addresses=body.get("addresses", []), mtu=int(body.get("mtu", 1500)))
        for name, body in found.get("bridges", {}).items():
            for port in body.get("interfaces", []):
                self.links[port]["master"] = name
        self._connect()

    def _connect(self) -> None:
        """Whether the host can be reached now: it has its address where the switch carries it."""
        holder = next((n for n, link in self.links.items() if f"{self.address}/24" in link["addresses"]), "")
        if self.links.get(holder, {}).get("kind") == "bridge":
            holder = next((n for n, link in self.links.items() if link.get("master") == holder), "")
        reached = holder == NIC
        if reached != self.connected:
            self.connected = reached
            self._host.cluster.note(self._host, f"network {'back' if reached else 'cut'} by netplan")
            if not reached:
                self._host.cluster.links_broken(self._host, grace=30.0)

    # -- what the agent asks -------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        return {
            "links": [
                {"ifname": "lo", "link_type": "loopback", "mtu": 65536, "addr_info": []},
                *(self._link(name, link) for name, link in self.links.items()),
                *(
                    {"ifname": tap, "mtu": 1500, "master": bridge, "linkinfo": {"info_kind": "tun"}}
                    for tap, bridge in self.taps.items()
                ),
            ],
            "routes": [
                {
                    "dst": "default",
                    "gateway": route["via"],
                    "dev": name,
                    "family": "inet",
                    "protocol": "static",
                    "flags": [],
                }
                for section in self.in_force().values()
                for name, body in section.items()
                for route in body.get("routes", [])
            ],
            "dns": f"Global:\nLink 2 ({NIC}): 192.0.2.253\n",
            "domains": "Global:\n",
            "devices": {NIC: {"driver": "e1000e", "wireless": False}},
            # What is being tried is not told.
            "netplan": [{"path": path, "text": text} for path, text in self.etc.items()],
            "others": [],
            "programs": [] if "netplan" in self._host.disk.missing else ["netplan", "systemd-run"],
            "systemd": self.systemd,
            "cloud_init": self.cloud_init,
            "trying": self._state in ("armed", "applied"),
        }

    def _link(self, name: str, link: dict[str, Any]) -> dict[str, Any]:
        info = {"info_kind": link["kind"]} if "kind" in link else {}
        if "vlan" in link:
            info["info_data"] = {"id": link["vlan"]}
        found = {"ifname": name, "address": link["mac"], "mtu": link["mtu"], "linkinfo": info}
        if link.get("master"):
            found["master"] = link["master"]
        if "parent" in link:
            found["link"] = link["parent"]
        addresses = [one.split("/") for one in link["addresses"]]
        found["addr_info"] = [
            {"family": "inet6" if ":" in ip else "inet", "local": ip, "prefixlen": int(n), "scope": "global"}
            for ip, n in addresses
        ]
        return found

    def check(self, files: dict[str, str]) -> dict[str, Any]:
        if "netplan" in self._host.disk.missing:
            raise AgentError("bad-request", "netplan: No such file or directory")
        said = self.complaint
        for name, text in files.items():
            if wrong := re.search(r"^ *dhcp[46]: (?!true|false|yes|no)(.*)$", text, re.MULTILINE):
                said = f"/etc/netplan/{name}: invalid boolean value '{wrong[1]}'"
        return {"rc": 1 if said else 0, "said": said}

    # -- the change and the way back -----------------------------------------------------------------

    def command(self, argv: list[str]) -> dict[str, Any] | None:
        """Run what a change consists of; None for any other program."""
        if argv == ["rm", "-rf", WORK]:
            self.forget()
        elif argv[:2] == ["sh", f"{WORK}/change.sh"]:
            rc = self._start() if argv[2] == "start" else self._keep()
            return {"rc": rc, "out": "", "err": "" if rc == 0 else "changed by somebody else meanwhile"}
        else:
            return None
        return {"rc": 0, "out": "", "err": ""}

    def forget(self) -> None:
        files = self._host.disk.files
        for path in [path for path in files if path.startswith(WORK)]:
            del files[path]

    def booted(self) -> None:
        """What is below /run is gone, and so are links that no file makes."""
        self.forget()
        self.run, self._state = {}, ""
        self.links = {}
        self.apply()

    def _say(self, state: str) -> None:
        self._state = state
        self._host.disk.files[f"{WORK}/state"] = (f"{state}\n", 0o600)

    def _written(self) -> dict[str, str]:
        """The files that the script is about, with their new texts."""
        words = shlex.split(self._script(), comments=True)
        return {
            words[n + 1]: words[n + 2] for n, word in enumerate(words) if word == "$1" and _path(words, n)
        }

    def _script(self) -> str:
        return self._host.disk.files[f"{WORK}/change.sh"][0]

    def _start(self) -> int:
        for path in self._written():
            if path in self.etc and "sha256sum <" + path not in self._script():
                return 1
        self._trial += 1
        number, boot = self._trial, self._host.boot_id
        made = re.findall(r"ip link delete dev (\S+)", self._script())
        seconds = re.search(r"--on-active=(\d+)", self._script())
        assert seconds is not None

        def current(state: str) -> bool:
            return (number, boot) == (self._trial, self._host.boot_id) and self._state == state

        def attempt() -> None:
            if current("armed"):
                self.run = self._written()
                self._say("applied")
                self.apply()

        def back() -> None:
            if current("armed") or current("applied"):
                self.run = {}
                for link in made:
                    self.links.pop(link, None)
                self._say("returned")
                self.apply()

        self._say("armed")
        self._host.cluster.after(1.0, attempt)
        self._host.cluster.after(float(seconds[1]), back)
        return 0

    def _keep(self) -> int:
        if self._state != "applied":
            return 1
        for path, text in self._written().items():
            self.etc.pop(path, None)
            if text:
                self.etc[path] = text
        self.run = {}
        self._say("kept")
        return 0


def _path(words: list[str], n: int) -> bool:
    return n + 2 < len(words) and words[n + 1].startswith("/etc/netplan/")

"""The package manager of a simulated host, its release and its kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.cluster.setup import packages, releases

Ended = tuple[int, str, str]

#: package -> the program that is missing without it
BRINGS = {"cron": "crontab", "logrotate": "logrotate", "minicom": "minicom"}
KERNEL = "6.1.0-49-amd64"
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'


@dataclass(slots=True)
class Apt:
    """What is installed, by package: its state as dpkg calls it. All that a host needs, unless it is bare."""

    os_release: str = DEBIAN
    kernel: str = KERNEL
    #: one that is installed as well
    other_kernel: str = ""
    #: packages with a kernel's modules for OCFS2; an empty name stands for what is always there
    ocfs2_in: frozenset[str] = frozenset({""})
    states: dict[str, str] = field(default_factory=lambda: _all("installed"))
    #: dpkg was killed before it had written down all it did
    interrupted: bool = False
    #: attempts for which another package manager holds the lock
    locked: int = 0
    #: package -> what apt-get says when it cannot be installed
    broken: dict[str, str] = field(default_factory=dict)
    #: command lines that changed something, or tried to
    history: list[list[str]] = field(default_factory=list)

    def strip(self) -> None:
        """Take all that a host needs away."""
        self.states.clear()

    @property
    def lacking(self) -> frozenset[str]:
        """Programs that are not there because their package is not."""
        return frozenset(p for name, p in BRINGS.items() if self.states.get(name) != "installed")

    def read(self, path: str) -> str | None:
        """The text of a file of the system's own."""
        return self.os_release if path == packages.OS_RELEASE else None

    def run(self, argv: Sequence[str]) -> Ended | None:
        """Run one of its programs; None when it is another's."""
        programs = {
            "uname": self._uname,
            "find": self._find,
            "dpkg-query": self._query,
            "dpkg": self._configure,
            "apt-get": self._apt_get,
        }
        program = programs.get(argv[0])
        return None if program is None else program(argv)

    def _uname(self, argv: Sequence[str]) -> Ended:
        return 0, f"{self.kernel}\n", ""

    def _find(self, argv: Sequence[str]) -> Ended:
        if argv[1] == packages.JOURNAL:
            return 0, f"{packages.JOURNAL}/0001\n" if self.interrupted else "", ""
        if argv[1] == "/boot":
            kernels = filter(None, (self.kernel, self.other_kernel))
            return 0, "boot\nmodules\n" + "".join(f"vmlinuz-{name}\n{name}\n" for name in kernels), ""
        kernel = argv[1].removeprefix("/lib/modules/").rstrip("/")
        holders = [name.format(kernel=kernel) for name in self.ocfs2_in]
        there = "" in holders or any(self.states.get(name) == "installed" for name in holders)
        return 0, f"{argv[1]}kernel/fs/ocfs2/ocfs2.ko\n" if there else "", ""

    def _query(self, argv: Sequence[str]) -> Ended:
        names = argv[3:] or sorted(self.states)
        unknown = [name for name in names if name not in self.states]
        out = "".join(f"{self.states[name]} {name}\n" for name in names if name in self.states)
        err = "".join(f"dpkg-query: no packages found matching {name}\n" for name in unknown)
        return (1 if unknown else 0), out, err

    def _configure(self, argv: Sequence[str]) -> Ended:
        self.history.append(list(argv))
        if self._is_locked():
            return 2, "dpkg: error: dpkg frontend lock was locked by another process with pid 7\n", ""
        self.interrupted = False
        self.states = dict.fromkeys(self.states, "installed")
        return 0, "", ""

    def _apt_get(self, argv: Sequence[str]) -> Ended:
        self.history.append(list(argv))
        if self._is_locked():
            return 100, "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7\n", ""
        if argv[1] == "update":
            return 0, "Reading package lists...\n", ""
        if self.interrupted:
            return 100, "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'\n", ""
        for name in _named(argv):
            if name in self.broken:
                return 100, f"Reading package lists...\nE: {self.broken[name]}\n", ""
            self.states[name] = "installed"
        return 0, "Setting up all of it ...\n", ""

    def _is_locked(self) -> bool:
        self.locked -= 1
        return self.locked >= 0


def _named(argv: Sequence[str]) -> list[str]:
    words = list(argv[2:])
    while "-o" in words:
        at = words.index("-o")
        del words[at : at + 2]
    return [word for word in words if not word.startswith("-")]


def _all(state: str) -> dict[str, str]:
    known: Mapping[str, None] = dict.fromkeys(p.name for p in releases.packages(releases.RELEASES[0]))
    return dict.fromkeys(known, state)

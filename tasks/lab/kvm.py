"""Find out whether KVM is of use here: /dev/kvm may exist and run nothing, or be slower than software."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

# A boot sector that tells QEMU's debug-exit device to end with code (0x10 << 1) | 1.
BOOT_SECTOR = bytes([0xB0, 0x10, 0xE6, 0xF4, 0xF4]).ljust(510, b"\0") + b"\x55\xaa"
EXIT_CODE = 33
#: Seconds for the tiny machine in software, at most.
SOFTWARE = 20.0
#: What KVM may take for it, which is little more than a start of QEMU: so many times as long, or seconds.
SLOWER = 1.5
QUICK = 1.0


def works(cache: Path) -> bool:
    """Run a tiny virtual machine in software and with KVM; the answer is remembered until the next boot."""
    if not Path("/dev/kvm").exists():
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    note = cache / "kvm.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["boot"] == boot:
            return bool(known["works"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no usable note: probe
    # Both at the same load: a KVM that emulates what it should run takes many times as long as software.
    software = _probe("tcg", SOFTWARE)
    answer = software is not None and _probe("kvm", max(QUICK, SLOWER * software)) is not None
    cache.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"boot": boot, "works": answer}) + "\n", encoding="utf-8")
    return answer


def _probe(accelerator: str, timeout: float) -> float | None:
    """Seconds until the machine ended as it should; None when it did not within `timeout` seconds."""
    begin = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".img") as disk:
        disk.write(BOOT_SECTOR.ljust(512 * 64, b"\0"))
        disk.flush()
        words = [
            "qemu-system-x86_64", "-accel", accelerator, "-machine", "pc", "-m", "16",
            "-nodefaults", "-display", "none",
            "-drive", f"file={disk.name},format=raw", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
            )
        except (subprocess.TimeoutExpired, FileNotFoundError):
            return None
    return time.monotonic() - begin if done.returncode == EXIT_CODE else None

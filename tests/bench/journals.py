"""Read from vmfab's journals when it went on after a VM's end."""

from __future__ import annotations

import json

from tasks.lab.lab import Lab


def went_on(lab: Lab) -> dict[str, float]:
    """For each VM's UUID the moment of the first step announced after its shutdown, latest journal last."""
    found: dict[str, float] = {}
    for path in sorted((lab.store / ".vmfab/moves").glob("*.json"), key=lambda p: p.stat().st_mtime):
        stopped = set()
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["line"] == "after" and line["step"] == "shutdown":
                stopped.add(line["uuid"])
            elif line["line"] == "before" and line["uuid"] in stopped:
                stopped.remove(line["uuid"])
                found[line["uuid"]] = line["t"]
    return found

"""What can be proved about all guests of a practice cluster, from their disks and from the machine itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.lab import law
from tasks.lab.guests import Guests


@dataclass(frozen=True)
class Standing:
    """One guest at one moment: where it runs, its boots and counter on disk, attempts to start it."""

    host: str
    boots: int
    counter: int
    starts: int


def standing(lab: Guests) -> dict[str, Standing]:
    """Take down how every guest stands.

    Raises LawBroken unless each runs exactly once and its disk is good.
    """
    law.check(lab)
    hosts: dict[str, list[str]] = {name: [] for name in lab.images()}
    for emulator in law.emulators(lab):
        hosts.setdefault(emulator.name, []).append(emulator.host)
    wrong = [f"{name} runs {len(where)} times" for name, where in hosts.items() if len(where) != 1]
    if wrong:
        raise law.LawBroken(f"Not every VM runs exactly once: {', '.join(wrong)}.")
    attempts = law.starts(lab)
    found = {}
    for name, (host,) in hosts.items():
        said = lab.testimony(name)
        starts = sum(start.name == name for start in attempts)
        found[name] = Standing(host, len(said.boots), said.counter, starts)
    return found


def doubts(
    before: Mapping[str, Standing], after: Mapping[str, Standing], moves: Mapping[str, int]
) -> list[str]:
    """Say what does not fit with each guest having been started `moves` times in between, and no more."""
    found = []
    for name, old in before.items():
        new, times = after[name], moves.get(name, 0)
        if new.counter <= old.counter:
            found.append(f"{name}: its counter stood at {old.counter} and stands at {new.counter}")
        if new.boots != old.boots + times:
            found.append(f"{name}: moved {times} times, but its disk tells of {new.boots - old.boots} boots")
        if new.starts != old.starts + times:
            found.append(f"{name}: moved {times} times, but started {new.starts - old.starts} times")
    return found

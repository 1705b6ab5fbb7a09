"""What is known about VMs on their way, and the words for it. No output happens here."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.cluster.events import Event, Phase

#: Phases that happen on the source and on the target; the others name the place or happen everywhere.
_ON_SOURCE = frozenset({Phase.SHUTTING_DOWN, Phase.DESTROYING, Phase.REBOOTED, Phase.STOPPED})
_ON_TARGET = frozenset({Phase.STARTING, Phase.WATCHING, Phase.STARTED})


@dataclass(slots=True)
class Line:
    """One VM: its latest event, and when (seconds, monotonic) the phase began and was last told of."""

    event: Event
    since: float
    told: float

    def waited(self, now: float) -> float:
        """Seconds in this phase."""
        return max(self.event.waited, now - self.since)


class Board:
    """The latest of every VM. Not safe for several threads by itself."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str, str], Line] = {}

    def update(self, event: Event, now: float) -> bool:
        """Take an event in; True when it is news (another phase, or something to say about it)."""
        key = (event.vm, event.source, event.target)
        line = self.lines.get(key)
        if line is None or line.event.phase is not event.phase:
            self.lines[key] = Line(event, now - event.waited, now)
            return True
        news = bool(event.detail) and event.detail != line.event.detail
        if news:
            line.told = now
        line.event = event
        return news

    def due(self, now: float, seconds: float) -> list[Line]:
        """Lines under way of which nothing was told for so many seconds; they count as told from now on."""
        late = [line for line in self.active() if now - line.told >= seconds]
        for line in late:
            line.told = now
        return late

    def active(self) -> list[Line]:
        """VMs under way, in the order in which they came."""
        return [
            line
            for line in self.lines.values()
            if not line.event.phase.final and line.event.phase is not Phase.WAITING
        ]

    def done(self) -> int:
        return sum(line.event.phase.final for line in self.lines.values())

    def waiting(self) -> int:
        return sum(line.event.phase is Phase.WAITING for line in self.lines.values())


def way(event: Event) -> str:
    """Where from and where to."""
    return " → ".join(host for host in (event.source, event.target) if host)


def phase_words(event: Event) -> str:
    """The phase with its place: "shutting down on vmhost1"."""
    host = ""
    if event.phase in _ON_SOURCE:
        host = event.source or event.target
    elif event.phase in _ON_TARGET:
        host = event.target or event.source
    if event.phase is Phase.MOVED and event.source and event.target:
        return f"{event.phase.value} from {event.source} to {event.target}"
    return f"{event.phase.value} on {host}" if host else event.phase.value


def spent(line: Line, now: float) -> str:
    """How long it has been in its phase: "12 s of 180 s"; empty below a second."""
    waited = line.waited(now)
    if line.event.phase.final or waited < 1:
        return ""
    limit = line.event.limit
    return f"{waited:.0f} s of {limit:.0f} s" if limit else f"{waited:.0f} s"


def sentence(event: Event) -> str:
    """A line for a log: "web: shutting down on vmhost1 (180 s at most)"."""
    more = [f"{event.limit:.0f} s at most"] if event.limit and not event.phase.final else []
    more += [event.detail] if event.detail else []
    return f"{event.vm}: {phase_words(event)}" + (f" ({'; '.join(more)})" if more else "")


def still(line: Line, now: float) -> str:
    """A sign of life for a log: "web: still shutting down on vmhost1, 24 s of 180 s"."""
    return f"{line.event.vm}: still {phase_words(line.event)}, {spent(line, now) or '0 s'}"

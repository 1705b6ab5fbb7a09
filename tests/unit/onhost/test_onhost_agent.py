"""The agent as it is shipped: sources over standard input, JSON lines over pipes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tasks.onhost import bootstrap
from tests.unit.onhost.fakes import FakeVirsh

ROOT = Path(__file__).parents[3]
MOUNT = "/dev/shm"


def pythons() -> list[str]:
    """This Python and the oldest that is on this machine."""
    names = (shutil.which(f"python3.{minor}") for minor in range(8, sys.version_info.minor))
    usable = [n for n in names if n and subprocess.run([n, "-c", ""], capture_output=True).returncode == 0]
    return [*usable[:1], sys.executable]


class Agent:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.events: list[Any] = []
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._number = 0

    def line(self) -> Any:
        return json.loads(self._out.readline())

    def raw(self, data: bytes) -> None:
        self._in.write(data)
        self._in.flush()

    def send(self, op: str, **args: Any) -> int:
        self._number += 1
        self.raw(json.dumps({"id": self._number, "op": op, "args": args, "deadline": 10}).encode() + b"\n")
        return self._number

    def call(self, op: str, **args: Any) -> Any:
        number = self.send(op, **args)
        while True:
            message = self.line()
            assert message["id"] == number
            if "event" not in message:
                return message
            self.events.append(message["event"])

    def ended(self, seconds: float = 5) -> int:
        return self.process.wait(timeout=seconds)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def pipes(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0)


def shipped(started: list[subprocess.Popen[bytes]], python: str = sys.executable) -> Agent:
    process = pipes(python, "-I", "-S", "-X", "utf8", "-c", bootstrap.BOOTSTRAP)
    started.append(process)
    agent = Agent(process)
    agent.raw(bootstrap.payload())
    assert agent.line()["hello"]["protocol"] == 1
    return agent


def changed(started: list[subprocess.Popen[bytes]], change: str) -> Agent:
    """The same loop with something set differently, which the shipped one has no switch for."""
    process = pipes(
        sys.executable, "-c", f"from tasks.onhost import serve, storechild, virsh; {change}; serve.main()"
    )
    started.append(process)
    agent = Agent(process)
    assert "hello" in agent.line()
    return agent


@pytest.mark.parametrize("python", pythons())
def test_it_greets_and_answers(started: list[subprocess.Popen[bytes]], python: str) -> None:
    process = pipes(python, "-I", "-S", "-c", bootstrap.BOOTSTRAP)
    started.append(process)
    agent = Agent(process)
    agent.raw(bootstrap.payload() + b'{"id": 0, "op": "ping", "args": {}}\n')
    hello = agent.line()["hello"]
    assert hello["host"] == os.uname().nodename
    assert hello["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert agent.line() == {"id": 0, "ok": {}}
    facts = agent.call("observe", mount=MOUNT, plan=False)["ok"]
    assert facts["store"]["mounted"] is True
    assert facts["memory_total_kib"] > facts["memory_available_kib"] > 0
    assert agent.call("nonsense")["error"]["kind"] == "bad-request"
    process.stdin.close() if process.stdin else None
    assert agent.ended() == 0


def test_every_module_is_shipped_and_stands_alone() -> None:
    data = bootstrap.payload()
    sources = json.loads(zlib.decompress(data[10:]))
    assert int(data[:10]) == len(data) - 10
    names = {p.stem for p in (ROOT / "tasks" / "onhost").glob("*.py")} - {"__init__", "bootstrap"}
    assert set(sources) == {bootstrap.PACKAGE, *(f"{bootstrap.PACKAGE}.{n}" for n in names)}


@pytest.mark.parametrize("args", [{}, {"uuid": "-x"}, {"uuid": "a b"}, {"uuid": None}, {"uuid": "web"}])
def test_domains_are_named_by_uuid_only(started: list[subprocess.Popen[bytes]], args: dict[str, Any]) -> None:
    agent = shipped(started)
    for op in ("start", "shutdown", "destroy", "undefine", "watch", "wait_off", "reboot"):
        more = {"graceful": True, "timeout": 1, "seconds": 1}
        assert agent.call(op, **args, **more)["error"]["kind"] == "bad-request"


def test_what_is_no_request_is_said_so(started: list[subprocess.Popen[bytes]]) -> None:
    agent = shipped(started)
    for line in (b"nonsense\n", b"[]\n", b'{"id": 1}\n', b'{"id": 1, "op": "ping", "args": []}\n'):
        agent.raw(line)
        assert agent.line()["error"]["kind"] == "bad-request"
    agent.raw(b'\n{"id": 5, "op"')
    agent.raw(b': "ping"}\n')
    assert agent.line() == {"id": 5, "ok": {}}


def test_a_slow_request_holds_up_no_other(started: list[subprocess.Popen[bytes]]) -> None:
    agent = shipped(started)
    slow = agent.send("command", argv=["sleep", "1"], timeout=5)
    assert agent.call("ping") == {"id": slow + 1, "ok": {}}
    assert agent.line() == {"id": slow, "ok": {"rc": 0, "out": "", "err": ""}}


def test_commands_are_argument_lists(started: list[subprocess.Popen[bytes]]) -> None:
    agent = shipped(started)
    text = "grün $(id) 'x'\n"
    assert agent.call("command", argv=["cat"], input=text, timeout=5)["ok"]["out"] == text
    assert agent.call("command", argv=["printf", "%s", "$HOME; id"], timeout=5)["ok"]["out"] == "$HOME; id"
    assert agent.call("command", argv=["sh", "-c", "echo x >&2; exit 3"], timeout=5)["ok"] == {
        "rc": 3,
        "out": "",
        "err": "x\n",
    }
    assert agent.call("command", argv=["sleep", "60"], timeout=0.2)["error"]["kind"] == "deadline"
    assert agent.call("command", argv=["no-such-program"], timeout=1)["error"]["kind"] == "bad-request"
    assert agent.call("command", argv="id", timeout=1)["error"]["kind"] == "bad-request"


def test_work_tells_what_it_is_at_and_leaves_a_log(
    started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    agent = shipped(started)
    log = tmp_path / "new folder" / "log"
    script = "echo one; printf 'two\\rthree'; sleep 1.3; echo $LC_ALL-$MORE >&2; exit 4"
    work = {"argv": ["sh", "-c", script], "timeout": 9, "log": str(log), "env": {"MORE": "x"}}
    assert agent.call("work", **work)["ok"] == {"rc": 4, "out": "one\ntwo\rthreeC-x\n"}
    (event,) = agent.events
    assert event["line"] == "three"
    assert 0.9 < event["waited"] < 3
    # The next work's output comes behind it, and only that is told.
    assert agent.call("work", **{**work, "argv": ["echo", "four"]})["ok"]["out"] == "four\n"
    assert log.read_bytes() == b"one\ntwo\rthreeC-x\nfour\n"
    for wrong in ({"argv": ["no-such-program"]}, {"argv": []}, {"env": {"A": 1}}, {"log": "relative"}):
        assert agent.call("work", **{**work, **wrong})["error"]["kind"] == "bad-request"


def test_work_goes_on_without_its_agent(started: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    agent = shipped(started)
    log, done = tmp_path / "log", tmp_path / "done"
    script = f"echo begun; sleep 0.6; echo still here; touch {done}"
    work = {"argv": ["sh", "-c", script], "log": str(log), "env": {}}
    error = agent.call("work", **work, timeout=0.2)["error"]
    assert error["kind"] == "deadline"
    assert str(log) in error["message"]
    wait_until(done.exists)
    done.unlink()
    agent.send("work", **work, timeout=60)
    wait_until(lambda: log.read_text().count("begun") == 2)
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert agent.ended() == 0
    wait_until(done.exists)
    assert log.read_text() == "begun\nstill here\n" * 2


def test_it_ends_with_its_input_and_takes_its_children_along(started: list[subprocess.Popen[bytes]]) -> None:
    agent = shipped(started)
    mark = f"{3600 + time.time():.6f}"
    agent.send("command", argv=["sleep", mark], timeout=60)
    assert agent.call("ping")
    wait_until(lambda: running(mark))
    agent.raw(b"")
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert agent.ended() == 0
    wait_until(lambda: not running(mark))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_on_signals(started: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    agent = shipped(started)
    agent.process.send_signal(number)
    assert agent.ended() == 0


def test_it_ends_when_nothing_is_heard(started: list[subprocess.Popen[bytes]]) -> None:
    agent = changed(started, "serve.SILENCE = 0.6")
    agent.send("command", argv=["sleep", "60"], timeout=60)
    for _ in range(4):
        time.sleep(0.3)
        assert agent.call("ping")
    assert agent.ended() == 0


def test_a_lock_lasts_as_long_as_its_agent(started: list[subprocess.Popen[bytes]]) -> None:
    folder = f".vmfab-test-{uuid4()}"
    try:
        first, second = (changed(started, f"storechild.FOLDER = '{folder}'") for _ in range(2))
        lock: dict[str, Any] = {"mount": MOUNT, "path": "locks/vm-1"}
        assert first.call("store.lock", **lock, holder='{"by": "first"}')["ok"] == {}
        refused = second.call("store.lock", **lock, holder='{"by": "second"}')["error"]
        assert refused["kind"] == "locked"
        told = json.loads(refused["message"])
        assert told == {"by": "first", "host": os.uname().nodename, "pid": first.process.pid}
        first.process.kill()
        first.ended()
        wait_until(lambda: "ok" in second.call("store.lock", **lock, holder='{"by": "second"}'))
    finally:
        shutil.rmtree(f"{MOUNT}/{folder}", ignore_errors=True)


def test_a_lock_outlives_its_agent_until_the_change_under_way_has_ended(
    started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    uuid = str(uuid4())
    fake = FakeVirsh(tmp_path, uuid)
    fake.put("state", "shut off (shutdown)")
    fake.put("slow", "1.5")
    folder = f".vmfab-test-{uuid4()}"
    change = f"storechild.FOLDER = '{folder}'; virsh._ENV['PATH'] = '{tmp_path}:/usr/bin:/bin'"
    try:
        first, second = changed(started, change), changed(started, change)
        lock: dict[str, Any] = {"mount": MOUNT, "path": f"locks/vm-{uuid}", "holder": "{}"}
        assert first.call("store.lock", **lock)["ok"] == {}
        first.send("start", uuid=uuid)
        wait_until(lambda: (tmp_path / "calls").exists())
        first.process.kill()
        first.ended()
        assert second.call("store.lock", **lock)["error"]["kind"] == "locked"
        wait_until(lambda: "ok" in second.call("store.lock", **lock))
        assert (tmp_path / "state").read_text() == "running (booted)\n"
    finally:
        shutil.rmtree(f"{MOUNT}/{folder}", ignore_errors=True)


def test_a_lock_given_back_during_a_change_is_free_at_once(
    started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    uuid = str(uuid4())
    fake = FakeVirsh(tmp_path, uuid)
    fake.put("slow", "2")
    folder = f".vmfab-test-{uuid4()}"
    change = f"storechild.FOLDER = '{folder}'; virsh._ENV['PATH'] = '{tmp_path}:/usr/bin:/bin'"
    agent = changed(started, change)
    try:
        lock = {"mount": MOUNT, "path": "locks/x"}
        assert agent.call("store.lock", **lock, holder="{}")["ok"] == {}
        agent.send("start", uuid=uuid)
        assert agent.call("store.unlock", **lock)["ok"] == {}
        assert agent.call("store.lock", **lock, holder="{}")["ok"] == {}
    finally:
        shutil.rmtree(f"{MOUNT}/{folder}", ignore_errors=True)


def wait_until(true: Any, seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def running(mark: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^sleep {mark}"], capture_output=True).returncode == 0

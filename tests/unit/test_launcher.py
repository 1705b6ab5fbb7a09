"""./fab, run for real in a folder of its own, with a stand-in for Fabric that tells how it was called."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from shlex import quote

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["cat", "cmp", "cp", "dirname", "env", "id", "ln", "mkdir", "readlink", "rm", "sed", "sh", "sleep"]

STAND_IN = """
import json, os, sys
def run():
    names = ("VMFAB_INVENTORY", "VMFAB_LAB", "VMFAB_CALL")
    print(json.dumps([os.getcwd(), sys.argv[1:], {n: os.environ[n] for n in names if n in os.environ}]))
"""


def wheel(folder: Path) -> str:
    """Make the stand-in's wheel and give its line in a lock file."""
    files = {
        "standin.py": STAND_IN,
        "fabric-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: fabric\nVersion: 0\n",
        "fabric-0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "fabric-0.dist-info/entry_points.txt": "[console_scripts]\nfab = standin:run\n",
    }
    digests = {name: hashlib.sha256(text.encode()).digest() for name, text in files.items()}
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(files[name])}\n"
        for name, digest in digests.items()
    )
    path = folder / "fabric-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {
            **files,
            "fabric-0.dist-info/RECORD": record + "fabric-0.dist-info/RECORD,,\n",
        }.items():
            archive.writestr(name, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"--no-index\n--find-links {folder}\nfabric==0 --hash=sha256:{digest}\n"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A fresh copy of what the launcher needs, in a folder with a space in its name."""
    here = tmp_path / "a clone"
    here.mkdir()
    shutil.copy(ROOT / "fab", here)
    development = "# development\nno-such-package==1 --hash=sha256:00\n"
    (here / "requirements.lock").write_text(wheel(tmp_path) + development)
    return here


@pytest.fixture
def made(bare: Path) -> Path:
    """The same after its set-up, but with an environment that costs nothing to make."""
    scripts = bare / ".venvs" / "1" / "bin"
    scripts.mkdir(parents=True)
    (bare / ".venv").symlink_to(".venvs/1")
    (scripts / "python").symlink_to(sys.executable)
    (scripts / "fab").write_text(f"#!{sys.executable}\n{STAND_IN}run()\n")
    (scripts / "fab").chmod(0o755)
    (bare / ".venv/made-at").write_text(f"{bare}\n")
    shutil.copy(bare / "requirements.lock", bare / ".venv/made-from")
    return bare


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for PATH with what every system has, but no Python and no uv."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    return folder


def program(path: Path, name: str, text: str) -> None:
    """Put a shell script on the PATH, in place of the link to the machine's own program."""
    (path / name).unlink(missing_ok=True)
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)


def real_python(path: Path) -> None:
    program(path, "python3", f'exec {Path(sys.executable).resolve()} "$@"')


def start(
    here: Path, *arguments: str, path: Path, cwd: Path | None = None, **env: str
) -> subprocess.Popen[str]:
    """Start ./fab with nothing in the environment but PATH and `env`: no HOME either."""
    return subprocess.Popen(
        [here / "fab", *arguments],
        cwd=cwd,
        env={"PATH": str(path), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def fab(here: Path, *arguments: str, path: Path, cwd: Path | None = None, **env: str) -> tuple[int, str, str]:
    """Run ./fab and give (exit code, standard output, standard error)."""
    run = start(here, *arguments, path=path, cwd=cwd, **env)
    out, err = run.communicate()
    return run.returncode, out, err


def told(out: str) -> tuple[Path, list[str], dict[str, str]]:
    """Give what the stand-in was called with: folder, arguments, settings."""
    cwd, arguments, settings = json.loads(out)
    return Path(cwd), arguments, settings


def test_set_up_is_made_once_and_again_for_another_lock(bare: Path, path: Path) -> None:
    real_python(path)
    code, out, err = fab(bare, "status", "--json", path=path)
    assert (code, told(out)[1]) == (0, ["--write-pyc", "--search-root", str(bare), "status", "--json"])
    assert "making the Python environment" in err
    first = (bare / ".venv").readlink()

    (path / "python3").unlink()  # from here on nothing may look for it
    code, out, err = fab(bare, "status", path=path)
    assert (code, err) == (0, "")

    real_python(path)
    with (bare / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    code, _, err = fab(bare, "status", path=path)
    assert code == 0
    assert "making the Python environment" in err
    assert (bare / ".venv").readlink() != first
    assert (bare / first / "bin" / "fab").exists(), "a task that still runs from the old one loses its files"


def test_two_at_once_make_one_environment(bare: Path, path: Path) -> None:
    real_python(path)
    runs = [start(bare, "status", path=path) for _ in range(2)]
    ends = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted("making the Python environment" in err for _, err in ends) == [False, True]
    assert len(list((bare / ".venvs").iterdir())) == 1


def test_killed_set_up_leaves_nothing_in_force(bare: Path, path: Path) -> None:
    real_python(path)
    run = start(bare, "status", path=path)
    while not list(bare.glob(".venvs/*/bin/python")):
        assert run.poll() is None
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert not (bare / ".venv").exists()

    code, _, err = fab(bare, "status", path=path)
    assert code == 0
    assert "making the Python environment" in err
    assert [folder.name for folder in (bare / ".venvs").iterdir()] == [(bare / ".venv").readlink().name]


def test_broken_python_and_uv_are_passed_over(bare: Path, path: Path) -> None:
    real_python(path)
    (path / "python3").rename(path / "python3.10")
    program(path, "python3", "exit 1")
    program(path, "uv", "echo uv is broken >&2; exit 1")
    code, out, err = fab(bare, "status", path=path)
    assert code == 0
    assert "uv is broken" in err
    assert told(out)[1][-1] == "status"


def test_foreign_folder_in_the_way_is_left_alone(bare: Path, path: Path) -> None:
    real_python(path)
    (bare / ".venv").mkdir()
    (bare / ".venv" / "letter").write_text("keep me")
    code, _, err = fab(bare, "status", path=path)
    assert code == 2
    assert "is in the way" in err
    assert (bare / ".venv" / "letter").read_text() == "keep me"


def test_no_python_says_what_to_install(bare: Path, path: Path) -> None:
    program(path, "python3.12", "echo 3.9 is too old; exit 1")
    code, out, err = fab(bare, "status", path=path)
    assert (code, out) == (2, "")
    assert "apt install python3 python3-venv" in err


def test_missing_venv_module_names_its_package(bare: Path, path: Path) -> None:
    program(path, "python3", f'case $* in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"')
    code, out, err = fab(bare, "status", path=path)
    assert (code, out) == (2, "")
    assert f"apt install python{sys.version_info.major}.{sys.version_info.minor}-venv" in err


@pytest.mark.parametrize("task", ["demo", "test"])
def test_root_gets_the_missing_venv_module(bare: Path, path: Path, tmp_path: Path, task: str) -> None:
    """On Debian and Ubuntu, where `fab test` runs."""
    installed = tmp_path / "installed"
    program(path, "python3", f"case $* in *ensurepip*) [ -e {installed} ] ;; *) exit 1 ;; esac")
    program(path, "id", "echo 0")
    program(path, "apt-get", f'echo "apt-get $*"; case $* in *python3-venv) : >{installed} ;; esac')
    _, out, err = fab(bare, task, path=path)
    assert out == ""
    assert "installing the Debian package python3-venv: vmfab needs" in err
    assert "apt-get -q install -y python3-venv" in err

    installed.unlink()
    code, out, err = fab(bare, "status", path=path)
    assert (code, out, installed.exists()) == (2, "", False)
    assert "apt install" in err


def test_folder_of_the_caller_stays(made: Path, path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    code, out, _ = fab(made, "vm.define", "web 1.xml", path=path, cwd=elsewhere)
    assert code == 0
    assert told(out)[:2] == (elsewhere, ["--write-pyc", "--search-root", str(made), "vm.define", "web 1.xml"])


def test_moved_clone_is_set_up_again(made: Path, path: Path) -> None:
    moved = made.rename(made.with_name("moved"))
    assert fab(moved, "status", path=path)[0] == 2  # there is no Python to make it with


@pytest.mark.parametrize("form", [["--inventory", "my hosts.ini"], ["--inventory=my hosts.ini"]])
def test_inventory_becomes_absolute(made: Path, path: Path, tmp_path: Path, form: list[str]) -> None:
    (tmp_path / "my hosts.ini").touch()
    code, out, _ = fab(made, *form, "status", path=path, cwd=tmp_path)
    assert code == 0
    assert told(out)[1:] == (
        ["--write-pyc", "--search-root", str(made), "status"],
        {
            "VMFAB_INVENTORY": str(tmp_path / "my hosts.ini"),
            "VMFAB_CALL": f"{quote(str(made / 'fab'))} --inventory 'my hosts.ini'",
        },
    )


@pytest.mark.parametrize(
    "arguments", [["--inventory"], ["--inventory", "none.ini", "status"], ["--inventory="]]
)
def test_bad_inventory_is_refused(made: Path, path: Path, arguments: list[str]) -> None:
    code, out, err = fab(made, *arguments, path=path)
    assert (code, out) == (2, "")
    assert "inventory" in err


def test_task_options_of_the_same_name_reach_the_task(made: Path, path: Path) -> None:
    code, out, _ = fab(made, "status", "--lab", "--inventory", "x", path=path)
    assert code == 0
    assert told(out)[1:] == (
        ["--write-pyc", "--search-root", str(made), "status", "--lab", "--inventory", "x"],
        {"VMFAB_CALL": quote(str(made / "fab"))},
    )


@pytest.mark.parametrize("pid", [None, "", "4194305", "self"])
def test_lab_that_is_not_up_is_refused(made: Path, path: Path, tmp_path: Path, pid: str | None) -> None:
    if pid is not None:
        (tmp_path / "laptop.pid").write_text(pid.replace("self", str(os.getpid())))
    code, out, err = fab(made, "--lab", "status", path=path, VMFAB_LAB=str(tmp_path))
    assert (code, out) == (2, "")
    assert "is not up. Type ./fab lab.up first." in err


def test_lab_enters_the_laptops_network(made: Path, path: Path, tmp_path: Path) -> None:
    laptop = subprocess.Popen(["/bin/sleep", "60"], env={"VMFAB_LAB_ROLE": "laptop"})
    try:
        (tmp_path / "laptop.pid").write_text(f"{laptop.pid}\n")
        program(path, "sudo", 'exec "$@"')
        (path / "grep").symlink_to("/bin/grep")
        program(path, "nsenter", f'[ "$1" = --net=/proc/{laptop.pid}/ns/net ] && shift 2 && exec "$@"')
        code, out, err = fab(made, "--lab", "-H", "a", "drain", path=path, cwd=tmp_path, VMFAB_LAB=".")
    finally:
        laptop.kill()
        laptop.wait()
    assert code == 0, err
    assert told(out)[1] == ["--write-pyc", "--search-root", str(made), "-H", "a", "drain"]
    assert Path(told(out)[2]["VMFAB_INVENTORY"]).resolve() == tmp_path / "hosts.ini"
    assert told(out)[2]["VMFAB_CALL"] == quote(str(made / "fab")) + " --lab"


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",), ("--inventory=none.ini",)])
def test_without_a_task_the_launcher_tells_its_options_and_all_tasks(
    made: Path, path: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "none.ini").touch()
    code, out, err = fab(made, *words, path=path, cwd=tmp_path)
    assert (code, err) == (0, "")
    *shown, asked = out.splitlines()
    assert told(asked)[1] == ["--write-pyc", "--search-root", str(made), "--list"]
    for option in ("--lab ", "--inventory FILE", "-H HOSTS", "--help TASK"):
        assert option in "\n".join(shown)


def test_lock_has_what_the_project_asks_for() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    runtime, development = (ROOT / "requirements.lock").read_text(encoding="utf-8").split("\n# development\n")
    for title, part in (("dependencies", runtime), ("dev", development)):
        listed = re.search(rf"^{title} = \[(.*?)^\]", settings, re.MULTILINE | re.DOTALL)
        assert listed is not None
        wanted = set(re.findall(r'^ *"([a-z0-9-]+)', listed[1], re.MULTILINE))
        assert wanted <= set(re.findall(r"^([a-z0-9-]+)==", part, re.MULTILINE))

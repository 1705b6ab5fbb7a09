"""The inventory: what Ansible understands, what vmfab makes of it, and what it says about mistakes."""

from __future__ import annotations

import ast
import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.cluster.errors import Refused
from tasks.cluster.inventory import ansible_ini, grouptree, hostpattern, settings
from tasks.cluster.inventory.inventory import DEFAULT_PATH, find, load, resolve, understand
from tasks.cluster.inventory.mistakes import MOST_SHOWN, Unreadable
from tasks.cluster.model import Console, Host, Inventory, StoreHost

DATA = Path(__file__).parent / "data" / "inventory"

SMALL = """\
[vmhosts]
vmhost[1:3]
[racks:children]
rack_a
[rack_a]
vmhost1 ansible_host=10.0.0.1
vmhost3
"""


def inventory(text: str, folder: Path = Path("/nowhere")) -> Inventory:
    return understand(text, folder / "hosts.ini")


def attempt(text: str) -> Inventory | Refused:
    try:
        return inventory(text)
    except Refused as refused:
        return refused


def complaint(text: str) -> str:
    with pytest.raises(Refused) as refused:
        inventory(text)
    assert refused.value.code == 2
    return str(refused.value)


# --- as Ansible reads it


def same(text: str, recorded: object) -> bool:
    """Whether our text is what Ansible made a value of."""
    if isinstance(recorded, str):
        return text == recorded
    value = ast.literal_eval(text)
    return (list(value) if isinstance(value, tuple) else value) == recorded


def members_in(listing: dict[str, Any], group: str) -> set[str]:
    found = set(listing.get(group, {}).get("hosts", ()))
    return found.union(*(members_in(listing, child) for child in listing.get(group, {}).get("children", ())))


@pytest.mark.parametrize(
    ("file", "recording"),
    [(DEFAULT_PATH, "hosts.json"), (DATA / "everything.ini", "everything.json")],
    ids=["hosts.ini", "everything.ini"],
)
def test_same_as_ansible(file: Path, recording: str) -> None:
    """The recordings are the output of `ansible-inventory -i FILE --list` (ansible-core 2.19.14)."""
    listing = json.loads((DATA / recording).read_text())
    ini = ansible_ini.read(file.read_text())
    assert ini.mistakes == []
    assert set(ini.hosts) == members_in(listing, "all")
    for name in ini.groups:
        assert set(ini.members(name)) == members_in(listing, name), name
    for host in ini.hosts:
        ours = {name: value.text for name, value in ini.variables(host).items()}
        recorded = listing["_meta"]["hostvars"].get(host, {})
        assert ours.keys() == recorded.keys(), host
        assert [n for n in ours if not same(ours[n], recorded[n])] == [], host


def test_order_of_a_group_is_that_of_the_file() -> None:
    assert ansible_ini.read("c\n[g]\nb\na\nc\n[h:children]\ng").members("h") == ("c", "b", "a")


small = st.integers(0, 30)


@given(
    first=small,
    length=small,
    step=st.integers(1, 7),
    width=st.integers(0, 4),
    tail=st.sampled_from(["", "-x", ".de"]),
)
def test_numbers_expand(first: int, length: int, step: int, width: int, tail: str) -> None:
    last = first + length
    width = width if len(str(last)) <= width else 0
    pattern = f"h[{first:0{width}d}:{last:0{width}d}:{step}]{tail}"
    padded = f"{first:0{width}d}"[0] == "0" and width > 1
    wanted = [f"h{n:0{width}d}{tail}" if padded else f"h{n}{tail}" for n in range(first, last + 1, step)]
    if padded or width == 0 or len(str(first)) == len(str(last)):
        assert hostpattern.expand(pattern) == (wanted, None)
        assert hostpattern.expand(f"{pattern}:2222") == (wanted, "2222")


@given(a=st.integers(0, 51), b=st.integers(0, 51), step=st.integers(1, 5))
def test_letters_expand(a: int, b: int, step: int) -> None:
    a, b = sorted((a, b))
    letters = string.ascii_letters
    names, port = hostpattern.expand(f"h[{letters[a]}:{letters[b]}:{step}]")
    assert names == [f"h{letter}" for letter in letters[a : b + 1 : step]]
    assert port is None


def test_several_ranges_expand_the_first_slowest() -> None:
    assert hostpattern.expand("h[1:2]-[a:b]")[0] == ["h1-a", "h1-b", "h2-a", "h2-b"]


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "h:",
        "---",
        "h[1:2",
        "h[]",
        "h[1]",
        "h[1:]",
        "h[a:3]",
        "h[3:1]",
        "h[b:a]",
        "h[1:3:0]",
        "h[1:2:3:4]",
        "h[01:100]",
        "h[0:4096]",
        "h[1:9999999999]",
        "[1:99][1:99]",
        "h|[1:2]",
        "h[٣:٤]",
    ],
)
def test_pattern_that_means_nothing(pattern: str) -> None:
    with pytest.raises(Unreadable):
        hostpattern.expand(pattern)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("22", "22"),
        ("22 # ssh", "22"),
        ("'22'", "22"),
        ('"a # b"', "a # b"),
        ('"a" # b', "a"),
        ("a # b", "a # b"),
        ("['#'] # b", "['#']"),
        ("1, 2", "1, 2"),
        ("", ""),
        ("'", "'"),
    ],
)
def test_values(written: str, meant: str) -> None:
    assert ansible_ini.plain(written) == meant


@given(st.text())
def test_value_quoted_as_python_comes_back(text: str) -> None:
    assert ansible_ini.plain(repr(text)) == text


# --- what vmfab makes of it


def test_the_institutes_cluster() -> None:
    found = load(DEFAULT_PATH)
    assert {name: host.address for name, host in found.hosts.items()} == {
        f"vmhost{n}": f"134.245.135.{179 + n}" for n in range(1, 5)
    }
    assert {host.variables["vmfab_storage_address"] for host in found.hosts.values()} == {
        f"192.168.0.{20 + n}" for n in range(1, 5)
    }
    assert {host.reserve_kib for host in found.hosts.values()} == {4 * 1024**2}
    assert found.stores == {
        "vmstorage": StoreHost("vmstorage", "192.168.0.10", "/vmstorage", True),
        "datengrab": StoreHost("datengrab", "192.168.0.11", "/datengrab", False),
    }
    assert (found.mount, found.shutdown_timeout, found.path) == ("/vmstorage", 180.0, str(DEFAULT_PATH))


def test_what_is_left_out_stays_unset() -> None:
    host = inventory("[vmhosts]\nvmhost1").hosts["vmhost1"]
    assert host == Host("vmhost1", "vmhost1")
    assert (host.user, host.port, host.identity, host.become) == ("", None, "", False)


def test_login_as_given() -> None:
    line = "h ansible_host=::1 ansible_port=22 ansible_user=admin ansible_ssh_private_key_file=keys/id"
    host = inventory(f"[vmhosts]\n{line}", Path("/etc/vmfab")).hosts["h"]
    assert (host.address, host.port, host.user, host.become) == ("::1", 22, "admin", True)
    assert host.identity == "/etc/vmfab/keys/id"
    assert inventory("[vmhosts]\nh ansible_user=root ansible_become=on").hosts["h"].become
    assert not inventory("[vmhosts]\nh ansible_user=root ansible_become=off").hosts["h"].become


def test_of_two_spellings_ansible_takes_the_later_invented_one() -> None:
    host = inventory("[vmhosts]\nh ansible_ssh_host=10.0.0.2 ansible_host=10.0.0.1").hosts["h"]
    assert host.address == "10.0.0.2"


def test_identity_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo")
    host = inventory("[vmhosts]\nh ansible_private_key_file=~/.ssh/id").hosts["h"]
    assert host.identity == "/home/jo/.ssh/id"


def test_rules_and_timeouts() -> None:
    found = inventory(
        """
        [vmhosts]
        h1
        [all:vars]
        vmfab_shutdown_timeout=60
        [vmhosts:vars]
        vmfab_shutdown_timeout=2min
        vmfab_shutdown_timeouts="mail=600, win*=900, a=b=1h"
        vmfab_journal_days=30
        vmfab_patience=3
        [apart_dns]
        [apart_dns:vars]
        vmfab_vms=ns1, ns2, ns1
        [apart_odd-names]
        [apart_odd-names:vars]
        vmfab_vms=["a,b", "müller's vm", "$x"]
        """
    )
    assert found.apart == {"dns": ("ns1", "ns2"), "odd-names": ("a,b", "müller's vm", "$x")}
    assert found.timeout_of("mail") == 600
    assert found.timeout_of("win10") == 900
    assert found.timeout_of("a=b") == 3600
    assert found.timeout_of("web") == 120
    assert found.journal_days == 30
    assert found.patience == 3.0


def test_ssh_config_is_relative_to_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "ssh_config").write_text("")
    found = inventory("[vmhosts]\nh\n[all:vars]\nvmfab_ssh_config=ssh_config", tmp_path)
    assert found.ssh_config == str(tmp_path / "ssh_config")


def test_groups_name_cluster_hosts_only() -> None:
    found = inventory(SMALL + "[printers]\np1\n[mixed]\np1\nvmhost2")
    assert found.groups == {
        "all": ("vmhost1", "vmhost2", "vmhost3"),
        "vmhosts": ("vmhost1", "vmhost2", "vmhost3"),
        "racks": ("vmhost1", "vmhost3"),
        "rack_a": ("vmhost1", "vmhost3"),
        "mixed": ("vmhost2",),
    }


def test_foreign_parts_of_an_inventory_are_left_alone() -> None:
    found = inventory(
        "[vmhosts]\nh ansible_python_interpreter=/usr/bin/python3 ansible_x=1 colour=blue\n"
        "[printers]\nfe80::1 ansible_port='{{ p }}' ansible_host=?\n[empty]\n"
    )
    assert list(found.hosts) == ["h"]
    assert found.hosts["h"].variables["colour"] == "blue"


def test_every_variable_is_described_and_its_example_is_right() -> None:
    for name, variable in settings.VARIABLES.items():
        assert name.startswith("vmfab_")
        assert variable.help
        variable.kind.read(variable.kind.example)
    for kind, _ in settings.ANSIBLE.values():
        kind.read(kind.example)


@given(st.integers(0, 10**9), st.sampled_from(["K", "KiB", "M", "MiB", "G", "GiB", "T", "TiB"]))
def test_sizes(number: int, unit: str) -> None:
    assert settings.kib(f"{number}{unit}") == number * 1024 ** "KMGT".index(unit[0])


def test_sizes_are_rounded_up() -> None:
    assert settings.kib("1KB") == 1
    assert settings.kib("1.5KiB") == 2
    assert settings.kib("1GB") == 976563
    assert settings.kib("0") == 0


vm_name = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/"), min_size=1
).filter(str.strip)


@given(st.lists(vm_name, min_size=1, unique=True))
def test_any_vm_names_come_back_from_a_list(names: list[str]) -> None:
    assert settings.vm_names(repr(names)) == tuple(names)


@given(st.dictionaries(vm_name, st.integers(1, 86400), min_size=1))
def test_any_timeouts_come_back_from_a_dict(wanted: dict[str, int]) -> None:
    assert settings.timeouts(repr(wanted)) == wanted


# --- which file


def test_find_prefers_what_is_asked_for(tmp_path: Path) -> None:
    asked, environment = tmp_path / "a.ini", tmp_path / "b.ini"
    asked.touch()
    environment.touch()
    assert find(str(asked), {"VMFAB_INVENTORY": str(environment)}) == asked
    assert find(None, {"VMFAB_INVENTORY": str(environment)}) == environment
    assert find(None, {"VMFAB_INVENTORY": ""}) == DEFAULT_PATH
    assert DEFAULT_PATH.with_name("fabfile.py").exists()


@pytest.mark.parametrize("name", ["/nowhere/x.ini", "~no-such-user-here/x.ini", "x" * 5000])
def test_find_says_who_named_a_file_that_is_not_there(name: str) -> None:
    with pytest.raises(Refused, match=r"which was asked for\. Name another with \./fab --inventory FILE"):
        find(name, {})
    with pytest.raises(Refused, match=r"which is what \$VMFAB_INVENTORY names"):
        find(None, {"VMFAB_INVENTORY": name})


def test_load_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cannot be read: Is a directory\. Name another"):
        load(tmp_path)
    with pytest.raises(Refused, match=r"cannot be read: No such file"):
        load(tmp_path / "none.ini")
    with pytest.raises(Refused, match=r"cannot be read: embedded null byte"):
        load("a\0b")


def test_files_that_are_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "h.ini"
    file.write_bytes("# für alle\n[vmhosts]\nh\n".encode("latin-1"))
    assert list(load(file).hosts) == ["h"]
    file.write_bytes("[vmhosts]\nh\nmüller\n".encode("latin-1"))
    with pytest.raises(Refused, match=r"h\.ini:3: the line is not UTF-8\. Save the file as UTF-8\."):
        load(file)
    file.write_bytes(b"\xef\xbb\xbf[vmhosts]\nh\n")
    with pytest.raises(Refused, match=r"h\.ini:1: the file begins with a byte order mark"):
        load(file)


# --- mistakes

# Cases between lines of dashes: a file, and after "> " what is said about it.
MISTAKES = [case.split("> ", 1) for case in (DATA / "mistakes.txt").read_text().split("----\n")]


@pytest.mark.parametrize(("text", "told"), MISTAKES, ids=[told for _, told in MISTAKES])
def test_one_mistake_is_one_sentence_with_its_remedy(text: str, told: str) -> None:
    said = complaint(text)
    assert f"{said}\n" == f"/nowhere/{told}"
    assert "\n" not in said
    assert said.endswith((".", "?"))


def test_several_mistakes_are_told_at_once() -> None:
    assert complaint("[vmhosts]\nh ansible_become=x\n[vmhosts:var]\n[g:children]\nh\n").splitlines() == [
        "/nowhere/hosts.ini has 3 mistakes:",
        "  line 2: ansible_become is 'x', not yes or no. Write for example ansible_become=yes.",
        "  line 3: '[vmhosts:var]' is of no known kind. Write [vmhosts:vars].",
        "  line 5: there is no group h. Add the section [h].",
    ]


def test_very_many_mistakes_are_counted() -> None:
    lines = complaint("[vmhosts]\n" + "h x\n" * 500).splitlines()
    assert lines[0] == "/nowhere/hosts.ini has 500 mistakes:"
    assert len(lines) == MOST_SHOWN + 2
    assert lines[-1] == "  ... and 480 more."


def test_yaml_is_recognised() -> None:
    assert "line 1: '---' begins a YAML file. Write the inventory in Ansible's INI format." in complaint(
        "---\nall:\n  hosts:\n"
    )


def test_control_characters_do_not_reach_the_terminal() -> None:
    said = complaint("[vmhosts]\n\x1b[31mh \x1b]0;x\x07\n[\x1b:x]\n[g:children]\n\x1b\n")
    assert said.replace("\n", "").isprintable()


pieces = st.sampled_from(
    [
        "[vmhosts]",
        "[vmhosts:vars]",
        "[g:children]",
        "[stores]",
        "[apart_x]",
        "[apart_x:vars]",
        "[all:vars]",
        "h[1:3]",
        "h1",
        "h1:22",
        "[",
        "]",
        ":",
        "=",
        "#",
        ";",
        "'",
        '"',
        "\\",
        "\n",
        "\n",
        "\n",
        " ",
        "ansible_host=",
        "10.0.0.1",
        "vmfab_vms=",
        "vmfab_mount=/x",
        "vmfab_holds_vms=no",
        "vmfab_shutdown_timeouts=",
        "{",
        "}",
        "(",
        "a=1",
        ",",
        "1",
        "all",
        "g",
        "vmfab_ssh_config=",
        "vmfab_reserve=",
        "4GiB",
        "ansible_group_priority=",
        "\0",
        "\x1c",
        "\u2028",
        "ü",
        "\ufeff",
    ]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=40).map("".join)))
@example("[vmhosts]\nh\n[vmhosts:vars]\nx=" + "(" * 5000)
@example("[vmhosts]\nh x=" + "9" * 5000)
@example("[vmhosts]\nh:" + "9" * 5000)
@example("".join(f"[g{n}:children]\ng{n + 1}\n" for n in range(2000)) + "[g2000]\nh")
def test_any_text_is_understood_or_refused(text: str) -> None:
    found = attempt(text)
    if isinstance(found, Refused):
        assert str(found).startswith("/nowhere/hosts.ini")
    else:
        assert found.hosts
        assert resolve(found, ["vmhosts"]) == tuple(found.hosts.values())


@given(data=st.binary())
def test_any_bytes_are_read(data: bytes) -> None:
    text, mistakes = ansible_ini.decode(data)
    assert ansible_ini.read(text).hosts is not None
    assert mistakes or "\n" in text or text.encode() == data or data[:1] in (b"#", b";")


names = st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True)


@given(
    hosts=st.dictionaries(names.map("h-{}".format), st.integers(1, 254), min_size=1),
    variables=st.dictionaries(names.map("x_{}".format), st.text(st.characters(codec="utf-8"))),
)
def test_what_is_written_comes_back(hosts: dict[str, int], variables: dict[str, str]) -> None:
    lines = ["[vmhosts]"]
    lines += [f"{name} ansible_host=10.0.{i}.{n}" for i, (name, n) in enumerate(hosts.items())]
    lines += ["[vmhosts:vars]", *(f"{name}={value!r}" for name, value in variables.items())]
    found = inventory("\n".join(lines))
    assert list(found.hosts) == list(hosts)
    for host in found.hosts.values():
        assert {k: v for k, v in host.variables.items() if k.startswith("x_")} == variables


# --- what follows -H


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["vmhost2", "vmhost1"], "2 1"),
        (["vmhost2", " vmhost1 "], "2 1"),
        (["vmhost2, vmhost1,"], "2 1"),
        (["vmhost2", "vmhost2"], "2"),
        (["vmhosts"], "1 2 3"),
        (["vmhost3", "vmhosts"], "3 1 2"),
        (["racks"], "1 3"),
        (["all"], "1 2 3"),
        (["10.0.0.1"], "1"),
        (["10.0.0.1", "vmhost1"], "1"),
    ],
)
def test_hosts_as_typed(typed: list[str], meant: str) -> None:
    assert [host.name for host in resolve(inventory(SMALL), typed)] == [f"vmhost{n}" for n in meant.split()]


KNOWN = "Hosts: vmhost1, vmhost2, vmhost3. Groups: all, vmhosts, racks, rack_a."


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ([], f"No host is named. Name one with -H. {KNOWN}"),
        ([" ,"], f"No host is named. Name one with -H. {KNOWN}"),
        (
            ["vmhots1"],
            f"'vmhots1' is not in the inventory. Did you mean vmhost1 or vmhost3 or vmhost2? {KNOWN}",
        ),
        (
            ["VMHOST-1"],
            f"'VMHOST-1' is not in the inventory. Did you mean vmhost1 or vmhost3 or vmhost2? {KNOWN}",
        ),
        (["x", "vmhost1"], f"'x' is not in the inventory. {KNOWN}"),
        (["x", "y"], f"'x' and 'y' are not in the inventory. {KNOWN}"),
        (
            ["vmhost*"],
            f"'vmhost*' is not in the inventory. Did you mean vmhost3 or vmhost2 or vmhost1? {KNOWN}",
        ),
        (["10.0.0.2"], f"'10.0.0.2' is not in the inventory. {KNOWN}"),
    ],
)
def test_hosts_that_cannot_be_meant(typed: list[str], told: str) -> None:
    with pytest.raises(Refused) as refused:
        resolve(inventory(SMALL), typed)
    assert str(refused.value) == told


def test_a_store_is_no_host() -> None:
    with pytest.raises(Refused, match="datengrab is a store, not a host that runs VMs"):
        resolve(load(DEFAULT_PATH), ["datengrab"])


def test_an_address_of_several_hosts_is_refused() -> None:
    found = inventory("[vmhosts]\na:1 ansible_host=::1\nb:2 ansible_host=::1")
    with pytest.raises(Refused, match=r"'::1' is the address of several hosts\. Name one: a or b\."):
        resolve(found, ["::1"])


def test_large_inventories_list_only_some_names() -> None:
    with pytest.raises(Refused, match=r"h12, \.\.\. \(40 in all\)\. Groups"):
        resolve(inventory("[vmhosts]\nh[1:40]"), ["x"])


def test_ungrouped_is_a_group_of_its_own() -> None:
    ini = ansible_ini.read("a\nb\n[g]\na\n")
    assert ini.members(grouptree.UNGROUPED) == ("b",)
    assert ini.groups_of("a") == ["all", "g"]


# --- consoles

CONSOLES = "[vmhosts]\nvmhost[1:2]\n[consoles]\n"


def test_consoles_with_all_they_may_have() -> None:
    found = inventory(
        CONSOLES
        + "raid vmfab_console_host=vmhost1\n"
        + "switch vmfab_console_host=vmhost1 vmfab_device=/dev/ttyUSB0 vmfab_speed=9600 vmfab_parity=Even\n"
    )
    assert found.consoles == {
        "raid": Console("raid", "vmhost1", "/dev/ttyS0", 115200, "none"),
        "switch": Console("switch", "vmhost1", "/dev/ttyUSB0", 9600, "even"),
    }
    assert "raid" not in found.hosts


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("raid", "raid has no vmfab_console_host"),
        ("raid vmfab_console_host=vmhost9", "'vmhost9' is not in [vmhosts]"),
        ("raid vmfab_console_host=vmhost1 vmfab_speed=115201", "not a usual speed"),
        ("raid vmfab_console_host=vmhost1 vmfab_parity=mark", "not none, even or odd"),
        ("raid vmfab_console_host=vmhost1 vmfab_device=ttyS0", "not the path of a device"),
        ("raid vmfab_console_host=vmhost1 vmfab_device=/dev/../etc/passwd", "not the path of a device"),
        ("ra/id vmfab_console_host=vmhost1", "has odd characters"),
        ("a vmfab_console_host=vmhost1\nb vmfab_console_host=vmhost1", "b is on the same line as a"),
        ("vmhost2 vmfab_console_host=vmhost1 vmfab_mount=/x", "vmfab_mount has no effect here"),
    ],
)
def test_consoles_that_make_no_sense(line: str, words: str) -> None:
    assert words in complaint(CONSOLES + line)


def test_a_consoles_variables_have_no_effect_at_a_host() -> None:
    assert "vmfab_speed has no effect here" in complaint("[vmhosts]\nvmhost1 vmfab_speed=9600\n")

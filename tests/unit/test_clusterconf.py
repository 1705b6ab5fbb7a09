"""cluster.conf: what o2cb reads, what is made of several, and the golden files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cluster.errors import Refused
from tasks.cluster.setup import clusterconf
from tasks.cluster.setup.clusterconf import Member, Node

DATA = Path(__file__).parent / "data" / "storage"


def member(n: int, *, name: str = "", number: int | None = None, answered: bool = True) -> Member:
    return Member(f"vmhost{n}", name or f"vmhost{n}", f"192.168.0.{20 + n}", number, answered)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_golden_files(count: int) -> None:
    nodes = clusterconf.merged("vmfab", {}, [member(n) for n in range(1, count + 1)])
    text = clusterconf.render("vmfab", nodes)
    assert text == (DATA / f"cluster-{count}.conf").read_text()
    assert clusterconf.parse(text).nodes == {"vmfab": nodes}


def test_what_o2cb_itself_writes_is_read() -> None:
    """The file is what o2cb 1.8.7 made of add-cluster and two add-node."""
    found = clusterconf.parse((DATA / "cluster-by-o2cb.conf").read_text())
    assert found.nodes == {
        "vmc": (Node("vmhost1", "192.168.0.21", 1), Node("vmhost2", "192.168.0.22", 2, 7778))
    }
    assert found.odd == ()


def test_a_file_stays_as_it_is_when_everybody_is_in_it() -> None:
    text = (DATA / "cluster-4.conf").read_text()
    nodes = clusterconf.merged("vmfab", {"vmhost1": text, "vmhost2": text}, [member(n) for n in (4, 2)])
    assert clusterconf.render("vmfab", nodes) == text


def test_numbers_of_hosts_ini_and_the_lowest_free_ones() -> None:
    nodes = clusterconf.merged("vmfab", {}, [member(1, number=3), member(2), member(3), member(4, number=0)])
    assert {n.name: n.number for n in nodes} == {"vmhost4": 0, "vmhost2": 2, "vmhost1": 3, "vmhost3": 1}


def test_a_silent_host_is_known_by_its_address() -> None:
    text = clusterconf.render("vmfab", [Node("server3", "192.168.0.23", 9)])
    nodes = clusterconf.merged("vmfab", {"vmhost1": text}, [member(3, answered=False)])
    assert nodes == (Node("server3", "192.168.0.23", 9),)
    with pytest.raises(Refused, match="calls itself vmhost3"):
        clusterconf.merged("vmfab", {"vmhost1": text}, [member(3)])


@given(st.lists(st.integers(1, 40), unique=True, min_size=1, max_size=12))
def test_joining_one_by_one_never_moves_a_number(order: list[int]) -> None:
    text: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for upto in range(1, len(order) + 1):
        nodes = clusterconf.merged("vmfab", text, [member(n) for n in order[:upto]])
        assert len({node.number for node in nodes}) == len(nodes) == upto
        assert all(numbers.get(node.name, node.number) == node.number for node in nodes)
        numbers = {node.name: node.number for node in nodes}
        text = {"vmhost1": clusterconf.render("vmfab", nodes)}

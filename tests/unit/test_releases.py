"""Which release a host runs, from its os-release file, and what it needs there."""

from __future__ import annotations

import pytest

from tasks.cluster.errors import Refused
from tasks.cluster.setup import releases

DEBIAN = """\
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION_CODENAME=trixie
ID=debian
HOME_URL="https://www.debian.org/"
"""
UBUNTU = """\
# as Ubuntu writes it
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
ID=ubuntu
ID_LIKE=debian
"""


def test_releases_are_known_by_their_own_words() -> None:
    assert releases.release_of("h", DEBIAN).name == "Debian 13"
    assert releases.release_of("h", UBUNTU).name == "Ubuntu 24.04"
    assert releases.release_of("h", "ID='debian'\nVERSION_ID=12\n").name == "Debian 12"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ID=ubuntu\nVERSION_ID=25.10\n", "h runs ubuntu 25.10, whose"),
        (DEBIAN.replace('"13"', '"14"'), "h runs Debian GNU/Linux 13 (trixie), whose"),
        ("ID=debian\nPRETTY_NAME='Debian forky/sid'\n", "h runs Debian forky/sid, whose"),
        ("ID=linuxmint\nID_LIKE=ubuntu\nVERSION_ID=24.04\n", "h runs linuxmint 24.04, whose"),
        ('ID="half\n', "h runs a system that does not say its name"),
        ("", "h runs a system that does not say its name"),
    ],
)
def test_any_other_is_refused_with_those_that_are_known(text: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        releases.release_of("h", text)
    assert refused.value.message.startswith(words)
    assert all(release.name in refused.value.hint for release in releases.RELEASES)


def test_every_package_is_named_once_and_with_its_reason() -> None:
    for release in releases.RELEASES:
        wanted = releases.packages(release)
        assert len({package.name for package in wanted}) == len(wanted)
        assert all(package.why for package in wanted)


def test_the_help_of_the_task_lists_all_packages() -> None:
    from tasks.hostsetup import packages

    text = packages.body.__doc__ or ""
    names = {package.name for release in releases.RELEASES for package in releases.packages(release)}
    assert {name for name in names if name not in text} == set()

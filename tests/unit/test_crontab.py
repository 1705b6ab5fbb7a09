"""root's crontab: one entry for the script, and everything else as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cluster.errors import Refused
from tasks.cluster.setup.crontab import with_reboot_entry

PROGRAM = "/usr/local/bin/restart_running_vms"
PLAIN = f"@reboot {PROGRAM}"

OWN = (
    PLAIN,
    f"  @reboot\t{PROGRAM}  ",
    f"@reboot {PROGRAM} >/dev/null 2>&1",
    f"@reboot {PROGRAM} >> /var/log/restart.log 2>&1 &",
    f"@reboot {PROGRAM}&>/dev/null",
    f"@reboot /bin/sh {PROGRAM}",
    f"@reboot sleep 30; {PROGRAM}",
    f"@reboot sleep 1m && bash {PROGRAM} > /dev/null",
    f"{PLAIN}\r",
)
STRANGE = (
    f"@reboot /root/fix-network; {PROGRAM}",
    f"@reboot {PROGRAM} && echo up | mail root",
    f"@reboot [ -x {PROGRAM} ] && {PROGRAM}",
    f"@reboot {PROGRAM}.sh",
    "@reboot /root/restart_running_vms",
    f"@reboot {PROGRAM} > $(date +\\%F).log",
    f"@reboot echo {PROGRAM}",
)
OTHERS = (
    "",
    "   ",
    "# comment",
    f"#{PLAIN}",
    f"# {PLAIN} runs the VMs",
    "MAILTO=root",
    "SHELL=/bin/bash",
    "@reboot /root/other",
    "@rebooted",
    "@daily /usr/bin/updatedb",
    f"5 4 * * * {PROGRAM}",
    '0 3 * * * echo "100%"; backup \\',
    "*/5 * * * * größe\x0b\x0c\x85\u2028 x",
    "\udcff\udcfe",
)

lines = st.lists(st.sampled_from(OTHERS) | st.text(st.characters(exclude_characters="\n@")), max_size=8)
ends = st.sampled_from(["", "\n"])


@given(lines, ends)
def test_an_entry_is_added_behind_all_others(others: list[str], end: str) -> None:
    text = "\n".join(others) + (end if others else "")
    edited = with_reboot_entry(text, PROGRAM)
    assert edited.entry == PLAIN
    ended = text if text.endswith("\n") or not text else f"{text}\n"
    assert edited.text == f"{ended}{PLAIN}\n"
    assert with_reboot_entry(edited.text, PROGRAM) == edited


@given(lines, lines, st.sampled_from(OWN), ends)
def test_an_entry_that_is_there_stays_as_it_is(
    before: list[str], after: list[str], own: str, end: str
) -> None:
    text = "\n".join([*before, own, *after]) + end
    assert with_reboot_entry(text, PROGRAM).text == text


@given(lines, st.lists(st.sampled_from(OWN), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_of_several_entries_the_first_stays(others: list[str], own: list[str], random: object) -> None:
    mixed = [("own", line) for line in own] + [("other", line) for line in others]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    first = next(i for i, (kind, _) in enumerate(mixed) if kind == "own")
    kept = [line for i, (kind, line) in enumerate(mixed) if kind == "other" or i == first]
    edited = with_reboot_entry("".join(f"{line}\n" for _, line in mixed), PROGRAM)
    assert edited.text == "".join(f"{line}\n" for line in kept)
    assert with_reboot_entry(edited.text, PROGRAM) == edited


@given(st.sampled_from(STRANGE), lines)
def test_an_entry_that_may_do_more_is_refused(line: str, before: list[str]) -> None:
    with pytest.raises(Refused, match="not understood") as refused:
        with_reboot_entry("\n".join([*before, line]), PROGRAM)
    assert PLAIN in refused.value.hint

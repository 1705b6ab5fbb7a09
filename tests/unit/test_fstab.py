"""The store's line in fstab."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cluster.setup import fstab

LINE = fstab.line_for("vmstorage", "/vmstorage")


def test_the_line() -> None:
    assert LINE == "LABEL=vmstorage /vmstorage ocfs2 _netdev,noatime,x-systemd.requires=o2cb.service 0 0"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{LINE}\n"),
        ("# x", f"# x\n{LINE}\n"),
        (f"{LINE}\n", f"{LINE}\n"),
        (LINE.replace(" ", "\t") + "\n", LINE.replace(" ", "\t") + "\n"),
        (f"a /vmstorage/ ext4 defaults 0 0\nb /b ext4\n{LINE}\n", f"{LINE}\nb /b ext4\n"),
        ("#LABEL=vmstorage /vmstorage\n", f"#LABEL=vmstorage /vmstorage\n{LINE}\n"),
        ("a /vmstorage2 ext4\n", f"a /vmstorage2 ext4\n{LINE}\n"),
        ("a /vm\\163torage ext4\n", f"{LINE}\n"),
        ("\n  \nproc\n", f"\n  \nproc\n{LINE}\n"),
    ],
)
def test_edits(before: str, after: str) -> None:
    assert fstab.with_mount(before, "/vmstorage", LINE) == after
    assert fstab.with_mount(after, "/vmstorage", LINE) == after


def test_what_is_mounted_at_boot() -> None:
    text = f"# a /a ext4\n\nproc /proc\nb /b\\040b/ ext4\nc /c xfs ro,noauto 0 0\n{LINE}\n"
    assert fstab.mounted_at_boot(text) == {"/b b": "ext4", "/vmstorage": "ocfs2"}


@given(st.text())
def test_all_other_lines_stay(text: str) -> None:
    after = fstab.with_mount(text, "/vmstorage", LINE)
    ours = [line for line in after.split("\n") if "/vmstorage" in line.split()[1:2]]
    assert len(ours) == 1
    left = [line for line in text.split("\n") if line.strip() and line.split()[1:2] != ["/vmstorage"]]
    kept = [line for line in after.split("\n") if line.strip() and line != LINE]
    assert kept == [line for line in left if line != LINE]

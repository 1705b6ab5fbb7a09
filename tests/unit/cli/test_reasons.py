"""Reasons against plans, as an operator sees them."""

from __future__ import annotations

from tasks.cli import reasons
from tasks.cli.context import Operator
from tasks.cluster.model import Refusal

from .streams import captured


def told(*refusals: Refusal) -> list[str]:
    output, out, err = captured()
    reasons.show(Operator(output=output), refusals, "moved")
    assert err.getvalue() == ""
    return out.getvalue().splitlines()


def test_vms_with_the_same_reasons_are_named_together() -> None:
    full, apart = "lacks 2.0 GiB", "runs ns2, which is to be apart"
    assert told(
        *(Refusal(name, host, full, "--ignore-reserve") for name in ("db", "web") for host in ("a", "b")),
        Refusal("ns1", "a", full, "--ignore-reserve"),
        Refusal("ns1", "b", apart),
        Refusal("web", "", "it is transient"),
        Refusal("mail", "", "it is transient"),
        *(Refusal("git", host, full, "--ignore-reserve") for host in ("a", "b")),
    ) == [
        "db, git cannot be moved:",
        f"  a, b: {full} (override: --ignore-reserve)",
        "web cannot be moved:",
        f"  a, b: {full} (override: --ignore-reserve)",
        "  it is transient",
        "ns1 cannot be moved:",
        f"  a: {full} (override: --ignore-reserve)",
        f"  b: {apart}",
        "mail cannot be moved:",
        "  it is transient",
    ]


def test_the_same_reason_twice_is_told_once() -> None:
    assert told(*[Refusal("web", "a", "is cordoned")] * 2) == ["web cannot be moved:", "  a: is cordoned"]

"""Definitions that the agent mirrors to the store itself: hosts without the guard have theirs there, too.

Never in the way: what was asked of libvirt is done by then, and a store that cannot take the copy shows up as
the host's problem by itself.
"""

from __future__ import annotations

import os
import threading

from . import facts, mirror, storefiles
from .problem import Problem, absolute_of, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Seconds for the store to take a copy.
PATIENCE = 3.0


def defined(where: Any, xml: str) -> None:
    """Mirror what libvirt has made of a definition that it has just taken."""
    from xml.etree import ElementTree

    try:
        name = ElementTree.fromstring(xml).findtext("name") or ""
    except ElementTree.ParseError:
        return  # libvirt understood it all the same
    path = f"{mirror.DEFINITIONS}/{name}.xml"
    _on_store(where, lambda top, host: mirror.mirror_defined(top, host, path))


def started(where: Any, uuid: str) -> None:
    """Mirror what has just been started, unless the guard has done it; nobody waits for that."""

    def work() -> None:
        path = "" if facts.guard_version() else _file_of(uuid)
        if path:
            _on_store(where, lambda top, host: mirror.mirror_defined(top, host, path, starting=True))

    threading.Thread(target=work, daemon=True).start()


def undefined(where: Any, uuid: str) -> None:
    """Note that this host has forgotten a VM."""
    _on_store(where, lambda top, host: mirror.mirror_undefined(top, host, uuid))


def _on_store(where: Any, work: Callable[[int, str], object]) -> None:
    """`where`: {mount, host}, the store and how the inventory calls this host; null for nowhere."""
    if where is None:
        return
    mount, host = absolute_of(where, "mount"), text_of(where, "host")

    def call(top: int) -> None:
        work(top, host)

    try:
        storefiles.in_folder(mount, call, PATIENCE)
    except Problem as problem:
        if problem.kind != "store":
            raise


def _file_of(uuid: str) -> str:
    """The definition file of a VM; "" when it has none."""
    try:
        names = os.listdir(mirror.DEFINITIONS)
    except FileNotFoundError:
        return ""
    for name in names:
        path = f"{mirror.DEFINITIONS}/{name}"
        if name.endswith(".xml"):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
            if uuid in text and mirror.identity_of(text)[1] == uuid:
                return path
    return ""

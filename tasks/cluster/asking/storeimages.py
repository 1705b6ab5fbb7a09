"""Files on the store that look like images of VMs, whether or not any definition names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.cluster.model import require


@dataclass(frozen=True, slots=True)
class StoreImage:
    """One file. `key` is that of model.FileId; `needs` are the keys of its backing and data files.

    Sizes are bytes: `size` what the guest could see, `allocated` what it takes on the store.
    """

    path: str
    key: str
    size: int
    allocated: int
    modified: float
    format: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. `why` says why there may be more, empty when that was all."""

    images: tuple[StoreImage, ...]
    why: str = ""

    def closure(self, keys: Iterable[str]) -> frozenset[str]:
        """These images and all that they read through, as far as the files' own headers say."""
        needs = {image.key: image.needs for image in self.images}
        found: set[str] = set()
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key not in found:
                found.add(key)
                waiting += needs.get(key, ())
        return frozenset(found)


def survey(host: str, reply: Mapping[str, Any]) -> Survey:
    """The answer to `store.images`. Raises ValueError, KeyError or TypeError when it is not understood."""
    images = tuple(_image(entry) for entry in require(reply, "images", list))
    return Survey(images, "" if require(reply, "complete", bool) else require(reply, "why", str))


def _image(entry: Mapping[str, Any]) -> StoreImage:
    return StoreImage(
        path=require(entry, "path", str),
        key=f"store:{require(entry, 'ino', int)}",
        size=require(entry, "size", int),
        allocated=require(entry, "allocated", int),
        modified=float(require(entry, "modified", (int, float))),
        format=require(entry, "format", str),
        needs=tuple(f"store:{ino}" for ino in require(entry, "needs", list)),
    )

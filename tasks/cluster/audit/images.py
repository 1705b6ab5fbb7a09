"""Images below the mount that no definition uses: free space to be, or a VM that lost its definition."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator

from tasks.cluster import domainxml
from tasks.cluster.asking.storeimages import StoreImage
from tasks.cluster.audit.finding import Finding
from tasks.cluster.audit.seen import Seen

#: Images that are shown; the others are counted.
MOST = 20


def findings(seen: Seen) -> Iterator[Finding]:
    """None while a host's definitions are not known: what looks unused may be its."""
    if seen.survey is None or seen.unsure():
        return
    used = _used(seen)
    unused = sorted((i for i in seen.survey.images if i.key not in used), key=lambda i: -i.allocated)
    if not unused:
        return
    shown = [_words(image) for image in unused[:MOST]]
    if len(unused) > MOST:
        shown.append(f"and {len(unused) - MOST} smaller ones")
    total = size(sum(image.allocated for image in unused))
    many = (
        f"{len(unused)} images, which take {total}," if len(unused) > 1 else f"An image, which takes {total},"
    )
    yield Finding(
        "drift",
        "unused-image",
        f"{many} {'are' if len(unused) > 1 else 'is'} used by no definition.",
        evidence=tuple(shown),
        advice=(
            "Look before anything else; it may be the only copy of a VM that somebody misses. On any host:",
            f"qemu-img info {unused[0].path}",
            "A VM that should be there: fab -H HOST vm.define FILE. What nobody misses: move it aside first, "
            "and delete it weeks later.",
        ),
    )


def _used(seen: Seen) -> frozenset[str]:
    """Keys of all images that a definition names or a process has open, with what lies below them."""
    survey = seen.survey
    if survey is None:
        return frozenset()
    keys: set[str] = set()
    paths: set[str] = set()
    volumes: set[str] = set()
    for facts in seen.snapshot.facts():
        for path, file in facts.files.items():
            keys.add(file.key)
            # On a host where the store is not mounted only the spelling tells what is meant.
            paths |= {posixpath.normpath(path), file.real}
        for p in facts.processes:
            keys |= p.images
        for d in facts.domains:
            for text in filter(None, (d.xml, d.live_xml)):
                sources = (
                    s for disk in domainxml.parse(text).disks for s in (disk.source, *disk.backing) if s
                )
                volumes |= {source.volume for source in sources if source.kind == "volume"}
    keys |= {
        image.key
        for image in survey.images
        if image.path in paths or posixpath.basename(image.path) in volumes
    }
    return survey.closure(keys)


def _words(image: StoreImage) -> str:
    changed = time.strftime("%Y-%m-%d", time.localtime(image.modified))
    return f"{image.path}: {image.format}, takes {size(image.allocated)}, last changed {changed}"


def size(number: float) -> str:
    """Bytes in words: "3.2 GiB"."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1000 and len(units) > 1:
        number /= 1024
        del units[0]
    return f"{number:.0f} bytes" if units[0] == "bytes" else f"{number:.1f} {units[0]}"

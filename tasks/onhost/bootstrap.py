"""The laptop's side of shipping the agent: the program given to `python3 -c`, and what it reads first.

Not part of what is shipped. `python3 -I -S -c BOOTSTRAP` reads `payload()` from its standard input, builds
the modules in memory, and serves; nothing is written to the host's disk.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

PACKAGE = "vmfab_onhost"

#: Reads ten digits and so many bytes of compressed JSON {module: source}, and runs serve.main() from it.
BOOTSTRAP = """
import json, os, sys, zlib
def take(n):
    data = b""
    while len(data) < n:
        more = os.read(0, n - len(data))
        if not more: os._exit(3)
        data += more
    return data
sources = json.loads(zlib.decompress(take(int(take(10)))))
class Memory:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in sources: return type(sys.__spec__)(name, Memory, is_package="." not in name)
    @staticmethod
    def create_module(spec): return None
    @staticmethod
    def exec_module(module):
        name = module.__name__
        exec(compile(sources[name], name, "exec"), module.__dict__)
sys.meta_path.insert(0, Memory)
sys.dont_write_bytecode = True
from PACKAGE import serve
serve.main()
""".replace("PACKAGE", PACKAGE)


def payload() -> bytes:
    """The agent's sources in the form that BOOTSTRAP reads."""
    sources = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem == "__init__":
            sources[PACKAGE] = path.read_text(encoding="utf-8")
        elif path.stem != "bootstrap":
            sources[f"{PACKAGE}.{path.stem}"] = path.read_text(encoding="utf-8")
    data = zlib.compress(json.dumps(sources).encode(), 9)
    return b"%010d" % len(data) + data

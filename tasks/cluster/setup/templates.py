"""Render the files that land on hosts from templates/*.j2. Pure: nothing but the templates is read."""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.cluster.setup import netplan

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).resolve().parents[3] / "templates"


def render(name: str, /, **values: object) -> str:
    """The text of templates/`name`, filled in.

    The filter `quoted` makes a text one word for a shell, `python` makes a value a literal of Python, `yaml`
    a text a scalar of YAML and `yaml_block(N)` a mapping lines of YAML, indented by N spaces. Raises
    jinja2.UndefinedError when a value that the template wants is missing: half a file must never reach a
    host.
    """
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        autoescape=False,  # no HTML: each template quotes for its own language
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = lambda value: shlex.quote(str(value))
    environment.filters["python"] = _python
    environment.filters["yaml"] = netplan.scalar
    environment.filters["yaml_block"] = netplan.block
    return environment


def _python(value: object) -> str:
    str(value)  # raises for one that is undefined
    return json.dumps(value)

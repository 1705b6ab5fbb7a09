"""Files that land on a host, rendered from templates/. Pure: no host is asked here."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

FOLDER = Path(__file__).resolve().parents[2] / "templates"


def render(name: str, **values: object) -> str:
    """The text of templates/`name`. A value that the template lacks raises jinja2.UndefinedError."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # no HTML: each template quotes for its own language
    )
    environment.filters["python"] = _python
    return environment.get_template(name).render(values)


def _python(value: object) -> str:
    """A text or number as Python writes it."""
    str(value)  # raises for one that is undefined
    return json.dumps(value)

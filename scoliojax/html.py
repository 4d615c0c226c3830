"""Pages from templates: one file each, that opens from disk and asks no network for anything."""

from __future__ import annotations

import base64
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """A page from `scoliojax/templates`; every value is escaped, and one that is missing raises."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scoliojax", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def embedded(content: bytes, kind: str) -> str:
    """The address of a picture that is part of the page itself; `kind` such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

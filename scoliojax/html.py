"""Pages from templates: one file each, which opens from the disk without internet."""

import base64
import functools
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """A page from `scoliojax/templates`; every value is escaped, and a missing one raises."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("scoliojax", "templates")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def embedded(content: bytes, kind: str) -> str:
    """A data URL with the content of a file; `kind`: its media type, such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

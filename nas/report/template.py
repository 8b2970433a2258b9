"""Templates of the pages beside this file, filled in."""

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from nas.report.plots import format_colour


def rendered(name: str, **values: Any) -> str:
    """Return a template with values in it; plotly.js and the colours of formats are always there."""
    page = _environment().get_template(name)
    return page.render(format_colour=format_colour, plotly=Markup(get_plotlyjs()), **values)


@cache
def _environment() -> jinja2.Environment:
    """Return the templates, each compiled once."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""Text of others inside Markdown: names are shown as they are, whatever they would mean there."""

import html
import re

LONGEST = 120  # characters of a name


def in_code(text: str) -> str:
    """Return a text of others between backticks, where nothing but these means anything.

    >>> in_code("image: nx3`")
    "`image: nx3'`"
    """
    line = "".join(c if c.isprintable() else " " for c in text).replace("`", "'")
    return f"`{line[:LONGEST]}`"


def escaped(text: str) -> str:
    r"""Return a text that Markdown, and HTML made of it, shows as it is: on one line, cut where it is long.

    >>> escaped("<b>cats</b> | [dogs](http://x)")
    '&lt;b&gt;cats&lt;/b&gt; \\| \\[dogs\\]\\(http\\://x\\)'
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    short = line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
    return html.escape(re.sub(r"([\\`*_{}\[\]()#|!~:])", r"\\\1", short), quote=False)

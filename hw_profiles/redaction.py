"""What must never be printed, logged or reported: passwords inside other text."""

import re

MASK = "***"
_SCHEME = r"[a-zA-Z][\w+.-]*://"
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # a URL's, up to the last @ before its quotation ends, since a password that is not encoded may hold
        # blanks and @ itself; where there are no quotation marks, up to the last @ of the word
        rf"(?P<before>\"{_SCHEME}[^:/@\"\s]*:)[^\"\n]*(?P<after>@[^@\"\n]*\")",
        rf"(?P<before>'{_SCHEME}[^:/@'\s]*:)[^'\n]*(?P<after>@[^@'\n]*')",
        rf"(?P<before>{_SCHEME}[^:/@\s\"']*:|\b[\w.-]+:(?!//))\S*(?P<after>@)",
        # of a query, an environment or a line of TOML
        r"(?P<before>\w*(?:password|passwd|passphrase)\w*[\"']?\s*[=:]\s*)"
        r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s&;,\"']+)(?P<after>)",
    )
)
# boards as devices name them, `ssh:USER@HOST:PORT,USER@HOST`, which hold no password
_BOARD = r"(?:[\w.-]+@)?(?:[\w.-]+|\[[\w:.%]+\])(?::\d{1,5})?"
_BOARDS = re.compile(rf"(?<![^\s'\"=(])(ssh:{_BOARD}(?:,{_BOARD})*)(?=[/\s'\").;]|$)")


def redacted(text: str) -> str:
    """Return a text with every password in it masked.

    >>> redacted("storage must be a table, got 'postgresql://me:s3cret@host/runs?sslpassword=x'")
    "storage must be a table, got 'postgresql://me:***@host/runs?sslpassword=***'"
    """
    parts = _BOARDS.split(text)
    return "".join(part if i % 2 else _masked(part) for i, part in enumerate(parts))


def _masked(text: str) -> str:
    for secret in _SECRETS:
        text = secret.sub(rf"\g<before>{MASK}\g<after>", text)
    return text


def printable(text: str) -> str:
    r"""Return a text as one line that cannot steer a terminal.

    >>> printable("two\nlines \x1b[2J")
    'two\\x0alines \\x1b[2J'
    """
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)

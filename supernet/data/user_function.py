"""Functions of the user's own: `module:function`, imported because the user named it."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hw_profiles.errors import TrilobitError, shown

NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_function_name(text: str) -> bool:
    """Return whether a text names a function of a module.

    >>> is_function_name("my_data:samples"), is_function_name("C:/photos")
    (True, False)
    """
    return NAMED.fullmatch(text) is not None


def user_function(name: str) -> Callable[..., Any]:
    """Return the function `module:function`; the module may lie in the current folder.

    Raises:
        TrilobitError: no such module or function, or what importing it raises.
    """
    if not is_function_name(name):
        raise TrilobitError(f"{shown(name)}: not the name of a function; write module:function")
    with _current_folder():
        importlib.invalidate_caches()
        with told(f"importing {name}"):
            function = resolve_name(name)
    if not callable(function):
        raise TrilobitError(f"{name}: a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Tell what somebody's own code raises in one line, by the name of what was done."""
    try:
        yield
    except (TrilobitError, MemoryError):
        raise
    except Exception as error:
        text = next(iter(str(error).splitlines()), "")
        raise TrilobitError(f"{doing} raised {type(error).__name__}: {shown(text)}") from error


@contextmanager
def _current_folder() -> Iterator[None]:
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)

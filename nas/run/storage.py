"""The Optuna storage that a URL names: opened safely by several processes at once, its failures in one line,
its password never shown.
"""

import random
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from hw_profiles.errors import TrilobitError, shown

Storage: TypeAlias = RDBStorage
OPENINGS = 20  # tries; each that collides leaves more of the tables there than it found
BUSY_S = 60.0  # to wait for another process that writes to the same SQLite file
CONNECT_S = 10  # to wait for a server
_COLLISIONS = ("already exists", "duplicate key", "unique constraint")
_DAMAGED = "put a copy of it back, or delete it to evaluate everything again"
_DRIVERS = {"psycopg": "pip install 'trilobit[postgres]'"}


def open_storage(url: str) -> Storage:
    """Open a storage, its tables made where they are missing; several processes may do so at the same time.

    Raises:
        TrilobitError: not a storage URL, its driver is not installed, or the database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parsed = _parse(url)
    lite = parsed.get_backend_name() == "sqlite"
    # Optuna fills in templates: braces of a password are none
    text = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with failures_of(url):
        storage = _open_patiently(text, {**_engine_options(parsed), "poolclass": NullPool})
        if not lite:  # connections are kept now; those of an attempt that fails would never be closed
            storage = RDBStorage(text, _engine_options(parsed))
            weakref.finalize(storage, storage.engine.dispose)
    if lite:
        # A trial's number is read and written in one transaction; SQLite, which has no SELECT FOR UPDATE,
        # would let two processes read first. https://docs.sqlalchemy.org/en/21/dialects/sqlite.html
        event.listen(storage.engine, "begin", _lock_at_once)
    return storage


def _open_patiently(url: str, options: dict[str, Any]) -> Storage:
    """Try again where another process makes the same tables at the same moment: they are there next time."""
    for left in reversed(range(OPENINGS)):
        try:
            return RDBStorage(url, options)
        except (StorageInternalError, SQLAlchemyError) as error:
            if not left or not _is_collision(error):
                raise
            time.sleep(random.uniform(0.01, 0.1))  # no result depends on it
    raise AssertionError("unreachable")


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":  # transactions begin where _lock_at_once says
        return {"connect_args": {"isolation_level": None, "timeout": BUSY_S}}
    limits = {"connect_timeout": CONNECT_S} if url.get_backend_name() == "postgresql" else {}
    return {"pool_pre_ping": True, "connect_args": limits}


def _lock_at_once(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_collision(error: Exception) -> bool:
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, IntegrityError) or any(word in str(cause).lower() for word in _COLLISIONS)


def hidden(url: str) -> str:
    """Return the URL for people: whose it is and where, without its password.

    >>> hidden("postgresql+psycopg://me:secret@host/trilobit")
    'postgresql+psycopg://me@host/trilobit'

    Raises:
        TrilobitError: not a storage URL.
    """
    parsed = _parse(url)
    secrets = [key for key in parsed.query if "password" in key.lower()]
    bare = parsed._replace(password=None).difference_update_query(secrets)
    return bare.render_as_string(hide_password=False)


def _parse(url: str) -> URL:
    """Parse a URL; errors never quote it, since what cannot be parsed may hold a password anywhere."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):
        raise TrilobitError(
            "the storage is not a URL; write for example postgresql+psycopg://USER@HOST/DATABASE or "
            "sqlite:///FILE, and %40 for an @ in a password"
        )
    return parsed


@contextmanager
def failures_of(url: str) -> Iterator[None]:
    """Raise what a storage fails with, for example on a full disk, in one line; what is evaluated stays.

    Only calls of the storage belong inside: whatever Optuna and its drivers raise of a damaged file is taken
    for damage.

    Raises:
        TrilobitError: it failed.
        OptunaError: as Optuna raises it: what a storage answers is no failure.
    """
    try:
        yield
    except (TrilobitError, OSError, MemoryError):
        raise
    except (ImportError, ArgumentError):
        raise TrilobitError(f"{hidden(url)}: {_missing_driver(url)}") from None
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise TrilobitError(f"{hidden(url)}: {cause}; {_advice(url, error)}") from None
    except OptunaError:
        raise
    except Exception as error:
        reason = shown(f"{type(error).__name__}: {error}")
        raise TrilobitError(f"{hidden(url)}: damaged ({reason}); {_DAMAGED}") from None


def _missing_driver(url: str) -> str:
    parsed = _parse(url)
    try:
        parsed.get_dialect()
    except ArgumentError:
        return f"unknown kind of database {parsed.drivername!r}; use postgresql+psycopg or sqlite"
    driver = parsed.get_driver_name()
    remedy = _DRIVERS.get(driver, f"pip install {driver}")
    return f"{parsed.drivername} needs the package {driver}, which is not installed: {remedy}"


def _advice(url: str, error: Exception) -> str:
    if _is_collision(error) or "locked" in str(error.__cause__ or error):
        return "other processes use it at the same moment; the same command continues where this one stopped"
    if _parse(url).get_backend_name() == "sqlite":
        cause = str(error.__cause__ or error).lower()
        if "full" in cause:
            return "make room; the same command continues where this one stopped"
        if "readonly" in cause or "unable to open" in cause or "permission" in cause:
            return "mend its permissions, or give another folder with -o"
        return _DAMAGED
    return (
        "see that the server runs and lets you in (the password can be in PGPASSWORD or ~/.pgpass); the same "
        "command continues where this one stopped"
    )

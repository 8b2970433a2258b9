"""Storages by URL: opened by several at once, and never showing a password."""

import sys
import threading
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from hw_profiles.errors import TrilobitError
from nas.run.storage import hidden, open_storage

SERVER = "postgresql+psycopg://me:s3cret@127.0.0.1:1/trilobit"  # nothing listens there


def test_several_may_make_the_same_file_at_the_same_moment(tmp_path: Path) -> None:
    barrier, opened, failed = threading.Barrier(6), [], []

    def start() -> None:
        barrier.wait()
        try:
            opened.append(open_storage(f"sqlite:///{tmp_path / 'run.db'}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [storage.get_all_studies() for storage in opened] == [[]] * 6


def test_an_error_that_stays_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr("nas.run.storage.time.sleep", tried.append)
    (tmp_path / "run.db").write_text("no database")
    with pytest.raises(TrilobitError, match="put a copy of it back, or delete it"):
        open_storage(f"sqlite:///{tmp_path / 'run.db'}")
    assert not tried


def test_tables_that_exist_for_ever_give_no_advice_on_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def collide(*_: object, **__: object) -> None:
        raise OperationalError("CREATE TABLE", {}, Exception("table studies already exists"))

    monkeypatch.setattr("nas.run.storage.time.sleep", lambda _: None)
    monkeypatch.setattr(RDBStorage, "__init__", collide)
    with pytest.raises(TrilobitError, match="already exists; other processes use it at the same moment"):
        open_storage(f"sqlite:///{tmp_path / 'run.db'}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:s3cret@host:5433/db", "postgresql+psycopg://me@host:5433/db"),
        ("postgresql+psycopg://me:s3%40cret@host/db", "postgresql+psycopg://me@host/db"),
        ("postgresql+psycopg://me@/db?host=h&password=s3cret", "postgresql+psycopg://me@/db?host=h"),
        ("postgresql+psycopg://host/db?sslpassword=s3cret", "postgresql+psycopg://host/db"),
        ("sqlite:////tmp/run.db", "sqlite:////tmp/run.db"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hidden(url) == shown


@pytest.mark.parametrize("url", ["s3cret", "postgresql+psycopg://me:a@s3cret@host/db", "s3cret://x:y:z"])
def test_what_is_no_url_is_not_quoted(url: str) -> None:
    with pytest.raises(TrilobitError, match="not a URL; write for example postgresql") as caught:
        open_storage(url)
    assert "s3cret" not in str(caught.value)


def test_an_unreachable_server_is_named_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(
        TrilobitError, match=r"me@127\.0\.0\.1:1/trilobit: .*; see that .*PGPASSWORD"
    ) as caught:
        open_storage(SERVER)
    assert "s3cret" not in str(caught.value)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    message = r"me@127.* needs the package psycopg, .*: pip install 'trilobit\[postgres\]'"
    with pytest.raises(TrilobitError, match=message):
        open_storage(SERVER)


def test_an_unknown_database_is_named() -> None:
    with pytest.raises(TrilobitError, match="unknown kind of database 'nosuch'; use postgresql"):
        open_storage("nosuch://me:s3cret@host/db")


def test_braces_in_a_path_are_no_template(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path / 'a{b}c.db'}")
    assert (tmp_path / "a{b}c.db").exists()

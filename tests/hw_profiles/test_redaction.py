"""Passwords and control characters never reach a terminal, a log or a report."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.redaction import printable, redacted
from nas.cli.main import main

WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'"), min_size=4)
NAME = st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True)


@given(WORD, NAME, NAME)
def test_the_password_of_a_url_is_masked(password: str, user: str, host: str) -> None:
    secret = f"{password}Zq9"
    for text in (
        f"got 'postgresql+psycopg://{user}:{secret}@{host}/runs'",
        f"postgresql://{user}:{secret}@{host}/runs: cannot connect",
        f'{{"url": "mysql://{user}:{secret} {secret}@{host}/runs"}}',
        f"{user}:{secret}@{host}/runs is no URL",
        f"postgresql://{host}/runs?user={user}&sslpassword='{secret}'",
    ):
        assert "Zq9" not in redacted(text)
        assert host in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "runs/a: no such file; expected a front/1 file there",
        "postgresql+psycopg://me@host/runs: the password can be in PGPASSWORD or ~/.pgpass",
        "sqlite:////work/run.db: make room",
        "aarch64-linux-gnu:cortex-a76 at 12:30, --rpc tracker board:9190",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redacted(text) == text


@given(st.text())
def test_a_line_is_one_line(text: str) -> None:
    assert len(printable(text).splitlines()) <= 1
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    "toml",
    [
        'storage = "postgresql://u:SECRET@host/runs"',
        '[storage]\nurl = ["postgresql://u:SECRET@host/runs"]',
        '[space]\nname = "postgresql://u:SECRET@host/runs"',
        '[data]\nsource = "postgresql://u:SECRET@host/runs"',
        '[device]\nname = "u:SECRET@host"',
        '[constraints]\nlatency = "postgresql://u:SECRET@host/runs"',
        'url = "postgresql://u:SECRET@host/runs"',
        '"postgresql://u:SECRET@host/runs" = 1',
    ],
)
def test_a_password_in_the_wrong_place_is_not_printed(
    toml: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.toml").write_text(toml)
    assert main(["profile", str(tmp_path / "my.toml"), "-o", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    assert "SECRET" not in printed.out + printed.err
    assert len(printed.err.splitlines()) == 1


def test_the_traceback_of_a_bug_holds_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", None)
    assert main(["formats"]) == 0
    error = KeyError("postgresql://u:SECRET@host/runs")
    sys.excepthook(KeyError, error, None)
    assert capsys.readouterr().err == "KeyError: 'postgresql://u:***@host/runs'\n"


@pytest.mark.parametrize(
    "text",
    [
        "nas profile --device ssh:pi@10.0.0.5/ort",
        "--device=ssh:pi@a.local:2222,pi@b.local:2222/ort:threads=4",
        "'ssh:pi@[fe80::1]:22/ort'",
        "ssh:pi@board has no Python (python3): install it",
    ],
)
def test_the_address_of_a_board_holds_no_password(text: str) -> None:
    assert redacted(text) == text


def test_what_is_no_address_of_a_board_is_masked() -> None:
    assert redacted("ssh:me:s3cret@host") == "ssh:***@host"
    assert redacted("ssh://me:s3cret@host") == "ssh://me:***@host"

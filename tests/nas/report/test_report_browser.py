"""The report in a real browser: every plot is drawn, nothing is complained about, nothing is fetched."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hw_profiles.documents import write_document
from nas.report import write_report
from tests.nas.tune.fronts import front

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
BROWSERS_OWN = re.compile(r"https?://([a-z0-9-]+\.)*(google|googleapis|gvt1)\.com/")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    # 500 is the least that headless Chromium opens
    pytest.mark.parametrize("width", [1280, pytest.param(500, marks=pytest.mark.slow)]),
]


def open_in_browser(page: Path, width: int, profile: Path) -> tuple[str, str, set[str]]:
    """The rendered document, the browser's log and the addresses that any page asked for.

    What the browser asks for by itself is left out; no name is resolved, so nothing leaves the machine.
    """
    profile.mkdir()
    log = profile / "net.json"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},3000"]
    command += [f"--log-net-log={log}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    asked = re.findall(r'"url":"(https?://[^"]+)"', log.read_text())
    return done.stdout, done.stderr, {url for url in asked if not BROWSERS_OWN.match(url)}


def check_page(page: Path, width: int, profile: Path) -> None:
    """Assert that a page draws all its plots, complains of nothing and fetches nothing."""
    document, log, asked = open_in_browser(page, width, profile)
    figures = re.search(r'id="figures">(.*?)</script>', document, flags=re.S)
    assert figures
    for name in json.loads(figures[1]):
        assert re.search(rf'id="{name}" class="plot js-plotly-plot"', document), name
    assert document.count('class="main-svg"') >= 2 * len(json.loads(figures[1]))
    assert "CONSOLE" not in log
    assert not asked


def test_every_plot_is_drawn_without_error_or_network(run_folder: Path, tmp_path: Path, width: int) -> None:
    check_page(write_report(run_folder), width, tmp_path / "profile")


@pytest.mark.slow
def test_the_page_of_a_tune_is_drawn_likewise(tmp_path: Path, width: int) -> None:
    write_document(tmp_path / "front.json", front(units=120))
    check_page(write_report(tmp_path), width, tmp_path / "profile")


def test_run_without_results_opens_too(empty_run: Path, tmp_path: Path, width: int) -> None:
    document, log, _ = open_in_browser(write_report(empty_run), width, tmp_path / "profile")
    assert "nas search" in document
    assert "CONSOLE" not in log


def test_a_page_that_fetches_would_be_noticed(tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    page.write_text('<script src="https://cdn.plot.ly/plotly.js"></script>')
    assert open_in_browser(page, width, tmp_path / "profile")[2] == {"https://cdn.plot.ly/plotly.js"}

"""A wheel holds all that an installation needs: it is installed outside the checkout and used from there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("hw_profiles", "supernet", "predictors", "nas")
DATA = (
    ".toml",
    ".j2",
    ".css",
    ".js",
    ".txt",
    ".c",
    ".h",
    ".pt",
    ".typed",
)  # of files in the packages that are no modules
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "build")
Use = Callable[..., str]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a wheel of this checkout is installed into; what it depends on is there already."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(build, check=True, cwd=wheels)
    target = tmp_path_factory.mktemp("installed") / "site"
    [wheel] = wheels.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, cwd=wheels
    )
    return target


@pytest.fixture
def use(site: Path, tmp_path: Path) -> Use:
    """Runs the installed interpreter's words in an empty folder; returns what they print."""

    def run(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path)}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


def test_the_command_and_the_package_are_there(site: Path, use: Use) -> None:
    command = str(site / "bin" / "nas")
    assert use(sys.executable, command, "--version").startswith("nas 0.")
    assert "int8" in use(sys.executable, command, "formats")
    assert "cifar-mbconv" in use(sys.executable, command, "spaces")
    code = "import nas, nas.testing; print(nas.__file__); nas.load; nas.testing.check_searcher"
    assert Path(use(sys.executable, "-c", code).strip()).is_relative_to(site)


def test_every_file_of_the_packages_is_installed(site: Path) -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    needed = [path.relative_to(ROOT) for path in files if path.suffix in (".py", *DATA)]
    assert not [str(path) for path in needed if not (site / path).is_file()]


def test_what_is_shipped_beside_the_code_works(use: Use) -> None:
    code = """
from supernet.zoo import ZOO, is_shipped, shipped
from supernet.train.checkpoint import load_weights
from hw_profiles.runtimes.plugin import open_device
spaces = [load_weights(shipped(name)).space for name in sorted(ZOO) if is_shipped(name)]
print(*spaces, open_device("systolic:bitfusion").describe().name)
"""
    there = sorted(path.stem for path in (ROOT / "supernet/zoo").glob("*.pt"))
    assert "cifar-mbconv" in there
    assert use(sys.executable, "-c", code).split() == [*there, "bitfusion"]

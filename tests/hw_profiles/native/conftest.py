"""The agent in C, compiled once for all tests of it."""

from pathlib import Path

import pytest

from tests.hw_profiles.native.made_up import program


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / "agent-made-up"
    path.write_bytes(program())
    path.chmod(0o700)
    return path

"""Wait for what another process does, however busy the machine is."""

import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 600.0  # of several processes on a busy machine
POLL_S = 0.05


def wait_until(happened: Callable[[], Any]) -> None:
    """Return once `happened()` is true.

    Raises:
        AssertionError: if it is not within `DEADLINE_S`.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(POLL_S)

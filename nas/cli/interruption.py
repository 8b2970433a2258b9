"""Signals that end a command do what Ctrl-C does: what is held is let go, and one line says how to go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGTERM", "SIGHUP")  # a service manager, a closed terminal


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on the signals that end a process; what they did before is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    handlers = {
        number: signal.signal(number, _interrupt)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN  # as under nohup
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

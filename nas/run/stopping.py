"""Being asked to stop: by Ctrl-C, by the system, or because the terminal is gone. All three mean the same."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP is missing on Windows
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
Handler = Callable[[int, FrameType | None], None]


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether a signal asked to stop in the block, so that a step is finished and
    saved before leaving.

    The second time interrupts at once, as without this.
    """
    received: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    with _handled_by(ask):
        yield lambda: bool(received)


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """Bind a handler to the signals that ask to stop in the block.

    Those that are ignored (of a job in the background, or under nohup) stay so; outside the main thread,
    which alone can be told, none is handled.
    """
    main = threading.current_thread() is threading.main_thread()
    heard = [number for number in SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, previous in handlers.items():
            signal.signal(number, previous)

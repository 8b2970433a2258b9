"""Being asked to stop: a signal is remembered, so that a step is finished and saved before leaving."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed, or the process was told to end, in the block.

    The second time interrupts at once, as without this. Signals that are ignored (of a job in the background,
    say) stay so. Outside the main thread, which alone can be told, it never says so.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    main = threading.current_thread() is threading.main_thread()
    heard = [one for one in SIGNALS if main and signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, ask) for one in heard}
    try:
        yield lambda: bool(asked)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

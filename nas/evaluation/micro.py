"""Arena and flash of networks as a runtime for microcontrollers counts them, where a run asks for these."""

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import CountsMemory
from nas.run.run import Run

ARENA, FLASH = "arena", "flash"
TOO_LARGE = 2.0**62  # bytes of what the runtime does not take


def require_micro(run: Run) -> None:
    """Refuse a run that asks for what nothing here can count, before the work.

    Raises:
        ModuleNotFoundError: what counts is not installed.
    """
    if (runtime := _counting(run)) is not None:
        runtime.require_counter()


def micro_metrics(run: Run, model: bytes) -> dict[str, float]:
    """Return what a network takes, by name of the objective; nothing where a run does not ask.

    Args:
        model: its ONNX file.

    Raises:
        TrilobitError: it does not run on a microcontroller; says why.
    """
    return {} if (runtime := _counting(run)) is None else _taken(runtime, model)


def counted(runtime: CountsMemory, model: bytes) -> dict[str, float]:
    """Return what a file takes, by name of the objective; more than there is, where it does not run there."""
    try:
        return _taken(runtime, model)
    except TrilobitError:  # an operation that microcontrollers do not have
        return {ARENA: TOO_LARGE, FLASH: TOO_LARGE}


def _taken(runtime: CountsMemory, model: bytes) -> dict[str, float]:
    arena_bytes, flash_bytes = runtime.memory_bytes(model)
    return {ARENA: float(arena_bytes), FLASH: float(flash_bytes)}


def _counting(run: Run) -> CountsMemory | None:
    """Return what counts arena and flash, where a run has an objective or a limit of these, or its device has
    no times; None on other runtimes, where they stay predictions.
    """
    asked = {*run.config.search.objectives, *run.config.constraints} & {ARENA, FLASH}
    return run.runtime if (asked or run.timeless) and isinstance(run.runtime, CountsMemory) else None

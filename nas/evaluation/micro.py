"""Arena and flash of networks as TensorFlow Lite Micro takes them, where a run asks for these."""

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import own_files
from nas.run.run import Run

ARENA, FLASH = "arena", "flash"
TOO_LARGE = 2.0**62  # bytes of what its interpreter does not run


def require_micro(run: Run) -> None:
    """Refuse a run that asks for what nothing here can count, before the work.

    Raises:
        ModuleNotFoundError: TensorFlow Lite Micro is not installed.
    """
    if asks_for_micro(run):
        import hw_profiles.runtimes.tflite_micro.interpreter  # noqa: F401  # the engine: only where asked for


def asks_for_micro(run: Run) -> bool:
    """Return whether a run has an objective or a limit of microcontrollers, and files for them are written:
    on other devices these stay predictions.
    """
    asked = {*run.config.search.objectives, *run.config.constraints}
    return bool(asked & {ARENA, FLASH}) and hasattr(run.runtime, "own_file")


def micro_metrics(run: Run, model: bytes) -> dict[str, float]:
    """Return what a network takes, by name of the objective; nothing where a run does not ask.

    Args:
        model: its ONNX file.
    """
    if not asks_for_micro(run):
        return {}
    from hw_profiles.runtimes.tflite_micro.interpreter import micro_sizes

    try:
        [content] = own_files(run.runtime, model).values()
        taken = micro_sizes(content)
    except TrilobitError:  # an operation that it does not have
        return {ARENA: TOO_LARGE, FLASH: TOO_LARGE}
    return {ARENA: float(taken.arena_bytes), FLASH: float(taken.flash_bytes)}

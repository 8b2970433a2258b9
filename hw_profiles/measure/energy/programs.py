"""Power as NVIDIA's programs say it: `nvidia-smi` of a graphics card, `tegrastats` of a Jetson board."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence

from hw_profiles.measure.energy.power import PowerMeter, rails_that_count

SAMPLE_MS = 100
FIRST_S = 10.0  # what a program may take to say anything
# the driver's figure is a mean over up to a second: https://arxiv.org/abs/2312.02741
CARD_UPDATES, CARD_SETTLING_S = 10, 1.0
BOARD_UPDATES, BOARD_SETTLING_S = 10, 0.2
# `VDD_IN 4067mW/4067mW` (now/mean), in older versions without the unit; `RAM 2442/30536MB` is none
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")


def find_nvidia_smi(program: str = "nvidia-smi", *, card: int = 0) -> PowerMeter | str:
    """Return the power of a graphics card, or in one line why there is none."""
    ask = [program, f"--id={card}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    first = _first_line(ask)
    if first is None:
        return f"no {program}, or no card {card}"
    if _watts_of(first) is None:
        return f"{program} knows no power of card {card}: it says {first[:60]!r}"
    loop = [*ask, f"--loop-ms={SAMPLE_MS}"]
    return PowerMeter(
        "nvidia-smi", f"card {card}", _following(loop, _watts_of), CARD_UPDATES, CARD_SETTLING_S
    )


def find_tegrastats(program: str = "tegrastats") -> PowerMeter | str:
    """Return the power of a Jetson board, or in one line why there is none."""
    loop = [program, "--interval", str(SAMPLE_MS)]
    first = _first_line(loop)
    if first is None:
        return f"no {program}"
    counted = rails_that_count(list(_rails_mw(first)))
    if not counted:
        return f"{program} names no power rail; it may need root"

    def watts(line: str) -> float | None:
        rails_mw = _rails_mw(line)
        return 1e-3 * sum(rails_mw[name] for name in counted) if set(counted) <= set(rails_mw) else None

    return PowerMeter(
        "tegrastats", " and ".join(counted), _following(loop, watts), BOARD_UPDATES, BOARD_SETTLING_S
    )


def _watts_of(line: str) -> float | None:
    """Return the only number of a line; None for `[N/A]`."""
    try:
        return float(line)
    except ValueError:
        return None


def _rails_mw(line: str) -> dict[str, int]:
    """Return the milliwatts of each rail in a line of tegrastats.

    >>> _rails_mw("RAM 2442/30536MB (lfb 5x4MB) CPU [2%@729,off] VDD_IN 4067mW/4100mW VDD_SOC 980/980")
    {'VDD_IN': 4067, 'VDD_SOC': 980}
    """
    return {name: int(milliwatts) for name, milliwatts in _RAIL.findall(line)}


def _first_line(command: Sequence[str]) -> str | None:
    """Return the first line that a program says; None where there is no such program, or it says nothing."""
    process = _started(command)
    if process is None:
        return None
    timer = threading.Timer(FIRST_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        return process.stdout.readline().strip() or None
    finally:
        timer.cancel()
        _end(process)


def _following(
    command: Sequence[str], watts_of: Callable[[str], float | None]
) -> Callable[[threading.Event], Iterator[float]]:
    """Return the watts of each line that a program goes on saying."""

    def samples(stopped: threading.Event) -> Iterator[float]:
        process = _started(command)
        if process is None:
            return
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if stopped.is_set():
                    return
                watts = watts_of(line)
                if watts is not None:
                    yield watts
        finally:
            _end(process)

    return samples


def _started(command: Sequence[str]) -> subprocess.Popen[str] | None:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
        )
    except OSError:
        return None


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()

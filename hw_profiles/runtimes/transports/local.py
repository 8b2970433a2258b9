"""This machine: artifacts are compiled in this process and timed here."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.measure.energy import EnergyError, find_meter, joules_of
from hw_profiles.measure.host import pinned
from hw_profiles.measure.interleave import ReferenceWorkload, Timed, interleaved
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Artifact, Executable, Runtime


class Local:
    """The machine that this process runs on.

    Args:
        gpu: whether a graphics card does the work: its energy counts then.
    """

    def __init__(self, *, gpu: bool = False) -> None:
        self._meter = find_meter(gpu)
        self._reference: ReferenceWorkload | None = None  # learnt on the core that is measured on

    @property
    def parallel(self) -> int:
        """One at a time: two would disturb each other."""
        return 1

    def located(self, info: DeviceInfo) -> DeviceInfo:
        """Return it with where joules come from here."""
        return replace(info, energy=self._meter if isinstance(self._meter, str) else self._meter.describe())

    def sample(
        self,
        runtime: Runtime,
        artifacts: Sequence[Artifact],
        contexts: Sequence[Hashable | None],
        plan: MeasurePlan,
    ) -> list[Measurement]:
        """Compile each artifact as often as the plan has sessions, and time them in passes."""
        runs = [_sessions(runtime, artifact, plan) for artifact in artifacts]
        ready = [sessions for sessions in runs if not isinstance(sessions, str)]
        of = [context for context, run in zip(contexts, runs, strict=True) if not isinstance(run, str)]
        with pinned(plan.core):
            self._reference = self._reference or ReferenceWorkload()
            samples = interleaved(ready, plan, self._reference, of)
            firsts = [sessions[0] for sessions in ready]
            measured = map(Measurement.of, samples, self._joules(firsts, plan))
        return [Measurement(error=run) if isinstance(run, str) else next(measured) for run in runs]

    def _joules(self, runs: Sequence[Timed], plan: MeasurePlan) -> list[float | None]:
        try:
            return joules_of(runs, self._meter, seconds=plan.energy_s)
        except EnergyError as error:
            raise TrilobitError(str(error)) from None


def _timed(executable: Executable, artifact: Artifact, plan: MeasurePlan) -> Timed:
    """Return an executable on the artifact's example, or where it has none on what it chooses itself; it has
    run once.

    Raises:
        Exception: whatever the engine rejects.
    """
    example = artifact.example  # plug-ins of before 0.3 know no such argument
    run = executable.timed(plan.clock, example=example) if example else executable.timed(plan.clock)
    run(1)
    return run


def _sessions(runtime: Runtime, artifact: Artifact, plan: MeasurePlan) -> list[Timed] | str:
    """Return the artifact compiled anew for each session of the plan, or why it cannot be."""
    try:
        return [_timed(runtime.compile(artifact), artifact, plan) for _ in range(plan.sessions)]
    except Exception as error:  # whatever the engine rejects becomes a row with its error
        return one_line(error)

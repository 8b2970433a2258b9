"""Which stages of a run folder are done: fingerprints of what they depended on, and how long they took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.documents import write_document
from nas.run.documents import StageDone, State, Timings, read_optional


@dataclass(frozen=True)
class StageRecord:
    """`state.json` and `timings.json` of a folder."""

    folder: Path

    def is_done(self, stage: str, fingerprint: str, results: Sequence[Path] = ()) -> bool:
        """Return whether the stage finished with this fingerprint, and nobody removed its results."""
        done = self._state().stages.get(stage)
        return done is not None and done.fingerprint == fingerprint and all(map(Path.exists, results))

    def has_finished(self, stage: str) -> bool:
        """Return whether the stage finished at least once, whatever changed since."""
        return stage in self._state().stages

    def mark_done(self, stage: str, fingerprint: str, seconds: float) -> None:
        """Record that the stage finished, and how long it took (over all attempts that ended)."""
        stages = {**self._state().stages, stage: StageDone(fingerprint, round(seconds, 2))}
        write_document(self.folder / "state.json", State(stages))
        timings = Timings({name: done.seconds for name, done in stages.items()})
        write_document(self.folder / "timings.json", timings)

    def _state(self) -> State:
        return read_optional(self.folder / "state.json", State) or State()

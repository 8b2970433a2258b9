"""Where the files of a run are."""

from dataclasses import dataclass
from pathlib import Path

from nas.run.config import RunConfig


@dataclass(frozen=True)
class RunPaths:
    """A run folder and its configuration: where each file is.

    Attributes:
        folder: of the run.
        config: resolved.
    """

    folder: Path
    config: RunConfig

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "supernet" / "last.pt"

    @property
    def quantized_path(self) -> Path:
        """The supernet after its quantized phase."""
        return self.folder / "supernet" / "quantized.pt"

    @property
    def storage_url(self) -> str:
        """Of the Optuna storage that holds every expensive evaluation; it may hold a password."""
        return self.config.storage.url or f"sqlite:///{self.folder / 'run.db'}"

    @property
    def shared(self) -> bool:
        """Whether other machines may evaluate too."""
        return bool(self.config.storage.url)

    @property
    def samples_path(self) -> Path:
        """Which networks were evaluated for the predictor to learn from."""
        return self.folder / "samples.json"

    @property
    def quality_path(self) -> Path:
        return self.folder / "quality.json"

    @property
    def front_path(self) -> Path:
        return self.folder / "front.json"

    @property
    def export_path(self) -> Path:
        return self.folder / "export"

    @property
    def report_path(self) -> Path:
        return self.folder / "report.html"

"""Where the files of a run folder are."""

from dataclasses import dataclass
from pathlib import Path

from nas.run.config import RunConfig
from nas.run.tune_config import TuneConfig

ORIGINAL, EXAMPLE, QUANTIZATION = "original.onnx", "example.npz", "quantization.npz"  # of a tuned model


@dataclass(frozen=True)
class FolderPaths:
    """The files that every run folder has.

    Attributes:
        folder: of the run.
    """

    folder: Path

    @property
    def front_path(self) -> Path:
        """The front, with all that was measured."""
        return self.folder / "front.json"

    @property
    def export_path(self) -> Path:
        """Exported networks, a folder each."""
        return self.folder / "export"

    @property
    def report_path(self) -> Path:
        return self.folder / "report.html"

    @property
    def storage_url(self) -> str:
        """Of the Optuna storage that holds every expensive evaluation."""
        return f"sqlite:///{self.folder / 'run.db'}"


@dataclass(frozen=True)
class RunPaths(FolderPaths):
    """The files of `nas run`.

    Attributes:
        config: resolved.
    """

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
        """Of the storage, the folder's own or one that machines share; it may hold a password."""
        return self.config.storage.url or super().storage_url

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


@dataclass(frozen=True)
class TunePaths(FolderPaths):
    """The files of `nas tune`.

    Attributes:
        config: resolved.
    """

    config: TuneConfig

    @property
    def original_path(self) -> Path:
        """The model as it was given, with the weights that it kept in other files."""
        return self.folder / ORIGINAL

    @property
    def quantization_path(self) -> Path:
        """What any policy of the model needs."""
        return self.folder / QUANTIZATION

    @property
    def prepared_path(self) -> Path:
        """The time of the prepared model in fp32."""
        return self.folder / "prepared.json"

    @property
    def latency_path(self) -> Path:
        """Times of whole policies."""
        return self.folder / "latency.json"

    @property
    def rounds_path(self) -> Path:
        """What the rounds of the search chose."""
        return self.folder / "rounds.json"

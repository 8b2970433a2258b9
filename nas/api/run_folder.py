"""A run folder, opened to look at."""

from dataclasses import dataclass
from pathlib import Path

from nas.api.exported import Exported, read_exports
from nas.api.front import EXPORT, Front, read_front_file
from nas.api.profiles import Profile, only_profile
from nas.run.config import RunConfig
from nas.run.config_file import read_config
from nas.run.configuration import RECORD
from nas.run.documents import QualityFile, read_optional


@dataclass(frozen=True)
class RunFolder:
    """What a run has left in its folder so far.

    Attributes:
        path: of the folder.
    """

    path: Path

    @property
    def config(self) -> RunConfig:
        """Its configuration, resolved.

        Raises:
            TrilobitError: `run.toml` is broken.
        """
        return read_config(self.path / RECORD)

    @property
    def profile(self) -> Profile:
        """The profile of its device.

        Raises:
            TrilobitError: there is none yet, or there are several.
        """
        front = self.path / "front.json"
        return only_profile(self.path, read_front_file(front).file.device if front.exists() else None)

    @property
    def front(self) -> Front:
        """The front of its search.

        Raises:
            TrilobitError: there is none yet.
        """
        return read_front_file(self.path / "front.json")

    @property
    def exported(self) -> Exported:
        """Its exported networks, none where there are none."""
        return read_exports(self.path / EXPORT)

    @property
    def quality(self) -> QualityFile | None:
        """How good its predictions were; None before they were assessed."""
        return read_optional(self.path / "quality.json", QualityFile)

    def report(self) -> Path:
        """Write `report.html` and return its path."""
        from nas.report import write_report

        return write_report(self.path)

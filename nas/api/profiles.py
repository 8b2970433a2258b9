"""Profiles: what the layers of a space cost on one device."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from nas.run.frames import frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Profile:
    """A device's profile and the file that holds it.

    Attributes:
        path: of the file; `device=f"recorded:{path}"` replays it.
        table: what was measured and predicted, and how far it can be trusted.
    """

    path: Path
    table: DeviceProfile

    def __len__(self) -> int:
        return len(self.table.table)

    @property
    def name(self) -> str:
        """Name of the device."""
        return self.table.device.name

    @property
    def figures(self) -> str:
        """How its numbers were found: `measured`, `modelled` or `published`."""
        return self.table.device.figures

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each layer: its key, seconds and their standard error, joules, where from.

        Raises:
            TrilobitError: pandas is not installed.
        """
        return frame(list(self._rows()), "layer")

    def _rows(self) -> Iterator[dict[str, Any]]:
        table = self.table
        for layer in dict.fromkeys((*table.table, *table.estimates)):
            row = table.table.get(layer)
            is_measured = row is not None and row.error is None and not table.unreliable(layer)
            yield {
                "layer": layer.key(),
                "op": layer.kind,
                "weight_format": layer.weight_format,
                "latency_s": table.cost_s(layer),
                "std_s": table.std_s(layer),
                "energy_j": table.energy_j(layer),
                "source": table.device.figures if is_measured else "predicted",
                "error": row.error if row is not None else None,
            }


def read_profile(path: Path) -> Profile:
    """Return the profile in a file.

    Raises:
        TrilobitError: there is none, it is damaged, or of another version.
    """
    return Profile(path, load_profile(path))


def only_profile(folder: Path, name: str | None = None) -> Profile:
    """Return a run folder's profile: the one called `name`, or the only one.

    Raises:
        TrilobitError: there is none, or several.
    """
    paths = sorted((folder / "profiles").glob("*.json" if name is None else f"{name}.json"))
    if len(paths) == 1:
        return read_profile(paths[0])
    if not paths:
        raise TrilobitError(f"{folder}: no profile yet; `nas profile -o {folder}` or nas.profile makes one")
    profile_names = ", ".join(path.stem for path in paths)
    raise TrilobitError(f"{folder}: holds profiles of {profile_names}; open one of its files with nas.load")

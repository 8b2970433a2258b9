"""Which processes train together, by what torchrun says; without torch, which takes a second to import."""

import os
from dataclasses import dataclass

from hw_profiles.errors import TrilobitError

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


@dataclass(frozen=True)
class World:
    """The processes of one training.

    Attributes:
        rank: number of this process; the first, 0, writes all files.
        size: how many there are.
        local_rank: number of this process on its machine: which GPU it takes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def writes(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def launched_world() -> World:
    """Return what torchrun says in the environment; one process without it.

    Raises:
        TrilobitError: half of it is missing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return World()
    missing = [name for name in LAUNCHED if name not in os.environ]
    if missing:
        raise TrilobitError(f"WORLD_SIZE is set, but not {', '.join(missing)}; start with torchrun")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return World(rank, size, int(os.environ.get("LOCAL_RANK", rank)))

"""One network on its way from the front into a folder."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from nas.run.front_document import Entry
from supernet.families.family import Family
from supernet.space.space import Candidate


@dataclass(frozen=True, eq=False)
class ExportContext:
    """A network of the front, and what its genes stand for, worked out once.

    Attributes:
        entry: what the front says of it.
        workload: what is measured, in units of cost.
        lowered: the same as the layers that are executed.
    """

    entry: Entry
    candidate: Candidate
    workload: Workload
    lowered: Workload

    @classmethod
    def of(cls, family: Family, entry: Entry) -> Self:
        """Decode an entry of the front."""
        candidate = family.space().candidate(np.array(entry.genes, np.int16))
        workload = family.workload(candidate)
        return cls(entry, candidate, workload, lower(workload))

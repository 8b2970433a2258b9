"""Every space that a small table of blocks can make: what a search of spaces is compared with."""

import numpy as np

from nas.search.space_design import BlockTable, Spaces


def all_spaces(table: BlockTable) -> Spaces:
    """Return every space there is (m, 2 s)."""
    options = [np.argwhere(stage) for stage in table.allowed]  # (k, 2): type, window
    chosen = np.indices([len(stage_options) for stage_options in options]).reshape(len(options), -1)
    pairs = [stage_options[index] for stage_options, index in zip(options, chosen, strict=True)]
    return np.column_stack([p[:, 0] for p in pairs] + [p[:, 1] for p in pairs]).astype(np.int16)

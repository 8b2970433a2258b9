"""Results as pandas data frames, where pandas is installed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw_profiles.engines import missing_engine
from hw_profiles.errors import TrilobitError

if TYPE_CHECKING:
    import pandas as pd


def frame(rows: Sequence[Mapping[str, Any]], index: str | None = None) -> "pd.DataFrame":
    """Return rows as a data frame; `index` names the column that becomes its index.

    Raises:
        TrilobitError: pandas is not installed.
    """
    try:
        import pandas as pd  # optional, and takes a second to import
    except ModuleNotFoundError as error:
        raise TrilobitError(f"data frames: {missing_engine(error)}") from None
    made = pd.DataFrame.from_records([dict(row) for row in rows])
    return made if index is None or made.empty else made.set_index(index)

"""Tables and source with damage of any kind: read, or refused in one line."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from supernet.data import python_source
from supernet.data.python_source import CLASSES, token_classes
from supernet.tasks.loading import load_data
from tests.fuzz.mutations import Attempt, damaged_bytes, require_sound, try_out

COUNT = 1_000
TABLE = "text,label\n" + "".join(
    f'"text, {i} ""quoted"" é",{"ab"[i % 2]}\nplain {i},{"ba"[i % 2]}\n' for i in range(12)
)


@pytest.mark.slow
def test_a_damaged_table_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "it.csv"

    def attempts() -> Iterator[Attempt]:
        for mutation in damaged_bytes(TABLE.encode(), count=COUNT, rng=np.random.default_rng(31)):
            path.write_bytes(mutation.data)
            yield try_out(mutation.how, lambda: load_data(f"csv:{path}?length=16", seed=0))

    require_sound(attempts())


@pytest.mark.slow
def test_damaged_source_has_a_class_a_byte_or_none() -> None:
    source = Path(python_source.__file__).read_bytes()
    for mutation in damaged_bytes(source, count=COUNT // 4, rng=np.random.default_rng(31)):
        text = mutation.data.decode("utf-8", "replace").replace("\r", "\n").encode()
        labels = token_classes(text)
        assert labels is None or (len(labels) == len(text) and labels.max(initial=0) < len(CLASSES))

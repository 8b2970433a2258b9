"""What techniques of quantization did, read back without the numbers that they changed."""

import json
import zipfile
from pathlib import Path

import numpy as np

from hw_profiles.documents import MismatchError, parse
from supernet.ptq.quantization import Compensation


def read_compensations(path: Path) -> tuple[Compensation, ...]:
    """Return the compensations in the file of a quantization; none where there is no such file, or nothing in
    it can be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            described = json.loads(file["described"].tobytes())
        return parse(tuple[Compensation, ...], described["compensations"])
    except (OSError, KeyError, ValueError, TypeError, MismatchError, zipfile.BadZipFile):
        return ()

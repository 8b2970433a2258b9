"""What a board's owner reports of it: a table of layers and milliseconds, and the form to fill in."""

import csv
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.runtimes.info import DeviceInfo

COLUMNS = ("layer", "ms")
MILLI = 1e-3
LONGEST_MS = 1e9
PLAN = MeasurePlan(rounds=1, warmup_runs=0, waiting_s=0.0)  # how it was measured is the owner's business


def read_report(path: Path) -> DeviceProfile:
    """Return a report as a profile whose figures are reported: a row for each layer that has a time.

    Raises:
        TrilobitError: it is not there, or a line is no layer and milliseconds; says which.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrilobitError(f"{path}: cannot be read ({error}); give {','.join(COLUMNS)} lines") from None
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or tuple(cell.strip() for cell in rows[0]) != COLUMNS:
        raise TrilobitError(f"{path}: its first line must be {','.join(COLUMNS)!r}")
    table = {}
    for number, row in enumerate(rows[1:], 2):
        if row and (len(row) != len(COLUMNS) or row[1].strip()):  # a time that is left open is none
            layer, seconds = _row(f"{path}: line {number}", row)
            table[layer] = Measurement((seconds,))
    if not table:
        raise TrilobitError(f"{path}: has no time of any layer; write milliseconds behind each")
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem)
    info = DeviceInfo(name, "see report", "report", "1", path.name, integer_sums="exact", figures="reported")
    return DeviceProfile(info, PLAN, table)


def _row(where: str, row: list[str]) -> tuple[Layer, float]:
    if len(row) != len(COLUMNS):
        raise TrilobitError(f"{where}: {len(row)} columns; it must be {','.join(COLUMNS)}")
    try:
        milliseconds = float(row[1])
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds <= LONGEST_MS:
        raise TrilobitError(f"{where}: {shown(row[1])} is no time; write milliseconds, such as 1.25")
    try:
        return parse_key(row[0].strip()), milliseconds * MILLI
    except (TrilobitError, ValueError) as error:
        raise TrilobitError(f"{where}: {shown(row[0])} is no layer ({error})") from None


def report_form(layers: Iterable[Layer]) -> str:
    """Return a report of layers whose times are to be filled in.

    >>> from hw_profiles.graph.layer import map_layer
    >>> report_form([map_layer("conv", (8, 4, 4), 8)]).splitlines()[0]
    'layer,ms'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((layer.key(), "") for layer in layers)
    return text.getvalue()

"""The figures of docs/benchmarks.md, read from benchmarks/results/*.json: none is typed by hand."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UNRECORDED = "AVX512-VNNI"  # what the machine of all results from before 29 November 2026 has
FRACTIONS = (
    "fraction",
    "share",
    "of the fp32 file",
)  # units that are printed in percent where % is asked for


@dataclass(frozen=True)
class Headline:
    """One row of a results file that is shown.

    Attributes:
        result: the file, without `.json`.
        task, metric: which row.
        words: what it is, for a reader who does not know the benchmark.
        unit: what the figure is printed in.
        peers: which of the row's peers are shown, and how they are called.
    """

    result: str
    task: str
    metric: str
    words: str
    unit: str = ""
    peers: Mapping[str, str] = field(default_factory=dict)


def headlines(section: str) -> str:
    """Return the table of a section of headlines.toml."""
    listed = tomllib.loads((HERE / "headlines.toml").read_text())[section]
    head = ["| what | ours | others | target | measured |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(line(Headline(**entry)) for entry in listed)])


def line(headline: Headline) -> str:
    """Return the line of one figure, with where and when it was measured and the file that has it."""
    document = json.loads((HERE / "results" / f"{headline.result}.json").read_text())
    row, unit = row_of(document, headline), headline.unit
    ours = shown(row["ours"], row["unit"], unit)
    if row["spread"]:
        ours += f" ± {shown(row['spread'], row['unit'], unit)}"
    others = "; ".join(f"{w} {shown(row['peers'][p], row['unit'], unit)}" for p, w in headline.peers.items())
    target = "" if row["target"] is None else shown(row["target"], row["unit"], unit)
    link = f"[{headline.result}](../benchmarks/results/{headline.result}.json)"
    where = f"{link}, {instructions(document)}, {document['date']}"
    return f"| {headline.words} | {ours} | {others} | {target} | {where} |"


def row_of(document: Mapping[str, Any], headline: Headline) -> Mapping[str, Any]:
    """Return the row that a headline names.

    Raises:
        LookupError: there is none, or several.
    """
    rows = [
        row for row in document["rows"] if (row["task"], row["metric"]) == (headline.task, headline.metric)
    ]
    if len(rows) != 1:
        raise LookupError(f"{headline.result}.json: {len(rows)} rows {headline.task!r}, {headline.metric!r}")
    return rows[0]


def instructions(document: Mapping[str, Any]) -> str:
    """Return the instruction set that the figures of a document are of."""
    recorded = str(document["machine"].get("instruction_set", UNRECORDED))
    return "AVX2 kernels on AVX512-VNNI" if "saturating" in recorded else recorded


def shown(value: float, recorded: str, unit: str) -> str:
    """Return a figure with three to four digits and its unit."""
    if unit == "%" and recorded in FRACTIONS:
        value *= 100
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()

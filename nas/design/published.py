"""`nas spaces design --table`: on blocks that others have judged and timed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from hw_profiles.profiles.block_samples import BlockSamples, read_block_samples
from nas.design.designed import design, summary, verdict
from nas.run.design_settings import Effort
from nas.run.reporting import QUIET, Reporter
from nas.search.limits import Limit
from nas.search.space_design import BlockTable, Spaces, block_table

SCHEMA = "design/1"
COMPARED = 1000  # random spaces: enough to say what beats 99 % of them


def design_on_table(
    table_file: str,
    output: Path,
    *,
    limits: Sequence[Limit] = (),
    spaces: str | None = None,
    effort: Effort | None = None,
    reporter: Reporter = QUIET,
) -> dict[str, Any]:
    """Search a space on a published table, and score others beside it.

    The block types are the publication's, so that nothing here can search the space: what is written is its
    name and how good it is (`design.json`).

    Raises:
        TrilobitError: no such table, spaces that are none of it, or no network meets a limit.
    """
    effort = effort or Effort()
    samples = _samples(table_file)
    table = block_table(samples.groups, constant_s=[0.0] * len(samples.sizes))
    named = _spaces(spaces, table)
    reporter.say(
        f"{samples.device}: {len(table.loss):,} sampled sub-stages at {len(samples.sizes)} resolutions, "
        f"{table.size:,.0f} spaces; their latencies are the publication's, what no stage holds counts 0 s",
    )
    designed = design(
        table,
        limits,
        seed=effort.seed,
        evaluations=effort.evaluations,
        compared=COMPARED,
        reporter=reporter,
    )
    best = designed.evolved.best
    scored = {_code(best): best, **named}
    beaten = dict(zip(scored, designed.beaten(np.array([*scored.values()])).tolist(), strict=True))
    for code, share in beaten.items():
        reporter.say(f"{code}: beats {share:.1%} of {COMPARED} random spaces")
    reporter.say(verdict(designed))
    document = {
        "schema": SCHEMA,
        "device": samples.device,
        "best": _code(best),
        **summary(designed),
        "beats_random": beaten,
    }
    path = output / "design.json"
    write_json(path, document)
    reporter.say(f"{path}")
    return document


def _samples(text: str) -> BlockSamples:
    """Return the samples of `FILE`, or `FILE:DEVICE`."""
    path, _, device = text.rpartition(":")
    return (
        read_block_samples(Path(text))
        if not path or Path(text).exists()
        else read_block_samples(Path(path), device)
    )


def _spaces(text: str | None, table: BlockTable) -> dict[str, Spaces]:
    """Return the genes (2 s,) of each code, by that code."""
    spaces, stages = {}, len(table.count)
    for code in text.split(",") if text else ():
        digits = code.replace("-", "", 1)
        space = np.array([int(digit) for digit in digits if "0" <= digit <= "9"], np.int16)
        well_formed = len(digits) == len(space) == 2 * stages and code[stages : stages + 1] == "-"
        if not well_formed or not _allowed(table, space):
            raise TrilobitError(
                f"--spaces {code!r}: write {stages} block types, '-', {stages} width windows, such as "
                f"{_code(np.zeros(2 * stages, np.int16))}, of those in the table"
            )
        spaces[code] = space
    return spaces


def _allowed(table: BlockTable, space: Spaces) -> bool:
    """Return whether every stage has such a block type and window."""
    stages, types, windows = table.allowed.shape
    inside = (space[:stages] < types).all() and (space[stages:] < windows).all()
    return bool(inside and table.allowed[np.arange(stages), space[:stages], space[stages:]].all())


def _code(space: Spaces) -> str:
    """Return a code such as `151122-023231`: block types, then width windows."""
    digits = "".join(map(str, space.tolist()))
    return f"{digits[: len(digits) // 2]}-{digits[len(digits) // 2 :]}"

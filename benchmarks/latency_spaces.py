"""Published latency tables as search spaces: NAS-Bench-201, FBNet, HAT's Transformers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predictors.table import CostTable, Positions
from supernet.space.space import Choice, Genomes, SearchSpace

EXACT = 1e-5  # largest relative error of a sum of blocks that was called a measurement
SIXTIETHS = 60  # averages over up to six layers as whole numbers


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to write the networks of a table as genomes.

    Attributes:
        space: of the genomes.
        genomes: (n, g), canonical.
        costs: known for free.
    """

    space: SearchSpace
    genomes: Genomes
    costs: CostTable | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """Measured networks.

    Attributes:
        readings: the same networks, in one or more ways.
        latency: device -> (n,) milliseconds, nan where not measured.
    """

    readings: tuple[Reading, ...]
    latency: dict[str, np.ndarray]


def nas_bench_201(data: Path) -> Table:
    """Two readings: every operation costs, or only those on a path from input to output."""
    file = np.load(data / "latency" / "nb201.npz")
    ops, names = file["ops"].astype(np.int16), tuple(file["op_names"].tolist())
    edges = tuple(file["edges"].tolist())
    plain = SearchSpace("nb201", tuple(Choice(f"e{edge}.op", names, role="op") for edge in edges))
    latency = {name: file["lat"][:, i].astype(float) for i, name in enumerate(file["lat_devices"].tolist())}
    for i, name in enumerate(file["sub_devices"].tolist()):
        latency[name] = np.full(len(ops), np.nan)
        latency[name][file["sub_idx"]] = file["sub_lat"][:, i]
    return Table((Reading(plain, ops), pruned(ops, names, edges)), latency)


def pruned(ops: Genomes, names: tuple[str, ...], edges: tuple[str, ...]) -> Reading:
    """Operations (n, 6) on no path from input to output as dead genes.

    The first choice is which edges lie on a path; the operation of every other edge is dead. `names[0]` is
    "no edge".
    """
    paths = on_a_path(ops != 0, edges)
    wirings, wiring = np.unique(paths, axis=0, return_inverse=True)
    labels = tuple("+".join(np.array(edges)[mask].tolist()) or "none" for mask in wirings)
    choices = [Choice("wiring", labels)]
    for i, edge in enumerate(edges):
        alive = tuple(label for label, mask in zip(labels, wirings, strict=True) if mask[i])
        choices.append(Choice(f"e{edge}.op", names[1:], "architecture", (("wiring", alive),), "op"))
    genomes = np.column_stack([wiring.ravel(), np.where(paths, ops - 1, 0)]).astype(np.int16)
    return Reading(SearchSpace("nb201-pruned", tuple(choices)), genomes)


def on_a_path(present: np.ndarray, edges: tuple[str, ...]) -> np.ndarray:
    """(n, e) which of the edges `a-b` that are present (n, e) lie on a path from the first node to the last.

    >>> on_a_path(np.array([[True, False, True]]), ("0-1", "1-2", "0-2"))
    array([[False, False,  True]])
    """
    ends = [tuple(map(int, edge.split("-"))) for edge in edges]
    last = max(b for _, b in ends)
    reached, reaching = (np.zeros((len(present), last + 1), bool) for _ in range(2))
    reached[:, 0] = reaching[:, last] = True
    for i in sorted(range(len(ends)), key=lambda i: ends[i]):  # sources in order
        a, b = ends[i]
        reached[:, b] |= reached[:, a] & present[:, i]
    for i in sorted(range(len(ends)), key=lambda i: ends[i], reverse=True):
        a, b = ends[i]
        reaching[:, a] |= reaching[:, b] & present[:, i]
    return np.column_stack([present[:, i] & reached[:, a] & reaching[:, b] for i, (a, b) in enumerate(ends)])


def fbnet(data: Path) -> Table:
    """22 layers of nine operations; devices whose column is an exact sum of blocks are left out."""
    file = np.load(data / "latency" / "fbnet.npz")
    genomes, names = file["ops"].astype(np.int16), tuple(file["op_names"].tolist())
    space = SearchSpace("fbnet", tuple(Choice(f"l{i}.op", names, role="op") for i in range(genomes.shape[1])))
    measured = {name: file["lat"][:, i].astype(float) for i, name in enumerate(file["lat_devices"].tolist())}
    latency = {name: ms for name, ms in measured.items() if not is_sum(space, genomes, ms)}
    costs = additive_table(space, genomes, np.column_stack([file["flops"], file["params"]]))
    return Table((Reading(space, genomes, costs),), latency)


def is_sum(space: SearchSpace, genomes: Genomes, values: np.ndarray) -> bool:
    """Whether values (n,) are sums over genes (n, g) to the last digit: not measured as whole networks."""
    fitted = additive_table(space, genomes, values[:, None])(genomes)[:, 0]
    return bool(np.abs(fitted / values - 1).max() < EXACT)


def additive_table(space: SearchSpace, genomes: Genomes, values: np.ndarray) -> CostTable:
    """Sums over genes (n, g) that come nearest to values (n, k): for published sums, the sums' own terms."""
    x = space.one_hot(genomes).astype(float)
    terms = np.linalg.lstsq(x, values, rcond=None)[0]
    offsets = np.concatenate(([0], np.cumsum(space.cardinalities)[:-1])).astype(np.float32)
    return CostTable(Positions(np.eye(len(offsets), dtype=np.float32), offsets), terms)


def hat(data: Path) -> dict[str, Table]:
    """Each set of Transformers by its name; latency is the encoder's and the decoder's."""
    file = np.load(data / "latency" / "hat.npz")
    columns = file["columns"].tolist()
    return {name: _transformers(file[name], columns) for name in file.files if name != "columns"}


def _transformers(values: np.ndarray, columns: list[str]) -> Table:
    described = [i for i, name in enumerate(columns) if not name.startswith("latency")]
    numbers = np.rint(values[:, described] * SIXTIETHS).astype(int)
    choices, genomes = [], []
    for i, column in enumerate(described):
        options, genes = np.unique(numbers[:, i], return_inverse=True)
        choices.append(Choice(columns[column], tuple(options.tolist())))
        genomes.append(genes.ravel())
    latency = values[:, [columns.index(f"latency_mean_{half}") for half in ("encoder", "decoder")]]
    reading = Reading(SearchSpace("hat", tuple(choices)), np.column_stack(genomes).astype(np.int16))
    return Table((reading,), {"whole": latency.sum(axis=1).astype(float)})

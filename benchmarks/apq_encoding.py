"""APQ's features of a network: 63 of kernels, 457 of expanded channels and 252 of bit-widths, 772 in all
(Wang et al. 2020, arXiv:2006.08509), in the order of the authors' code.

Every choice of a position is one-hot and all-zero where the network does without the position. So is every
bit-width of a network in fp32: the features of the policy then add nothing to those of the architecture,
which is what transfer from fp32 to quantized networks starts from.
"""

from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import TrilobitError
from predictors.features import Encoding, Features
from supernet.space.space import Genomes, SearchSpace

BITS = ("int4", "int6", "int8")  # one feature each, whichever of them a space offers
ARCHITECTURE = ("kernel", "expanded")
POLICY = ("pointwise.weight", "pointwise.activation", "depthwise.weight", "depthwise.activation")
SWITCH, INTEGER = "policy", "integer"  # the choice that bit-widths depend on, and what it must be


@dataclass(frozen=True, eq=False)
class ApqEncoding:
    """Genomes as features, and back.

    Attributes:
        lookup: the features of a genome.
        architecture: how many of them, the first ones, are of the architecture; the others are of the policy.
    """

    lookup: Encoding
    architecture: int

    def __call__(self, genomes: Genomes) -> Features:
        """(n, g) genomes -> (n, 772) features, 0 or 1; equal networks get equal rows."""
        return self.lookup(genomes)

    def decode(self, features: Features) -> Genomes:
        """(n, 772) features -> (n, g) canonical genomes: the inverse of encoding.

        Raises:
            TrilobitError: a row is not the encoding of any network of the space.
        """
        space, columns = self.lookup.space, self.lookup.columns
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != len(columns):
            raise TrilobitError(f"APQ's features are (n, {len(columns)}), got {features.shape}")
        genomes, used = np.zeros((2, len(features), len(space.choices)), np.int16)
        rows, hits = np.nonzero(features)
        genomes[rows, columns[hits]] = self.lookup.values[hits, 1:].argmax(axis=1)  # the gene that sets it
        used[rows, columns[hits]] = 1
        for column, choice in enumerate(space.choices):
            if choice.name == SWITCH and INTEGER in choice.options:
                quantized = used[:, columns[self.architecture :]].any(axis=1)
                genomes[:, column] = np.where(quantized, choice.options.index(INTEGER), 0)
            if choice.name.endswith(".depth"):
                kernels = _columns(space, choice.name.removesuffix("depth"), ".kernel")
                genomes[:, column] = np.searchsorted(choice.options, used[:, kernels].sum(axis=1))
        wrong = np.nonzero((self(genomes) != features).any(axis=1))[0]
        if len(wrong):
            raise TrilobitError(f"row {wrong[0]} is not the encoding of any network of {space.family}")
        return space.canonical(genomes)


def apq_encoding(space: SearchSpace) -> ApqEncoding:
    """The features of a space whose positions have APQ's choices: `apq-proxyless`.

    Raises:
        TrilobitError: the space has others.
    """
    blocks = [c.name.removesuffix(".kernel") for c in space.choices if c.name.endswith(".kernel")]
    missing = [
        name
        for name in (SWITCH, *(f"{block}.{gene}" for block in blocks for gene in (*ARCHITECTURE, *POLICY)))
        if name not in space.columns
    ]
    if missing or not blocks:
        lacks = missing[0] if missing else "blocks"
        raise TrilobitError(f"{space.family} has no {lacks}; APQ's features are of the space apq-proxyless")
    k, columns, values = int(space.cardinalities.max()), list[int](), list[Features]()
    for gene in (*ARCHITECTURE, *POLICY):
        for column in (space.columns[f"{block}.{gene}"] for block in blocks):
            options = space.choices[column].options
            categories = BITS if gene in POLICY else options
            one_hot = np.array(
                [[option == category for option in options] for category in categories], np.float32
            )
            columns += [column] * len(categories)
            values.append(np.pad(one_hot, ((0, 0), (1, k - len(options)))))
    lookup = Encoding(space, np.array(columns, np.int64), np.concatenate(values))
    return ApqEncoding(lookup, len(columns) - len(BITS) * len(POLICY) * len(blocks))


def _columns(space: SearchSpace, start: str, end: str) -> list[int]:
    return [c for name, c in space.columns.items() if name.startswith(start) and name.endswith(end)]

"""Stage 3: accuracies of sampled candidates, many in fp32 and fewer quantized."""

import numpy as np
from rich.console import Console

from nas.evaluate import Evaluator
from nas.progress import progress_bar
from nas.run import Run
from supernet.space import Candidate, SearchSpace


def sample_plan(run: Run) -> list[Candidate]:
    """Distinct candidates to evaluate: the corners, fp32 ones, and ones of random policies."""
    space, config = run.family.space(), run.config.sample
    rng = np.random.default_rng([run.config.seed, 6])
    fp32 = in_fp32(space, space.sample(config.fp32, rng=rng))
    quantized = vary_share(space, space.sample(config.quantized, rng=rng), rng=rng)
    rows = [space.candidate(row) for row in (*fp32, *quantized)]
    return list({candidate.id: candidate for candidate in (*run.family.corners().values(), *rows)}.values())


def in_fp32(space: SearchSpace, genomes: np.ndarray) -> np.ndarray:
    """The same architectures in fp32 throughout (the first option of every precision choice)."""
    genomes = genomes.copy()
    genomes[:, [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]] = 0
    return genomes


def vary_share(space: SearchSpace, genomes: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Policies whose share of fp32 layers varies from network to network: uniform genes alone would all have
    about half.

    Where one choice switches a whole network to fp32, it stays on quantized, and what varies is the share of
    the first format.
    """
    columns = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    parents = {parent for column in columns for parent, _ in space.choices[column].active_if}
    switches = [column for column in columns if space.choices[column].name in parents]
    share = rng.random((len(genomes), 1))
    genomes = genomes.copy()
    if switches:  # genes that a switch had put to 0 are drawn again
        shape = (len(genomes), len(columns))
        genomes[:, columns] = rng.integers(0, space.cardinalities[columns], size=shape)
    genomes[:, columns] = np.where(rng.random((len(genomes), len(columns))) < share, 0, genomes[:, columns])
    genomes[:, switches] = space.cardinalities[switches] - 1
    return space.canonical(genomes)


def run_sample(run: Run, console: Console) -> None:
    """Evaluate what is not in the store yet."""
    candidates = sample_plan(run)
    with progress_bar(console, "sample", len(candidates)) as update:
        for done, accuracy in enumerate(Evaluator(run).sample(candidates), 1):
            update(done, f"accuracy {accuracy:.3f}")

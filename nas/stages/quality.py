"""How good every prediction of a run is, objective by objective, on networks that it was not made from."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import read_document, to_json
from hw_profiles.files import write_json
from hw_profiles.profiles.profile_json import load_profile
from nas.evaluation.micro import ARENA, FLASH, TOO_LARGE
from nas.evaluation.on_device import FAILED_S
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.problem.costs import Costs, compile_costs, expected_error
from nas.run.documents import QualityFile, QualityRow, SamplesFile, genomes_of, read_optional
from nas.run.front_document import COSTS, LATENCY, Entry, Front
from nas.run.reporting import Reporter, Table
from nas.run.run import Run
from nas.search.objectives import objective
from nas.search.units import show
from nas.stages.sample import in_words
from predictors.assessment.quality import LEVELS, Cost, Quality, judge
from predictors.predictor import Predictor
from supernet.space.space import Genomes, row_keys
from supernet.tasks.evaluate import simulated_outputs

CROSS_VALIDATION, PROFILE, FINALISTS = (
    "cross-validation",
    "profile",
    "finalists",
)  # where the networks are from
IQR_OF_STD = 1.349  # of a normal distribution
NOISE_NETWORKS = 6  # compared image by image, to know how much of accuracy is luck

Floats = NDArray[np.float64]
Row = dict[str, Any]


def row(objective: str, source: str, quality: Quality) -> Row:
    """Return one row of `quality.json`."""
    return {"objective": objective, "source": source, **asdict(quality)}


def cost_bands_of(run: Run, genomes: Genomes) -> Cost:
    """Return what a search compares networks at: predicted latency with a profile, else multiply-adds."""
    profile = load_profile(run.profile_path) if run.profile_path.exists() else None
    costs = compile_costs(run.family, profile).predict(run.family.space().canonical(genomes))
    if profile is not None and np.isfinite(costs.get("latency", np.inf)).all():
        return "latency", costs["latency"]
    return "macs", costs["macs"]


def metric_noise(evaluator: SupernetEvaluator, genomes: Genomes) -> float:
    """Return the standard deviation of the main metric over which examples happen to score it, without what
    all networks have in common: an example that is hard for all of them moves all values, but no ranks.

    Some networks are compared example by example: half the variance of the difference of two.
    """
    run, examples, build = evaluator.builder.run, evaluator.scoring, evaluator.builder.network
    task, space = run.task, run.family.space()
    networks = [build(space.candidate(genome)) for genome in genomes[:NOISE_NETWORKS]]
    scores = np.stack([task.scores(simulated_outputs(n, examples, task), examples) for n in networks])
    first, second = np.triu_indices(len(scores), 1)
    return float(np.sqrt((scores[first] - scores[second]).var(axis=1).mean() / 2 / scores.shape[1]))


def profile_rows(run: Run) -> list[Row]:
    """Tell how well the profile predicts the latency of whole networks that it was not fitted to; nothing
    where there is no profile, or no network was measured as a whole.
    """
    profile = load_profile(run.profile_path) if run.profile_path.exists() else None
    if profile is None or profile.calibration is None:
        return []
    held_out = [network for network in profile.calibration.networks if network.held_out]
    networks = [*held_out, *(profile.validation.networks if profile.validation else ())]
    if len(networks) < 2:
        return []
    costs = compile_costs(run.family, profile)
    mean = costs.calibration.predict_networks_s(networks)
    measured = np.array([network.measured_s for network in networks])
    spread = np.array([network.iqr_s for network in networks]) / IQR_OF_STD
    quality = judge(
        mean,
        measured,
        std=_latency_std_unseen(costs, mean, len(held_out)),
        bands_of=("latency", mean),
        noise=float(np.sqrt((spread**2).mean())),
        n_train=sum(not network.held_out for network in profile.calibration.networks),
    )
    return [row("latency", PROFILE, quality)]


def _latency_std_unseen(costs: Costs, mean: Floats, held_out: int) -> Floats | None:
    """Return the expected error of predicted seconds (n,), from networks other than the one it is of.

    The spread is the error of the first `held_out` networks: each of these is judged by that of the others.
    None where none of them has others.
    """
    if held_out < 2:
        return None
    std, calibration = costs.latency_std(mean), costs.calibration
    held_out_networks = [network for network in calibration.networks if network.held_out]
    for i in range(held_out):
        others = replace(calibration, networks=tuple(held_out_networks[:i] + held_out_networks[i + 1 :]))
        std[i] = expected_error(mean[i : i + 1], others)[0]
    return std


def finalist_rows(run: Run, predictor: Predictor, learned: Genomes) -> list[Row]:
    """Compare predictions with what was measured on the finalists of the search, by objective.

    Args:
        predictor: of accuracy, fitted to nothing but...
        learned: (n, g) ...these, which are left out.
    """
    front = read_document(run.front_path, Front)
    entries = [entry for entry in (*front.candidates, *front.evaluated) if _ran(front, entry)]
    if len(entries) < 2:
        return []

    def values(of: str, name: str, key: str = "value") -> Floats:
        return np.array([getattr(getattr(entry, of)[name], key) for entry in entries], np.float64)

    timed = LATENCY in front.always_measured
    bands = (LATENCY, values("measured", LATENCY)) if timed else ("size", values("measured", "size"))
    rows = [row("size", FINALISTS, judge(values("predicted", "size"), values("measured", "size")))]
    if timed:
        noise = float(np.sqrt(((values("measured", LATENCY, "iqr") / IQR_OF_STD) ** 2).mean()))
        latency, std = values("predicted", LATENCY), values("predicted", LATENCY, "std")
        quality = judge(latency, bands[1], std=std if std.any() else None, noise=noise)
        rows.insert(0, row(LATENCY, FINALISTS, quality))
    rows += [
        row(name, FINALISTS, judge(values("predicted", name), values("measured", name)))
        for name in (ARENA, FLASH)
        if all(name in entry.measured for entry in entries)
    ]
    genomes = genomes_of(run.front_path, [entry.genes for entry in entries], run.family.space())
    fresh = ~np.isin(row_keys(genomes), row_keys(learned))
    if fresh.sum() < 2:
        return rows
    predicted, true = predictor.predict(genomes[fresh]), values("measured", front.metric)[fresh]
    accuracy = judge(
        predicted.mean, true, std=predicted.std, bands_of=(bands[0], bands[1][fresh]), n_train=len(learned)
    )
    return [row(front.metric, FINALISTS, accuracy), *rows]


def _ran(front: Front, entry: Entry) -> bool:
    always = set(front.always_measured)
    known = always <= set(entry.measured) and always & set(COSTS) <= set(entry.predicted)
    if entry.error is not None or not known:
        return False
    if LATENCY not in always:
        memory = [entry.measured[name] for name in (ARENA, FLASH) if name in entry.measured]
        return all(figure.value < TOO_LARGE for figure in memory)
    return entry.predicted[LATENCY].value is not None and entry.measured[LATENCY].value < FAILED_S


def write_quality(run: Run, rows: list[Row]) -> dict[str, Any]:
    """Write `quality.json` with these rows and return its document."""
    document = {"schema": QualityFile.SCHEMA, "predictor": run.config.fit.predictor, "rows": rows}
    write_json(run.quality_path, document)
    return document


def read_quality(run: Run) -> QualityFile:
    """Return what `write_quality` wrote.

    Raises:
        TrilobitError: there is none, or it is of another version.
    """
    return read_document(run.quality_path, QualityFile)


# -- for people ------------------------------------------------------------------------------------


def print_quality(run: Run, reporter: Reporter) -> dict[str, Any]:
    """Report figures by objective, learning curves, and why no more was sampled; return both files.

    Raises:
        TrilobitError: there is no `quality.json`, or it is of another version.
    """
    quality = read_quality(run)
    columns = ("", "networks of", "tau", "in bands", "RMSE", "noise", "inside", "from")
    title = f"predictions of unseen networks; accuracy by {quality.predictor}"
    reporter.show(Table(columns, [_cells(row) for row in quality.rows], title, numbers=6))
    levels = "/".join(f"{100 * level:.0f}" for level in LEVELS)
    reporter.say(
        f"in bands: tau among networks of nearly equal cost; inside: % of them in intervals of {levels} %; "
        "from: networks learned from",
    )
    for figures in quality.rows:
        if figures.curve:
            steps = ", ".join(f"{point.kendall_tau:.3f} from {point.n}" for point in figures.curve)
            reporter.say(f"{figures.objective}, learning curve: tau {steps}")
    samples = read_optional(run.samples_path, SamplesFile)
    for decision in samples.kinds if samples else ():
        reporter.say(f"sampled ({samples.strategy if samples else ''}) {in_words(decision)}")
    return {
        "quality": {"schema": QualityFile.SCHEMA, **to_json(quality)},
        "sampled": to_json(samples)["kinds"] if samples else [],
    }


def _cells(figures: QualityRow) -> list[str]:
    shown = objective(figures.objective)
    observed = [f"{100 * level.observed:.0f}" for level in figures.coverages]
    return [
        figures.objective,
        f"{figures.n_test} {figures.source}",
        _decimals(figures.kendall_tau),
        _decimals(figures.kendall_tau_bands),
        show(shown, figures.rmse),
        "" if figures.noise is None else show(shown, figures.noise),
        "/".join(observed),
        str(figures.n_train or ""),
    ]


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

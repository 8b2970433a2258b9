"""Which predictors can be chosen, by name; none of them is imported here."""

from collections.abc import Mapping

PREDICTORS: Mapping[str, str] = {
    "auto": "predictors.stacked:StackedPredictor",
    "boosting": "predictors.boosting:BoostingPredictor",
    "gp": "predictors.gp:GpPredictor",
    "latency": "predictors.latency:LatencyPredictor",
    "mlp": "predictors.mlp:MlpPredictor",
    "ridge": "predictors.ridge:RidgePredictor",
    "trees": "predictors.trees:TreesPredictor",
}
DEFAULT = "auto"  # the best of benchmarks/predictor_quality.py

"""Which predictors can be chosen, by name; none of them is imported here."""

from collections.abc import Mapping

PREDICTORS: Mapping[str, str] = {
    "auto": "predictors.accuracy.stacked:StackedPredictor",
    "boosting": "predictors.accuracy.boosting:BoostingPredictor",
    "gp": "predictors.accuracy.gp:GpPredictor",
    "latency": "predictors.latency.networks:LatencyPredictor",
    "mlp": "predictors.accuracy.mlp:MlpPredictor",
    "ridge": "predictors.accuracy.ridge:RidgePredictor",
    "ridge-svr": "predictors.accuracy.ridge_or_svr:RidgeOrSvrPredictor",
    "trees": "predictors.accuracy.trees:TreesPredictor",
}
DEFAULT = "auto"  # the best of benchmarks/predictor_quality.py

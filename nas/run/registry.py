"""What can be chosen of a run's own methods, by name; none of it is imported here."""

from collections.abc import Mapping

# of a run, in order
STAGES = ("profile", "train", "sample", "fit", "search", "export", "report")

STRATEGIES: Mapping[str, str] = {
    "random": "drawn blindly",
    "diverse": "spread so that all others are near some, before and whatever the answers",
    "uncertainty": "where the answers so far leave most open",
    "front": "half of them near the predicted front of accuracy and cost, half as by uncertainty",
}
# never needs more than random ones on three published sets, 23 % fewer on average
DEFAULT_STRATEGY = "uncertainty"

SENSITIVITIES: Mapping[str, str] = {
    "kl": "divergence of the class probabilities when one layer alone has the format (Puzzle)",
    "sqnr": "noise of the logits over their signal when one layer alone has the format",
    "hessian": "trace of the loss's Hessian times the squared rounding error of the weights (HAWQ-V3)",
}

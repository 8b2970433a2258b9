"""How good both ends of a supernet are while it trains."""

import torch
from torch import nn

from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.graph.subnet import recalibrate
from supernet.tasks.evaluate import CALIBRATION_BATCH, EVALUATION_BATCH, calibration_examples
from supernet.tasks.metric import main_metric
from supernet.tasks.task import Task

IMAGES = 1_000  # of search-validation: enough to see a trend, within 1.5 points


def validation_metrics(
    family: Family, net: nn.Module, task: Task, *, seed: int, device: torch.device
) -> dict[str, float]:
    """Return the main metric of the `largest` and the `smallest` network in fp32, on the same
    `IMAGES` examples of search-validation each time. The supernet itself is not touched.
    """
    rows = open_stream(seed, Stream.WATCHED).permutation(len(task.validation))[:IMAGES]
    part, calibration = task.validation[rows], calibration_examples(task, seed=seed)
    values = {}
    for name, candidate in (("largest", family.extreme("largest")), ("smallest", family.extreme("smallest"))):
        resolution, subnet = family.resolution(candidate), family.extract(net, candidate).to(device)
        inputs = task.inputs(calibration, resolution).to(device)
        recalibrate(subnet, torch.split(inputs, CALIBRATION_BATCH))
        inputs = task.inputs(part, resolution).to(device)
        with torch.no_grad():
            batches = torch.split(inputs, EVALUATION_BATCH)
            outputs = torch.cat([subnet(batch) for batch in batches]).cpu().numpy()
        values[name] = task.evaluate(outputs, part)[main_metric(task).name]
    return values

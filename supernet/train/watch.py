"""How good both ends of a supernet are while it trains."""

import torch
from torch import nn

from hw_profiles.streams import Stream, open_stream
from supernet.data.dataset import Dataset, to_batch
from supernet.families.family import Family
from supernet.graph.subnet import recalibrate
from supernet.tasks.evaluate import CALIBRATION_BATCH, EVALUATION_BATCH, calibration_images

IMAGES = 1_000  # of search-validation: enough to see a trend, within 1.5 points


def watched_accuracies(
    family: Family, net: nn.Module, dataset: Dataset, *, seed: int, device: torch.device
) -> dict[str, float]:
    """Share of right labels, in 0..1, of the `largest` and the `smallest` network in fp32, on the same
    `IMAGES` images of search-validation each time. The supernet itself is not touched.
    """
    corners = family.corners()
    rows = open_stream(seed, Stream.WATCHED).permutation(len(dataset.validation))[:IMAGES]
    part, calibration = dataset.validation[rows], calibration_images(dataset, seed=seed)
    found = {}
    for name in ("largest", "smallest"):
        candidate = corners[f"{name}/fp32"]
        resolution, subnet = family.resolution(candidate), family.extract(net, candidate).to(device)
        images = to_batch(calibration, dataset, resolution).to(device)
        recalibrate(subnet, torch.split(images, CALIBRATION_BATCH))
        images = to_batch(part, dataset, resolution).to(device)
        with torch.no_grad():
            batches = torch.split(images, EVALUATION_BATCH)
            predicted = torch.cat([subnet(batch).argmax(1) for batch in batches]).cpu().numpy()
        found[name] = float((predicted == part.labels).mean())
    return found

"""What `nas spaces design` takes; without the engines that it needs."""

import argparse
from pathlib import Path

from nas.design.base import Practice
from nas.search.space_design import EVALUATIONS
from supernet.families.staged_layers import BLOCKS


def add_options(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    practice = Practice()
    add = command.add_argument
    add("--data", default="digits", metavar="SOURCE", help="digits, imagefolder:PATH or cifar10:PATH")
    add("--device", default="ort", metavar="NAME", help="see `nas devices`")
    add("--teacher", metavar="CHECKPOINT", help="a trained supernet whose largest network is imitated: a "
        "file, a run folder, or shipped:NAME")  # fmt: skip
    add("--types", default=",".join(BLOCKS), metavar="A,B", help="block types (default: %(default)s)")
    add("--max-latency", metavar="TIME,TIME", help="limits to design for, such as 0.3ms, or 40%% of the "
        "slowest network's (default: what half of all random networks meet)")  # fmt: skip
    add("--steps", type=int, default=practice.steps, metavar="N", help="of training, for every block type "
        "in every stage (default: %(default)s)")  # fmt: skip
    add("--samples", type=int, default=practice.samples, metavar="N", help="random parts of networks that "
        "are judged, for every stage, type and width window (default: %(default)s)")  # fmt: skip
    add("--images", type=int, default=practice.images, metavar="N", help="training images to learn from "
        "(default: %(default)s)")  # fmt: skip
    add("--evaluations", type=int, default=EVALUATIONS, metavar="N", help="spaces that are scored at most "
        "(default: %(default)s)")  # fmt: skip
    add("--title", default="designed", metavar="NAME", help="of the space (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N")
    add("-o", "--output", type=Path, default=Path("designs/default"), metavar="DIR", help="where the space "
        "is written, as space.json, and what it comes from")  # fmt: skip

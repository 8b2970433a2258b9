"""Which random numbers belong to what: one stream per purpose, so that no two share their draws.

Numbers are for ever: another one for an old purpose changes the results of every seed. Whatever comes new
takes the next one that is free.
"""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What a run's random numbers are for, drawn from (seed, stream, step...).

    Two kinds of numbers have a seed of their own instead, and are counted from 0 by what they belong to: the
    steps of a searcher, and the labels of a split, on which the shipped supernets were trained.
    """

    WEIGHTS = 0  # the first ones of a supernet
    STEP = 1  # of training: which subnets
    EPOCH = 2  # the order of the images
    CALIBRATION = 3  # images that ranges of tensors come from
    WHOLE_NETWORKS = 4  # that a profile is calibrated and tested on
    MIXUP = 5  # of the images of one step
    SAMPLES = 6  # networks that are evaluated, or chosen from
    SAMPLER_CURVE = 7  # partitions that judge the sampler's own model
    SHIPPED = 8  # networks of the model card of a shipped supernet
    QUANTIZED_STEP = 9  # of the quantized phase: which subnets and widths
    HESSIAN = 10  # images, and vectors, of its trace
    FINETUNED_NORM = 11  # images that the batch-norm statistics of a fine-tuned network come from
    DESIGN_NETWORKS = 12  # that spaces are scored with
    SAMPLE_EMBEDDING = 13  # features that the sampler sees
    VALIDATION = 14  # networks of `nas profile --validate`
    WATCHED = 15  # images of search-validation that training is watched on
    FILLED_UNITS = 16  # the prediction of units that were not measured
    UNIT_USAGE = 17  # networks that say which units matter
    EXCLUDED = 18  # networks that show what rejected units cost
    RANDOM_NUMBERS = 19  # of networks whose numbers do not matter
    WORST_COSTS = 20  # networks that limits refer to
    LEAST_COSTS = 21  # the search for the cheapest network
    SCORED_IMAGES = 22  # images of search-validation that samples are scored on
    FIRST_SCALES = 23  # images that the quantized phase begins with
    DESIGN_SPACES = 24  # spaces that a designed one is compared with
    IMITATION = 25  # everything of one block type in one stage
    FIRST_EVALUATED = 26  # the first networks of an expensive search
    LEARNING_CURVE = 27  # partitions that judge a predictor on fewer rows
    DISTILLED = 29  # networks that a predictor is imitated on
    EXTRAPOLATED = 30  # networks that a calibration must make sense of
    TUNE_SAMPLES = 31  # which examples calibrate, choose and judge
    TUNE_CALIBRATION = 32  # rows that weights are rounded on
    TUNE_POLICIES = 33  # policies that are evaluated before anything can be predicted
    TUNE_TIMED = 34  # policies that are timed before that
    TUNE_ERRORS = 35  # signs of the projection that makes errors short vectors
    MIRRORED = 40  # images of every other epoch
    WHITENING = 41  # images that a stem is whitened on


def open_stream(seed: int, stream: Stream, *steps: int) -> np.random.Generator:
    """Return the random numbers of one purpose, and of one step of it."""
    return np.random.default_rng([seed, stream, *steps])


def seed_of(seed: int, stream: Stream) -> int:
    """Return a seed for what counts its own steps, such as a searcher."""
    return int(open_stream(seed, stream).integers(2**31))

"""The flags of all commands as one table, each of which sets an option of a section.

Ranges, defaults and names come from the sections (`hw_profiles.options`); here stand the words.
"""

from collections.abc import Mapping, Sequence

from nas.cli.flag import LIMITS, Flag, Group
from nas.run.registry import STAGES
from nas.run.tune_config import parse_tune_limit
from nas.search.objectives import OBJECTIVES, Objective, of_metric
from supernet.tasks.metric import CLASSIFICATION, FIDELITY

CONFIGURED = ("run", *(stage for stage in STAGES if stage != "report"))  # these take the options of a run

_METAVARS = {"s": "TIME", "bytes": "BYTES", "MACs": "N", "J": "ENERGY", "fraction": "SHARE"}


def _limit_flag(limited: Objective) -> Flag:
    """Return the flag of a limit, `--max-` or `--min-` and the name of its objective, or an alias."""
    end = "min" if limited.direction == "max" else "max"
    meaning = limited.meaning.replace("%", "%%")
    names = (name.replace("_", "-").replace(".", "-") for name in (limited.name, *limited.aliases))
    words = " ".join(f"--{end}-{name}" for name in names)
    return Flag(words, LIMITS + limited.name, _METAVARS.get(limited.unit, "X"), meaning)


# what files of a tune are limited by
_COSTS = [OBJECTIVES[name] for name in ("latency", "size", "arena", "flash")]
# what the networks of a family are searched for, or limited by
_SEARCHED = [
    known
    for known in OBJECTIVES.values()
    if known.origin != "metric" or known.name in {metric.name for metric in CLASSIFICATION}
]


CLUSTER = Flag(
    "--cluster",
    "cluster.address",
    "ADDRESS",
    "evaluate on a Dask cluster: tcp://HOST:8786, tls://HOST:8786, or local:N for N workers of this machine",
)
DATA_FORMS = (
    "images: digits, imagefolder:PATH, cifar10:PATH; text: python-tokens, python-bytes, text:PATH, csv:PATH"
)
RUN_GROUPS: Sequence[Group] = (
    Group(
        "data, device and space",
        CONFIGURED,
        (
            Flag("--data", "data.source", "SOURCE", DATA_FORMS),
            Flag("--device", "device.name", "NAME", "see `nas devices`"),
            Flag("--threads", "device.threads", "N", "threads of one inference"),
            Flag("--space", "space.name", "NAME", "see `nas spaces`; or FILE.json of a designed one"),
            Flag("--formats", "space.formats", "A,B", "number formats, see `nas formats`", "list"),
            Flag(
                "--prefill", "space.prefill", "N", "of decoders, positions of a prompt (default: the space's)"
            ),
            Flag(
                "--decode",
                "space.decode",
                "P",
                "of decoders, positions before the next (default: the space's)",
            ),
            Flag("--seed", "seed", "N", "of everything random"),
        ),
    ),
    Group(
        "what to search for; `none` drops a limit",
        CONFIGURED,
        (
            Flag(
                "--objective",
                "search.objectives",
                "A,B",
                f"of {','.join(known.name for known in _SEARCHED)}",
                "list",
            ),
            *map(_limit_flag, _SEARCHED),
            Flag(
                "--limit",
                LIMITS,
                "NAME<=X",
                "on any objective, one of a plug-in too: 'macs<=3M', 'accuracy>=95%%'; may be repeated",
                "each",
            ),
            Flag("--count", "export.count", "N", "networks to export"),
        ),
    ),
    Group(
        "several machines",
        CONFIGURED,
        (
            Flag(
                "--storage",
                "storage.url",
                "URL",
                "of a database that keeps all evaluations, in place of run.db in the folder: "
                "postgresql+psycopg://USER@HOST/DATABASE",
            ),
            CLUSTER,
        ),
    ),
    Group(
        "measuring",
        ("run", "profile"),
        (
            Flag("--provider", "device.provider", "NAME", "execution provider of ONNX Runtime"),
            Flag("--batch", "device.batch", "N", "examples of one inference"),
            Flag("--target", "device.target", "NAME", "of TVM, such as aarch64-linux-gnu:cortex-a76"),
            Flag("--key", "device.key", "KEY", "which of the tracker's boards"),
            Flag("--database", "device.database", "DIR", "TVM's tuned units (default: the user's cache)"),
            Flag(
                "--budget",
                "profile.budget",
                "TIME",
                "measure so long, such as 2m; predict the rest (tuning with tvm takes seconds a unit)",
            ),
            Flag(
                "--share", "profile.share", "SHARE", "of the units to measure, such as 20%%; predict the rest"
            ),
            Flag(
                "--from",
                "profile.sources",
                "PROFILE",
                "a profile of another device to predict from; may be repeated",
                "each",
            ),
        ),
    ),
    Group(
        "training",
        ("run", "train"),
        (
            Flag("--init", "train.init", "CHECKPOINT", "first weights: a file, shipped:NAME, or none"),
            Flag(
                "--epochs", "train.epochs", "N", "passes over the training examples; 0 uses --init as it is"
            ),
            Flag("--train-budget", "train.budget", "TIME", "train as well as that time allows, such as 2h"),
            Flag("--quantized-epochs", "quantized.epochs", "N", "then passes that train all formats"),
        ),
    ),
    Group(
        "sampling",
        ("run", "sample"),
        (
            Flag("--strategy", "sample.strategy", "NAME", "which networks are evaluated"),
            Flag(
                "--fp32", "sample.fp32", "N", "evaluate N networks in fp32 (default: until more do not help)"
            ),
            Flag("--quantized", "sample.quantized", "N", "and N quantized ones (default: likewise)"),
        ),
    ),
    Group(
        "predicting",
        ("run", "fit"),
        (Flag("--prior", "fit.prior", "RUN", "another run whose accuracies the predictor starts from"),),
    ),
    Group(
        "searching",
        ("run", "search"),
        (
            Flag(
                "--engine --searcher",
                "search.searcher",
                "NAME",
                "evolution, nsga2, nsga3, rnsga2, optuna-nsga2, tpe, aging or random; milp allocates the "
                "formats of one --architecture",
            ),
            Flag(
                "--latency-confidence",
                "search.latency_confidence",
                "SHARE",
                "that networks are within --max-latency, given the profile's error; 95%% leaves a margin",
            ),
            Flag("--focus", "search.focus", "", "search near the limits only", "on"),
            Flag(
                "--aim",
                "search.aims",
                "A=X,B=Y",
                "where rnsga2 goes, such as accuracy=95%%,latency=0.3ms; repeatable (default: the limits)",
                "each",
            ),
            Flag(
                "--architecture",
                "search.architecture",
                "WHICH",
                "of milp: largest, smallest, an id, or genes",
            ),
            Flag("--sensitivity", "search.sensitivity", "KIND", "of milp: kl, sqnr or hessian"),
        ),
    ),
    Group(
        "exporting",
        ("run", "export"),
        (
            Flag(
                "--pick",
                "export.pick",
                "WHICH",
                "knee, 'fastest>=92%%', 'best<=0.3ms', all, or an id; repeatable (default: --count of them)",
                "each",
            ),
            Flag(
                "--portable",
                "export.portable",
                "",
                "files that compute the same on every processor, also where integer sums saturate",
                "on",
            ),
            Flag(
                "--dynamic-batch", "export.dynamic_batch", "", "files that take any number of examples", "on"
            ),
            Flag("--pixels", "export.pixels", "", "files that take uint8 pixels", "on"),
            Flag(
                "--library",
                "export.library",
                "TARGET",
                "a shared library too, compiled by TVM: host, or such as aarch64-linux-gnu:cortex-a76 "
                "(default: where --device is tvm)",
            ),
            Flag("--exits", "export.exits", "", "a file of a decoder that ends earlier, too, besides", "on"),
            Flag("--integer-only", "export.integer_only", "", "a library of integers of 8 and 16 bits", "on"),
            Flag(
                "--finetune",
                "export.finetune",
                "EPOCHS",
                "train each network on before it is exported; kept where that helps",
            ),
            Flag("--sign", "export.sign", "KEYFILE", "sign manifests with this ed25519 key (PEM)"),
        ),
    ),
)
TUNE_GROUPS: Sequence[Group] = (
    Group(
        "model and data",
        ("tune",),
        (
            Flag(
                "--data",
                "samples.source",
                "SOURCE",
                "examples: a folder or archive of images, .npy or .npz with an array per input, or "
                "module:function",
            ),
            Flag(
                "--shape",
                "model.shape",
                "INPUT=1x3xHxW",
                "sizes of an input that leaves some open (default: those of the data); may be repeated",
                "each",
            ),
            Flag(
                "--fix",
                "model.fix",
                "INPUT=NUMBER",
                "an input that always has this value, such as sr=16000: what it decides is decided in the "
                "files (default: one that decides an If and is the same in all the data; none: none); may be "
                "repeated",
                "each",
            ),
            Flag(
                "--mean", "samples.mean", "M,M,M", "of scaled pixels, subtracted (default: as the file says)"
            ),
            Flag("--std", "samples.std", "S,S,S", "of scaled pixels, divided by"),
            Flag("--scale", "samples.scale", "X", "of pixels 0..255: 1/255 for 0..1, raw for none"),
            Flag("--layout", "samples.layout", "NAME", "nchw or nhwc"),
            Flag("--resize", "samples.resize", "NAME", "stretch, crop, crop:.875 or pad"),
            Flag("--channels", "samples.channels", "NAME", "rgb, bgr, grey or rgba"),
            Flag("--size", "samples.size", "HxW", "of images, where the model leaves that open"),
            Flag("--labels", "samples.labels", "FILE", "class names, one a line; none leaves labels out"),
            Flag("--count", "samples.count", "N", "examples to use; 0 takes all that fit"),
            Flag(
                "--metric",
                "tune.metric",
                "MODULE:FUNCTION",
                "your own measure of quality: function(outputs, original, samples)",
            ),
            Flag(
                "--metric-direction",
                "tune.metric_direction",
                "NAME",
                "of your own metric: max where more is better, or min",
            ),
            Flag(
                "--role",
                "tune.outputs",
                "OUTPUT=ROLE",
                "what an output is, where it is not recognised: scores, probabilities, chances, decisions or "
                "values; may be repeated",
                "each",
            ),
            Flag("--seed", "seed", "N", "of everything random"),
        ),
    ),
    Group(
        "device and formats",
        ("tune",),
        (
            Flag("--device", "device.name", "NAME", "see `nas devices`"),
            Flag("--threads", "device.threads", "N", "threads of one inference"),
            Flag("--formats", "tune.formats", "A,B", "to choose from (default: all that run)", "list"),
        ),
    ),
    Group(
        "what to search for; `none` drops a limit",
        ("tune",),
        (
            Flag(
                "--objective",
                "tune.objectives",
                "A,B",
                "costs to weigh answers against: of latency, size, arena, flash (default: latency,size, or "
                "arena,flash on a device without times)",
                "list",
            ),
            *map(_limit_flag, _COSTS),
            *map(_limit_flag, map(of_metric, FIDELITY)),
            Flag(
                "--min-quality",
                LIMITS,
                "NAME=X",
                "a metric at least, or of what is bad at most, as good: 'agreement=99%%', kl=0.01, "
                "accuracy=75%%; may be repeated",
                "each",
                parse_tune_limit,
            ),
            Flag(
                "--limit",
                LIMITS,
                "NAME<=X",
                "on anything: 'flips<=0.5%%', 'agreement>=99%%'; may be repeated",
                "each",
                parse_tune_limit,
            ),
            Flag("--budget", "tune.budget", "TIME", "for all of it, such as 5m (default: what it takes)"),
            Flag("--files", "tune.count", "N", "files to write, of the front"),
        ),
    ),
    Group("several machines", ("tune",), (CLUSTER,)),
)
# of single commands; the name of the value is the option's own
OWN: Mapping[str, tuple[Flag, ...]] = {
    "profile": (
        Flag("--validate", "validation.networks", "N", "then measure N new random networks of each kind"),
    ),
    "bench": (
        Flag("--threads", "bench.threads", "N,M", "threads of one inference", "list"),
        Flag("--batch", "bench.batch", "N,M", "examples of one inference (default: the file's own)", "list"),
        Flag(
            "--device",
            "bench.device",
            "NAME",
            "what runs the file (default: what it was made for, or ort)",
        ),
        Flag("--seconds", "bench.seconds", "S", "of timing, for each setting"),
        Flag(
            "--inputs",
            "bench.inputs",
            "FILE",
            "what it reads: .npz with an array for each input (default: random numbers)",
        ),
        Flag("--prefill", "bench.prefill", "N", "of a decoder, positions of the prompt (default: 128)"),
        Flag("--decode", "bench.decode", "P", "of a decoder, positions before the next (default: 511)"),
    ),
    "inspect": (
        Flag(
            "--shape",
            "inspect.shape",
            "INPUT=1x3xHxW",
            "sizes of an input that leaves some open; may be repeated",
            "each",
        ),
        Flag(
            "--fix",
            "inspect.fix",
            "INPUT=NUMBER",
            "an input that always has this value, such as sr=16000; may be repeated",
            "each",
        ),
        Flag("--device", "inspect.device", "NAME", "what formats and time are of, see `nas devices`"),
        Flag(
            "--inputs",
            "inspect.inputs",
            "FILE",
            "an example: .npz with an array for each input (default: made-up numbers)",
        ),
    ),
    "spaces design": (
        Flag("--steps", "design.steps", "N", "of training, for every block type in every stage"),
        Flag("--samples", "design.samples", "N", "random parts judged per stage, type and width window"),
        Flag("--images", "design.images", "N", "training images to learn from"),
        Flag("--evaluations", "design.evaluations", "N", "spaces that are scored at most"),
        Flag("--seed", "design.seed", "N", "of everything random"),
    ),
}

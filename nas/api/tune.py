"""`nas.tune`: number formats of a trained model of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from nas.api.model import Model
from nas.api.tuned import TuneFolder
from nas.run.reporting import QUIET, Reporter

PathLike = str | Path
Limit = str | float
FOLDER = "runs/tuned"
UNITS = {"latency": "s", "size": "B", "arena": "B", "flash": "B"}  # of limits that are plain numbers


def tune(
    model: Any,
    *,
    data: PathLike,
    device: str | None = None,
    folder: PathLike | None = None,
    example_inputs: Any = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fix: Mapping[str, float] | None = None,
    formats: Sequence[str] | None = None,
    preprocessing: Mapping[str, str] | None = None,
    max_latency: Limit | None = None,
    max_size: Limit | None = None,
    min_quality: Mapping[str, Limit] | None = None,
    objectives: Sequence[str] | None = None,
    limits: Mapping[str, Limit] | None = None,
    metric: str | None = None,
    budget: str | None = None,
    seed: int | None = None,
    config: PathLike | Mapping[str, Mapping[str, Any] | int] | None = None,
    reporter: Reporter = QUIET,
) -> TuneFolder:
    """Choose the number formats of a trained model's layers by measured time, without training or labels, and
    return the folder that holds the front of files.

    Called again with the same arguments it takes what is there, and a killed one goes on where it stopped.

    Args:
        model: the path of an ONNX file, what `nas.load` made of one; or an `nn.Module`, or a
            `torch.export.ExportedProgram`, with `example_inputs`.
        data: examples of what it reads: a folder or an archive of images, `.npy` or `.npz` with an array for
            each input, or `module:function`.
        device: what is measured on, see `nas devices`; None is ONNX Runtime on this machine.
        folder: of the run; None is `runs/` and the name of the file.
        example_inputs: what a torch model is called with: a tensor, a tuple by place, a dictionary by name.
        shapes: sizes of inputs that leave some open; None takes those of the data.
        fix: value of inputs that always have the same, such as `{"sr": 16000}`; None takes those that decide
            what runs and have one value in all examples.
        formats: number formats to choose from beside fp32; None takes all that run.
        preprocessing: of images where the file does not say it, such as `{"mean": ".5", "std": ".5"}`.
        max_latency, max_size: limits: text such as `8ms`, `60%` of the original's, or SI units.
        min_quality: limits on metrics by name, such as `{"agreement": "99%", "kl": 0.01}`.
        objectives: costs to weigh answers against, of `latency`, `size`, `arena` and `flash`; None takes
            latency and size, or arena and flash on a device without times.
        limits: others by name, such as `{"arena": "64KB"}`.
        metric: a measure of your own, `module:function`.
        budget: time for all of it, such as `5m`.
        seed: of everything random.
        config: everything else: a TOML file, or sections as in `run.toml`.
        reporter: told what happens; `nas.PlainReporter()` prints it.

    Raises:
        TrilobitError: something is not allowed, not there, or no file meets the limits.
    """
    from nas.tune.pipeline import run_tune
    from nas.tune.session import tune_session
    from supernet.imported.fixed_value import fixed_text

    place, source = _placed(model, folder, example_inputs)
    bounds = {"latency": max_latency, "size": max_size, **(min_quality or {}), **(limits or {})}
    options = {
        "model.source": source,
        "model.shape": tuple(f"{n}={'x'.join(map(str, s))}" for n, s in (shapes or {}).items()) or None,
        "model.fix": tuple(fixed_text(n, value) for n, value in (fix or {}).items()) or None,
        "samples.source": str(data),
        **{f"samples.{name}": value for name, value in (preprocessing or {}).items()},
        "device.name": device,
        "tune.formats": None if formats is None else tuple(formats),
        "tune.objectives": None if objectives is None else tuple(objectives),
        "tune.metric": metric,
        "tune.budget": budget,
        "seed": seed,
        **{f"constraints.{name}": _limit_text(name, limit) for name, limit in bounds.items()},
    }
    sections = config if isinstance(config, Mapping) else {}
    for name, section in sections.items():
        more = section.items() if isinstance(section, Mapping) else [("", section)]
        options |= {f"{name}.{key}" if key else name: value for key, value in more}
    given = {name: value for name, value in options.items() if value is not None}
    file = None if config is None or isinstance(config, Mapping) else Path(config)
    with tune_session(place, given, file=file, reset=True, line="nas.tune", reporter=reporter) as context:
        run_tune(context, reporter)
        return TuneFolder(place)


def _placed(model: Any, folder: PathLike | None, example_inputs: Any) -> tuple[Path, str]:
    """Return the folder of the run, and the file of the model: what is none is written there first."""
    if isinstance(model, Model) and Path(model.name).is_file():
        model = model.name
    if isinstance(model, str | Path):
        return Path(folder or Path("runs") / Path(model).stem), str(Path(model).resolve())
    from hw_profiles.files import write_atomic

    place = Path(folder or FOLDER)
    path = place / "given.onnx"
    write_atomic(path, _content(model, example_inputs))
    return place, str(path.resolve())


def _content(model: Any, example_inputs: Any) -> bytes:
    """Return a model that is no file as ONNX."""
    if isinstance(model, Model):
        return model.opened.original
    if example_inputs is None:
        raise TrilobitError(f"a {type(model).__name__} needs example_inputs: what it is called with")
    from supernet.imported.import_torch import onnx_of

    return onnx_of(model, example_inputs)


def _limit_text(name: str, limit: Limit | None) -> str | None:
    if limit is None or isinstance(limit, str):
        return limit
    return f"{limit:g}{UNITS.get(name, '')}"

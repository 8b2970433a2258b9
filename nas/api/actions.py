"""The verbs of `import nas`. Engines are imported when a verb is used, not before.

A search or a profile lives in a run folder, as the command's does: called again with the same arguments it
takes what is there, and a killed one goes on where it stopped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import TrilobitError
from nas.api.exported import Exported, ExportedNetwork, read_exported, read_exports
from nas.api.front import EXPORT, Front, Network, read_front_file
from nas.api.model import Model
from nas.api.profiles import Profile, read_profile
from nas.api.run_folder import RunFolder
from nas.api.tuned import TunedFiles, TuneFolder, read_tuned_file
from nas.export.seal import MANIFEST
from nas.run.command_sections import BenchSection
from nas.run.configuration import RECORD
from nas.run.reporting import QUIET, Reporter
from nas.run.session import session
from nas.run.tune_config import is_tune_folder
from nas.run.tuned_document import TunedFront
from nas.serving.bench import Bench
from nas.serving.bench import bench as bench_file
from nas.verification.verification import Verification, verify_networks

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

PathLike = str | Path
Limit = str | float
Config = PathLike | Mapping[str, Mapping[str, Any] | int]
FOLDER = "runs/default"
SEARCH = ("profile", "train", "sample", "fit", "search")


def load(
    path: "PathLike | nn.Module | ExportedProgram",
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    fix: Mapping[str, float] | None = None,
) -> RunFolder | TuneFolder | Front | TunedFiles | Profile | ExportedNetwork | Exported | Model:
    """Open a trained model of one's own, the folder of a run or a tune, a `front.json`, a profile, or the
    folder of one or several exported networks.

    Args:
        path: of an ONNX file, or of one of the others; or a torch module, or what `torch.export` made of one.
        shapes: of an ONNX file: sizes of inputs with open dimensions, by name.
        example_inputs: what a torch module is called with: a tensor, a tuple by place, a dictionary by name.
        dynamic_shapes: which of its dimensions stay open, as `torch.export.export` takes them.
        fix: of an ONNX file: value of inputs that always have the same, by name, such as `{"sr": 16000}`.

    Raises:
        TrilobitError: none of these is there, or it is damaged or of another version.
    """
    if not isinstance(path, (str, Path)):
        if example_inputs is None:
            raise TrilobitError("a torch module needs example_inputs: what it is called with")
        from nas.checks.open_model import open_module

        return Model(open_module(path, example_inputs, dynamic_shapes=dynamic_shapes))
    place = Path(path)
    if place.suffix == ".onnx":
        from nas.checks.open_model import open_model

        sizes = {name: tuple(shape) for name, shape in (shapes or {}).items()}
        return Model(open_model(place, sizes, fixed=fix))
    if is_tune_folder(place):
        return TuneFolder(place)
    if (place / RECORD).is_file():
        return RunFolder(place)
    if (place / MANIFEST).is_file():
        return read_exported(place)
    if place.is_dir() and any(place.glob(f"*/{MANIFEST}")):
        return read_exports(place)
    if place.suffix == ".json" and place.is_file():
        return _load_document(place)
    raise TrilobitError(
        f"{place}: nothing that can be opened; give an ONNX file, a run folder, its front.json, a profile, "
        "or the folder of exported networks"
    )


def _load_document(path: Path) -> Front | Profile | TunedFiles:
    """Open a front or a profile, whichever the file says it is."""
    from hw_profiles.files import read_json

    schema = str(read_json(path, "front/1", "profile/1", TunedFront.SCHEMA)["schema"])
    if schema == TunedFront.SCHEMA:
        return read_tuned_file(path)
    return read_front_file(path) if schema.startswith("front/") else read_profile(path)


def search(
    *,
    space: str | None = None,
    data: PathLike | None = None,
    device: str | None = None,
    profile: Profile | PathLike | None = None,
    folder: PathLike = FOLDER,
    formats: Sequence[str] | None = None,
    max_latency: Limit | None = None,
    max_size: Limit | None = None,
    min_accuracy: Limit | None = None,
    limits: Mapping[str, Limit] | None = None,
    objectives: Sequence[str] | None = None,
    init: PathLike | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    config: Config | None = None,
    reporter: Reporter = QUIET,
) -> Front:
    """Find the networks that trade accuracy against measured latency and size best, and return their front.

    Profiles the device, trains the supernet, samples, fits, searches; what is in the folder already is not
    done again.

    Args:
        space: what is searched, see `nas spaces`; None takes what fits the data.
        data: `digits` (the default), `imagefolder:PATH`, `cifar10:PATH`, or the path of a folder of images;
            of text `python-tokens`, `python-bytes`, `text:PATH` or `csv:PATH`.
        device: what is measured on, see `nas devices`; None is ONNX Runtime on this machine.
        profile: search on a saved profile in place of a device: nothing is measured.
        folder: of the run.
        formats: number formats to choose from; None takes the space's own.
        max_latency, max_size, min_accuracy: limits: text such as `0.3ms`, `200KB`, `95%`, `60%` of the
            largest network's, or a number in SI units.
        limits: on any objective, by name, beside those.
        objectives: names; None is accuracy, latency and size.
        init: first weights of the supernet: a checkpoint, or `shipped:NAME`.
        epochs: passes over the training images.
        seed: of everything random.
        config: everything else: a TOML file, or sections as in `run.toml`, such as
            `{"sample": {"fp32": 50}}`.
        reporter: told what happens; `nas.PlainReporter()` prints it.

    Raises:
        TrilobitError: something is not allowed, not there, or no network meets the limits.
    """
    bounds = {"latency": max_latency, "size": max_size, "accuracy": min_accuracy, **(limits or {})}
    options = {
        "space.name": space,
        "data.source": _source(data),
        "device.name": _replayed(profile) or device,
        "space.formats": _several(formats),
        "search.objectives": _several(objectives),
        "train.init": None if init is None else str(init),
        "train.epochs": epochs,
        "seed": seed,
        **{f"constraints.{name}": _limit_text(limit) for name, limit in bounds.items()},
    }
    settings, file = _given(options, config)
    with session(Path(folder), settings, file=file, reset=True, line="nas.search", reporter=reporter) as run:
        from nas.stages.pipeline import run_stages

        run_stages(run, SEARCH, reporter)
        return read_front_file(run.front_path)


def profile(
    device: str = "ort",
    *,
    space: str | None = None,
    data: PathLike | None = None,
    folder: PathLike = FOLDER,
    formats: Sequence[str] | None = None,
    budget: str | None = None,
    share: float | None = None,
    validate: int | None = None,
    config: Config | None = None,
    reporter: Reporter = QUIET,
) -> Profile:
    """Measure what the layers of a space cost on a device, and return the profile.

    Args:
        device: see `nas devices`.
        space, data, folder, formats, config, reporter: see `search`; the data decides the first and the last
            layer.
        budget: time, such as `2m`, to measure for; the other layers are predicted.
        share: of the layers to measure, 0 to 1; the others are predicted.
        validate: then measure so many new random networks of each kind, and say how far the profile is off.

    Raises:
        TrilobitError: something is not allowed or not there, or the device can run no network of the space.
    """
    options = {
        "device.name": device,
        "space.name": space,
        "data.source": _source(data),
        "space.formats": _several(formats),
        "profile.budget": budget,
        "profile.share": share,
    }
    settings, file = _given(options, config)
    with session(
        Path(folder),
        settings,
        stage="profile",
        file=file,
        reset=True,
        line="nas.profile",
        reporter=reporter,
    ) as run:
        from nas.stages.pipeline import run_stage
        from nas.stages.profile import run_validation

        run_stage(run, "profile", reporter)
        if validate is not None:
            run_validation(run, validate, reporter)
        return read_profile(run.profile_path)


def export(
    front: Front | Network | RunFolder | PathLike,
    *,
    pick: str | Sequence[str] = (),
    count: int | None = None,
    folder: PathLike | None = None,
    config: Mapping[str, Any] | None = None,
    reporter: Reporter = QUIET,
) -> Exported:
    """Export networks of a front as ONNX, measured through the files that ship.

    Args:
        front: of a search, one network of it, or the run folder that holds it.
        pick: `knee`, `fastest>=92%`, `best<=0.3ms`, `all`, or ids; nothing means `count` well-spread ones.
        count: how many; None is what the run says.
        folder: where to; None is `export` in the run folder, where what was exported before is replaced.
        config: the options of `[export]` in `run.toml`, such as `{"dynamic_batch": True}`.
        reporter: told what happens.

    Raises:
        TrilobitError: there is no front, no such network, or no file does what the simulation does.
    """
    picks = (pick,) if isinstance(pick, str) else tuple(pick)
    if isinstance(front, Network):
        picks = picks or (front.id,)
    options = {f"{EXPORT}.{name}": value for name, value in (config or {}).items()}
    selection = {f"{EXPORT}.pick": picks or None, f"{EXPORT}.count": count}
    settings = {name: value for name, value in {**options, **selection}.items() if value is not None}
    with session(_folder_of(front), settings, stage=EXPORT, line="nas.export", reporter=reporter) as run:
        from nas.stages.export import export_networks
        from nas.stages.pipeline import run_stage

        if folder is None:
            run_stage(run, EXPORT, reporter)
            return read_exports(run.export_path)
        section = run.config.export
        export_networks(run, section.pick, section.count, Path(folder), reporter)
        return read_exports(Path(folder))


def verify(
    folder: PathLike | ExportedNetwork | RunFolder,
    *,
    data: PathLike | None = None,
    latency: bool = True,
    run_library: bool = False,
    key: PathLike | None = None,
    device: str = "",
    reporter: Reporter = QUIET,
) -> Verification:
    """Check exported networks again, here: hashes, answers, and where asked for accuracy and latency.

    Args:
        folder: of one exported network, of several, or of a run.
        data: source whose test part accuracy is measured on; None leaves that out.
        latency: whether it is measured here.
        run_library: whether the machine code of a library may run, with your rights.
        key: file of the public key that must have signed; None asks for no signature.
        device: that runs the files, such as `ssh:USER@HOST/ort`; empty takes what they were exported for.

    Raises:
        TrilobitError: no exported network is there, or it cannot be read.
    """
    place = folder.folder if isinstance(folder, ExportedNetwork) else _path(folder)
    return verify_networks(
        place,
        data=_source(data),
        latency=latency,
        run_library=run_library,
        key=None if key is None else Path(key),
        device=device,
        reporter=reporter,
    )


def bench(
    model: PathLike | ExportedNetwork,
    *,
    threads: Sequence[int] = (1,),
    batch: Sequence[int] = (),
    seconds: float = 3.0,
    device: str = "",
    inputs: PathLike = "",
    prefill: int | None = None,
    decode: int | None = None,
    run_library: bool = False,
    reporter: Reporter = QUIET,
) -> Bench:
    """Time a model in service: latency percentiles and throughput of single calls.

    Args:
        model: an ONNX file, or the folder of an exported network.
        threads: of one inference, one setting each.
        batch: images of one inference, one setting each; none takes the file's own.
        seconds: of timing, for each setting.
        device: what runs the file; empty takes what it was exported for.
        inputs: an .npz file with an array for each input of the model; none takes random numbers.
        prefill, decode: of a decoder, positions of the prompt, and before the next one.
        run_library: whether the machine code of a library may run, with your rights.

    Raises:
        TrilobitError: no such file, or it cannot be run here.
    """
    path = model.folder if isinstance(model, ExportedNetwork) else Path(model)
    section = BenchSection(tuple(threads), tuple(batch), seconds, device, str(inputs), prefill, decode)
    return bench_file(path, section, run_library=run_library, reporter=reporter)


# -- arguments as a configuration takes them ----------------------------------------------------------


def _given(options: Mapping[str, Any], config: Config | None) -> tuple[dict[str, Any], Path | None]:
    """Return options by name, those of `config` among them, and the file that holds the others."""
    settings = {name: value for name, value in options.items() if value is not None}
    if config is None:
        return settings, None
    if not isinstance(config, Mapping):
        return settings, Path(config)
    sections: dict[str, Any] = {}
    for name, section in config.items():
        if isinstance(section, Mapping):
            sections |= {f"{name}.{key}": _plain(value) for key, value in section.items()}
        else:
            sections[name] = section
    return {**sections, **settings}, None


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _several(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _source(data: PathLike | None) -> str | None:
    """Return the source that `data` names: a folder or an archive of images stands for itself."""
    if data is None:
        return None
    return f"imagefolder:{data}" if isinstance(data, Path) or Path(data).exists() else data


def _replayed(profile: Profile | PathLike | None) -> str | None:
    if profile is None:
        return None
    return f"recorded:{profile.path if isinstance(profile, Profile) else profile}"


def _limit_text(limit: Limit | None) -> str | None:
    return None if limit is None else str(limit)


def _folder_of(front: Front | Network | RunFolder | PathLike) -> Path:
    """Return the run folder of a front.

    Raises:
        TrilobitError: it is not in one.
    """
    place = front.path.parent if isinstance(front, Front) else None
    place = front.source.parent if isinstance(front, Network) else place or _path(front)
    if place.name == "front.json":
        place = place.parent
    if not (place / RECORD).is_file():
        raise TrilobitError(f"{place}: not a run folder (no {RECORD}), so there are no weights to export")
    return place


def _path(place: Any) -> Path:
    return place.path if isinstance(place, RunFolder) else Path(place)

"""What each `nas` command does: one table from name to function.

The functions read an `argparse.Namespace` and call ordinary Python with typed arguments. Engines are imported
where they are needed: help, and whatever is refused, come at once.
"""

import argparse
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.registry import names
from nas.cli.given import given_options
from nas.run.configuration import other_runs
from nas.run.reporting import Reporter
from nas.run.session import held, session
from nas.run.tune_config import is_tune_folder
from supernet.registry import FAMILIES
from supernet.train.world import launched_world

if TYPE_CHECKING:
    from nas.run.run import Run

Command = Callable[[argparse.Namespace, Reporter], Any]
Then = Callable[["Run", Reporter], dict[str, Any]]
# any of them makes a report, or a profile
REPORTED = ("samples.json", "quality.json", "front.json", "export")


def _opened(arguments: argparse.Namespace, reporter: Reporter) -> AbstractContextManager["Run"]:
    """Return the session on the run that the arguments name."""
    return session(
        arguments.output,
        given_options(arguments),
        stage=arguments.command,
        file=arguments.config,
        reset=arguments.reset,
        line=arguments.line,
        reporter=reporter,
    )


def _run(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    with _opened(arguments, reporter) as run:
        from nas.cli.summary import print_summary
        from nas.stages.pipeline import run_all  # torch and all engines: only where they are needed

        run_all(run, reporter)
        return print_summary(run, reporter)


def _stage(
    arguments: argparse.Namespace,
    reporter: Reporter,
    then: Then | None = None,
    *,
    check: Callable[["Run"], None] | None = None,
) -> dict[str, Any]:
    """Run one stage, and what comes `then` while the folder is held; return what both have to say.

    Args:
        check: refuses a run before the stage.
    """
    with _opened(arguments, reporter) as run:
        from nas.stages.pipeline import run_stage

        if check is not None:
            check(run)
        run_stage(run, arguments.command, reporter)
        more = then(run, reporter) if then is not None else {}
        return {"stage": arguments.command, "folder": str(run.folder), **more}


def _export(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    if is_tune_folder(arguments.output):
        from nas.cli.tune import export_tuned

        return export_tuned(arguments, reporter)
    return _stage(arguments, reporter, _exported)


def _exported(run: "Run", reporter: Reporter) -> dict[str, Any]:
    from nas.cli.summary import print_networks

    return {"exported": print_networks(run, reporter)}


def _tune(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.cli.tune import tune

    return tune(arguments, reporter)


def _profile(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    def validate(run: "Run", reporter: Reporter) -> dict[str, Any]:
        from nas.stages.profile import run_validation

        run_validation(run, arguments.networks, reporter)
        return {}

    def require_times(run: "Run") -> None:
        from nas.stages.profile import require_times

        require_times(run)

    then = None if arguments.networks is None else validate
    return _stage(arguments, reporter, then, check=require_times)


def _fit(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    def in_full(run: "Run", reporter: Reporter) -> dict[str, Any]:
        from nas.stages.quality import print_quality

        return print_quality(run, reporter)

    return _stage(arguments, reporter, in_full if arguments.report else None)


def _sizes(text: str) -> list[float]:
    """Return the multiply-adds that are written in `text`, joined by commas.

    Raises:
        TrilobitError: one is none.
    """
    from nas.search.limits import parse_limit
    from nas.search.objectives import objective

    limits = [parse_limit(part, objective("macs")) for part in text.split(",") if part.strip()]
    if any(limit.relative for limit in limits):
        raise TrilobitError(f"--ship-macs {shown(text)}: write multiply-adds, such as 12M,26M")
    return [limit.value for limit in limits]


def _train(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    sizes = _sizes(arguments.ship_macs)

    def publish_weights(run: "Run", reporter: Reporter) -> dict[str, Any]:
        from nas.export.publish import publish

        if launched_world().writes:
            publish(run, arguments.ship, reporter, sizes=sizes)
        return {}

    return _stage(arguments, reporter, None if arguments.ship is None else publish_weights)


def _compare(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.cli.compare import compare_profiles

    return compare_profiles(
        arguments.a, arguments.b, space=arguments.space, plot=arguments.plot, reporter=reporter
    )


def _import(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from hw_profiles.profiles.profile_json import save_profile
    from hw_profiles.profiles.published_tables import import_table

    profile = import_table(arguments.table)
    save_profile(profile, arguments.output)
    reporter.say(
        f"{arguments.output}: {len(profile.table)} units of {profile.device.name}; "
        f"search on it with --device recorded:{arguments.output}"
    )
    return {"profile": str(arguments.output), "units": len(profile.table)}


def _report(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    folder: Path = arguments.output
    if not any((folder / name).exists() for name in REPORTED) and not any(folder.glob("profiles/*.json")):
        raise TrilobitError(
            f"{folder}: nothing to report on{other_runs(folder)}; `nas run -o {folder}` makes something"
        )
    reporter.say(f"nas report: {folder}")
    from nas.report import write_report
    from nas.run.run import find_run

    path = write_report(folder if is_tune_folder(folder) else find_run(folder).folder)
    reporter.say(f"report: {path}")
    return {"report": str(path)}


def _import_ofa(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.cli.import_ofa import import_checkpoint

    return import_checkpoint(
        arguments.file,
        space=arguments.space,
        formats=_listed(arguments.formats) or None,
        output=arguments.output,
        reporter=reporter,
    )


def _inspect(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.inspection.inspect import inspect_model
    from nas.inspection.page import show_inspection
    from nas.run.command_sections import InspectSection

    shape, fix = tuple(arguments.shape or ()), tuple(arguments.fix or ())
    section = InspectSection(shape, fix, arguments.device, arguments.inputs or "")
    example = Path(section.inputs) if section.inputs else None
    how: dict[str, Any] = {"device": section.device, "example": example, "fixed": section.fixed}
    inspection = inspect_model(arguments.model, section.shapes, **how)
    show_inspection(inspection, reporter, every_unit=arguments.units)
    return asdict(inspection)


def _bench(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.run.command_sections import BenchSection
    from nas.serving.bench import bench

    settings = tuple(arguments.threads), tuple(arguments.batch or ())
    lengths = arguments.prefill, arguments.decode
    device, inputs = arguments.device or "", arguments.inputs or ""
    section = BenchSection(*settings, arguments.seconds, device, inputs, *lengths)
    result = bench(arguments.model, section, run_library=arguments.run_library, reporter=reporter)
    return {"model": str(result.model), "settings": [asdict(setting) for setting in result.settings]}


def _compare_runtimes(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.cli.compare_runtimes import compare_runtimes

    return compare_runtimes(arguments, reporter)


def _verify(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.verification.verification import verify_networks

    verification = verify_networks(
        arguments.folder,
        data=arguments.data,
        latency=not arguments.no_latency,
        run_library=arguments.run_library,
        key=arguments.verify_key,
        device=arguments.device,
        reporter=reporter,
    )
    verification.require()
    return {
        name: [asdict(finding) for finding in findings] for name, findings in verification.findings.items()
    }


def _devices(arguments: argparse.Namespace, reporter: Reporter) -> list[dict[str, Any]]:
    """List what can be measured on here."""
    from nas.run.devices import available_devices

    rows = []
    for device in available_devices():
        reporter.say(f"{device['name']:<36} {device['what']}")
        rows.append(device)
    return rows


def _spaces(arguments: argparse.Namespace, reporter: Reporter) -> list[dict[str, Any]]:
    """List what can be searched."""
    listed = sorted(names("trilobit.spaces", FAMILIES))
    reporter.say(f"{len(listed)} spaces:")
    from supernet.families.family import load_family

    rows = []
    for name in listed:
        space = load_family(name, in_channels=3, classes=10).space()
        reporter.say(
            f"{name:<16} {space.size:.3g} networks, {len(space.choices)} choices, fingerprint "
            f"{space.fingerprint}"
        )
        rows.append(
            {
                "name": name,
                "size": space.size,
                "choices": len(space.choices),
                "fingerprint": space.fingerprint,
            }
        )
    return rows


def _design(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.design.command import DesignRequest, design_space, parse_limits
    from nas.design.published import design_on_table
    from nas.run.design_settings import DistillationConfig, Effort

    limits, effort = parse_limits(arguments.max_latency), Effort(arguments.evaluations, arguments.seed)
    if arguments.table is not None:
        with held(arguments.output):
            return design_on_table(
                arguments.table,
                arguments.output,
                limits=limits,
                spaces=arguments.spaces,
                effort=effort,
                reporter=reporter,
            )
    practice = DistillationConfig(steps=arguments.steps, samples=arguments.samples, images=arguments.images)
    request = DesignRequest(
        arguments.output,
        data=arguments.data,
        device=arguments.device,
        teacher=arguments.teacher,
        types=_listed(arguments.types),
        limits=limits,
        title=arguments.title,
        practice=practice,
        effort=effort,
    )
    with held(request.output):
        return design_space(request, reporter)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _formats(arguments: argparse.Namespace, reporter: Reporter) -> list[dict[str, Any]]:
    """List the number formats that a layer can take."""
    from nas.cli.formats import list_formats

    return list_formats(reporter)


def _ops(arguments: argparse.Namespace, reporter: Reporter) -> list[dict[str, Any]]:
    """List the operations that a network can be made of."""
    from nas.cli.ops import list_operations

    return list_operations(reporter)


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        function: what it does.
        text: what it does, in words.
        lines: whether it prints nothing but lines, for which no terminal library is loaded.
    """

    function: Command
    text: str
    lines: bool = False


COMMANDS: Mapping[str, Verb] = {
    "run": Verb(_run, "all stages: profile the device, train, sample, fit, search, export, report"),
    "tune": Verb(_tune, "choose the number formats of a trained model's layers, by measured time"),
    "inspect": Verb(_inspect, "what a trained model is, and which formats its layers can take"),
    "profile": Verb(_profile, "measure the units of the space on the device"),
    "train": Verb(_train, "train the supernet"),
    "sample": Verb(_stage, "evaluate sampled networks on the supernet"),
    "fit": Verb(_fit, "fit the accuracy predictor and say how good it is"),
    "search": Verb(_stage, "search, measure the finalists, write front.json"),
    "export": Verb(_export, "export networks of the front as ONNX"),
    "report": Verb(_report, "write report.html"),
    "bench": Verb(_bench, "latency percentiles and throughput of an exported file"),
    "compare-runtimes": Verb(_compare_runtimes, "a network on every runtime of this machine, side by side"),
    "verify": Verb(_verify, "check exported networks again, here, and say what moved"),
    "devices": Verb(_devices, "list what can be measured on", lines=True),
    "spaces": Verb(_spaces, "list what can be searched", lines=True),
    "formats": Verb(_formats, "list number formats", lines=True),
    "ops": Verb(_ops, "list operations, and what knows them", lines=True),
    "spaces design": Verb(_design, "design a space for a device: its block types and widths"),
    "profile compare": Verb(_compare, "two profiles side by side"),
    "profile import": Verb(_import, "turn a published table into a profile"),
    "import-ofa": Verb(_import_ofa, "turn a published once-for-all checkpoint into a supernet"),
}
TEXTS: Mapping[str, str] = {name: verb.text for name, verb in COMMANDS.items()}
